import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import golden, nhwc
from numpy.testing import assert_allclose, assert_array_equal
from published import EMA_QUANTIZER

from taming_jax.metrics.codebook import count_codes, perplexity
from taming_jax.models.quantizers import EMA

CASE = golden("04_ema_quantizer")
PARAMS = CASE.config["params"]
MODULE = EMA(
    codebook_size=PARAMS["n_embed"],
    dim=PARAMS["embedding_dim"],
    beta=PARAMS["beta"],
    decay=PARAMS["decay"],
    epsilon=PARAMS["eps"],
)
KEY = jax.random.key(0)


@jax.jit
def step(params, codebook, z):
    """A training step: what the quantizer gave, its gradient, what it became."""

    def loss(z):
        variables = {"params": params, "codebook": codebook}
        quantized, moved = MODULE.apply(variables, z, train=True, mutable=["codebook"])
        value = quantized.loss + 0.5 * jnp.sum(jnp.square(quantized.z))  # as recorded
        return value, (quantized, moved["codebook"])

    gradient, (quantized, codebook) = jax.grad(loss, has_aux=True)(z)
    params, codebook = MODULE.after_update(
        params, codebook, quantized.latents, step=0, key=KEY
    )
    return quantized, gradient, params, codebook


@pytest.fixture(scope="module", params=["fresh", "warm"])
def trained(request):
    """Three steps and an evaluation, in the original's words: name -> ours."""
    variables = CASE.variables(EMA_QUANTIZER, f"{request.param}/")
    params, codebook = variables["params"], variables["codebook"]
    codebook["usage"] = np.zeros(PARAMS["n_embed"], np.float32)
    ours = {}
    for n, z in enumerate(map(nhwc, CASE.inputs["z"])):
        quantized, gradient, params, codebook = step(params, codebook, z)
        ours |= {
            f"step{n}/{name}": value
            for name, value in {
                **outputs(quantized),
                "grad_z": np.moveaxis(gradient, -1, 1),
                "weight": params["embedding"],
                "cluster_size": codebook["sizes"],
                "embed_avg": codebook["sums"],
            }.items()
        }
    z = nhwc(CASE.inputs["z"][0])
    quantized = jax.jit(lambda z: MODULE.apply({"params": params}, z, train=False))(z)
    evaluated = outputs(quantized) | {"weight": params["embedding"]}
    ours |= {f"eval/{name}": value for name, value in evaluated.items()}
    return {f"{request.param}/{name}": value for name, value in ours.items()}


def outputs(quantized):
    codes = np.asarray(quantized.codes)
    return {
        "quant": np.moveaxis(quantized.z, -1, 1),
        "loss": quantized.loss,
        "indices": codes.ravel(),
        "perplexity": perplexity(count_codes(codes, PARAMS["n_embed"])),
    }


def test_three_steps_and_an_evaluation_equal_the_originals(trained):
    start = next(iter(trained)).split("/")[0]
    recorded = {k: v for k, v in CASE.outputs.items() if k.startswith(f"{start}/")}
    assert trained.keys() == recorded.keys()
    for name, expected in recorded.items():
        tolerance = CASE.tolerance(name) if name in CASE.deviations else {"atol": 0}
        assert_allclose(trained[name], expected, **tolerance, err_msg=name)


@pytest.fixture(scope="module")
def fresh():
    """Our own start, and latents that lie where few codes are."""
    z = 0.1 * jax.random.normal(jax.random.key(2), (4, 6, 6, 5)) + 1.0
    return jax.jit(lambda z: MODULE.init(KEY, z, train=True))(z), z


def test_codes_without_latents_stay_where_they_are(fresh):
    variables, z = fresh
    quantized, _, params, _ = step(variables["params"], variables["codebook"], z)
    idle = count_codes(quantized.codes, PARAMS["n_embed"]) == 0
    before, after = variables["params"]["embedding"], params["embedding"]
    assert idle.any()
    # But for the smoothing, whose share of their count is 1e-5.
    assert_allclose(after[idle], before[idle], rtol=1e-4)


def test_codes_move_towards_the_mean_of_their_latents(fresh):
    variables, z = fresh
    params, codebook = variables["params"], variables["codebook"]
    for _ in range(300):
        quantized, _, params, codebook = step(params, codebook, z)
    code = np.bincount(quantized.codes.ravel()).argmax()
    mean = quantized.latents[np.asarray(quantized.codes) == code].mean(0)
    # 0.99^300, a twentieth, is left of where it began, 2.5 away at most.
    assert_allclose(params["embedding"][code], mean, rtol=0, atol=0.05)


def test_no_gradient_moves_the_table(fresh):
    variables, z = fresh

    def loss(params):
        quantized = MODULE.apply({"params": params}, z, train=True)
        return quantized.loss + quantized.z.sum()

    gradient = jax.grad(loss)(variables["params"])["embedding"]
    assert_array_equal(gradient, np.zeros_like(gradient))


REVIVING = MODULE.clone(start_step=4, revive_every=5, revive_until=30)


def updated(z, step, usage):
    """What became of the codes and of their averages: before, after, averages."""
    variables = jax.jit(lambda z: MODULE.init(KEY, z, train=True))(z)
    size = (PARAMS["n_embed"],)
    codebook = dict(variables["codebook"]) | {
        "sizes": jnp.full(size, 7.0),
        "sums": 7 * variables["params"]["embedding"],
        "usage": jnp.broadcast_to(jnp.asarray(usage, jnp.float32), size),
    }
    params, after = REVIVING.after_update(
        variables["params"], codebook, z, step=step, key=KEY
    )
    return variables["params"]["embedding"], params["embedding"], after


def test_dead_codes_are_revived_with_averages_of_their_own(fresh):
    """Else they would be drawn back to where nothing is, and die again."""
    _, z = fresh
    dead = np.arange(PARAMS["n_embed"]) % 2 == 0
    _, after, averages = updated(z, step=8, usage=~dead)
    supply = np.asarray(z).reshape(-1, 5)
    for row in after[dead]:
        assert (row == supply).all(-1).any()
    assert_array_equal(averages["sums"][dead], after[dead])
    assert_array_equal(averages["sizes"][dead], np.ones(dead.sum()))
    assert (averages["sizes"][~dead] > 6).all()
    assert_array_equal(averages["usage"], np.zeros(len(dead)))


def test_a_revived_code_stays_where_it_was_put(fresh):
    """In the next step, with no latents of its own, but for the smoothing."""
    _, z = fresh
    dead = np.arange(PARAMS["n_embed"]) % 2 == 0
    _, after, averages = updated(z, step=8, usage=~dead)
    params, _ = REVIVING.after_update(
        {"embedding": after}, averages, jnp.full_like(z, 99.0), step=9, key=KEY
    )
    moved = np.abs(params["embedding"] - after).max(-1) > 1e-3
    assert moved.sum() <= 1  # the one that all latents are nearest to


def test_the_table_begins_as_latents_with_averages_of_their_own(fresh):
    _, z = fresh
    _, after, averages = updated(z, step=3, usage=1.0)
    assert_array_equal(averages["sums"], after)
    assert_array_equal(averages["sizes"], np.ones(PARAMS["n_embed"]))
    assert len(np.unique(after, axis=0)) == PARAMS["n_embed"]


@pytest.mark.parametrize("step", [4, 7, 33])
def test_at_other_steps_codes_are_their_averages(fresh, step):
    _, z = fresh
    _, after, averages = updated(z, step=step, usage=0.0)
    # But for the smoothing.
    means = averages["sums"] / averages["sizes"][:, None]
    assert_allclose(after, means, rtol=1e-4)
    assert (averages["sizes"] > 6).all()
