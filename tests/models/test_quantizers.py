from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization
from flax.traverse_util import flatten_dict
from golden import golden, nhwc
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.metrics.codebook import count_codes, perplexity
from taming_jax.models.arithmetic import codebook_loss
from taming_jax.models.codebook import reseed
from taming_jax.models.gradients import straight_through, unit_length
from taming_jax.models.lookup import CHUNK, nearest
from taming_jax.models.quantizers import (
    EMA,
    IBQ,
    L2,
    QUANTIZERS,
    VQ,
    Gumbel,
    Online,
    SimVQ,
    kind_of,
)

KEY = jax.random.key(0)
RNGS = {"quantizer": jax.random.key(3)}
SIZE = {"codebook_size": 32, "dim": 5}
FIELDS = dict.fromkeys(QUANTIZERS, SIZE) | {
    "gumbel": SIZE | {"kl_weight": 0.1},
    "fsq": {"levels": (2, 2, 2, 2, 2)},
}
NEAREST = sorted(QUANTIZERS.keys() - {"gumbel", "fsq", "ibq"})  # by distance to latents
LEARNS = {  # beside the embedding, or in its place
    "ema": set(),
    "gumbel": {"embedding", "proj/kernel", "proj/bias"},
    "fsq": set(),
    "lfq": set(),
    "simvq": {"kernel", "bias"},
}
LARGE = 2**18
LARGE_SIZE = {"codebook_size": LARGE, "dim": 8}
LARGE_FIELDS = {  # gumbel refuses as many
    "vq": LARGE_SIZE | {"gradient": "rotation"},
    "l2": LARGE_SIZE | {"entropy_weight": 0.1},
    "ema": LARGE_SIZE,
    "online": LARGE_SIZE,
    "fsq": {"levels": (8,) * 6},
    "lfq": {"codebook_size": LARGE},
    "ibq": LARGE_SIZE | {"perturb_probability": 0.5},
    "simvq": LARGE_SIZE | {"entropy_weight": 0.1},
}
SET_BY_HAND = {"ema", "online"}  # codes that move in every update
LEARNED = sorted(QUANTIZERS.keys() - SET_BY_HAND)  # codes are what gradients make them


def latents(*shape):
    return jax.random.normal(jax.random.key(7), shape)


# What every quantizer promises.


@pytest.fixture(scope="module", params=QUANTIZERS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def quantizer(name):
    """Each quantizer in turn: the module and its variables."""
    module = QUANTIZERS[name](**FIELDS[name])
    z = latents(2, 3, 4, module.dim)
    return module, jax.jit(partial(module.init, train=True, step=0))(KEY, z)


@pytest.fixture(scope="module")
def step(quantizer):
    """A training step: variables, z -> (Quantized, gradients, variables after it)."""
    return _step(quantizer[0])


def _step(module):
    @jax.jit
    def take(variables, z):
        def loss(params, z):
            state = {"params": params, "codebook": variables["codebook"]}
            apply = partial(module.apply, state, mutable=["codebook"], rngs=RNGS)
            quantized, moved = apply(z, train=True, step=0)
            wanted = jnp.vdot(quantized.z, jnp.sin(jnp.arange(z.size)).reshape(z.shape))
            return wanted + quantized.loss, (quantized, moved["codebook"])

        params = params_of(variables)
        pulls, (quantized, codebook) = jax.grad(loss, (0, 1), has_aux=True)(params, z)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, pulls[0])
        params, codebook = module.after_update(
            params, codebook, quantized.latents, step=0, key=KEY
        )
        return quantized, pulls, {"params": params, "codebook": codebook}

    return take


def params_of(variables):
    """The parameters, {} of quantizers that have none."""
    return variables.get("params", {})


def test_codes_are_a_grid_of_indices_into_the_codebook(quantizer):
    module, variables = quantizer
    codes = module.apply(variables, latents(2, 3, 4, 5), train=False, step=None).codes
    assert codes.shape == (2, 3, 4)
    assert codes.dtype == jnp.int32
    assert ((codes >= 0) & (codes < module.size)).all()


def test_codes_are_found_again_by_the_vectors_that_they_stand_for(quantizer):
    module, variables = quantizer
    codes = jnp.arange(module.size)
    vectors = module.apply(variables, codes, method="lookup")
    assert vectors.shape == (module.size, module.dim)
    assert_array_equal(nearest(vectors, vectors), codes)


@pytest.mark.parametrize("name", NEAREST, scope="module")
def test_codes_of_looked_up_vectors_are_the_codes(quantizer):
    module, variables = quantizer
    codes = jnp.arange(module.size).reshape(1, 1, -1)
    vectors = module.apply(variables, codes, method="lookup")
    again = module.apply(variables, vectors, train=False, step=None)
    assert_array_equal(again.codes, codes)


def test_what_is_decoded_in_evaluation_is_what_codes_stand_for(quantizer):
    module, variables = quantizer
    quantized = module.apply(variables, latents(1, 4, 4, 5), train=False, step=None)
    vectors = module.apply(variables, quantized.codes, method="lookup")
    # z + (q - z) rounds once more than q.
    assert_allclose(quantized.z, vectors, rtol=0, atol=1e-6)


def test_bfloat16_latents_are_quantized_in_float32(quantizer):
    module, variables = quantizer
    z = latents(1, 4, 4, 5).astype(jnp.bfloat16)
    quantized = module.apply(variables, z, train=False, step=None)
    exact = module.apply(variables, z.astype(jnp.float32), train=False, step=None)
    jax.tree.map(assert_array_equal, quantized, exact)
    assert quantized.z.dtype == quantized.loss.dtype == jnp.float32


def test_what_the_decoder_wants_reaches_the_encoder(quantizer, step):
    _, variables = quantizer
    _, (_, pull), _ = step(variables, latents(1, 4, 4, 5))
    assert jnp.isfinite(pull).all()
    assert (jnp.abs(pull).max((1, 2)) > 0).all()


def test_gradients_reach_what_learns_and_nothing_else(quantizer, step, name):
    _, variables = quantizer
    _, (pulls, _), _ = step(variables, latents(2, 4, 4, 5))
    moved = {part for part, pull in flatten_dict(pulls).items() if jnp.any(pull != 0)}
    assert {"/".join(part) for part in moved} == LEARNS.get(name, {"embedding"})


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e4])
def test_gradients_are_finite_wherever_latents_are(quantizer, step, scale):
    _, variables = quantizer
    _, pulls, after = step(variables, scale * latents(1, 4, 4, 5))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((pulls, after)))


def test_gradients_are_finite_where_codes_are_equal(quantizer, step):
    _, variables = quantizer
    equal = variables | {"params": jax.tree.map(jnp.zeros_like, params_of(variables))}
    _, pulls, after = step(equal, jnp.zeros((1, 4, 4, 5)))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((pulls, after)))


def test_training_counts_the_codes_that_are_drawn(quantizer):
    module, variables = quantizer
    apply = partial(module.apply, train=True, step=0, mutable=["codebook"], rngs=RNGS)
    apply = jax.jit(apply)
    quantized, state = apply(variables, latents(2, 4, 4, 5))
    _, state = apply(variables | state, latents(2, 4, 4, 5))
    counts = np.bincount(quantized.codes.ravel(), minlength=32)
    assert_array_equal(state["codebook"]["usage"], 2 * counts)


def test_initialisation_counts_nothing(quantizer):
    _, variables = quantizer
    assert_array_equal(variables["codebook"]["usage"], np.zeros(32))


def test_evaluation_needs_neither_state_nor_noise(quantizer):
    module, variables = quantizer
    z = latents(1, 4, 4, 5)
    kept = {"params": params_of(variables)}
    if "basis" in variables["codebook"]:  # which is no state but a constant
        kept["codebook"] = {"basis": variables["codebook"]["basis"]}
    alone = module.apply(kept, z, train=False)
    quantized = module.apply(variables, z, train=False, rngs=RNGS)
    jax.tree.map(assert_array_equal, alone, quantized)


def test_an_update_keeps_the_form_of_the_state(quantizer, step):
    _, variables = quantizer
    variables = {"params": {}} | variables
    _, _, after = step(variables, latents(2, 4, 4, 5))
    assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, dict(variables))


@pytest.mark.parametrize("name", LEARNED, scope="module")
def test_by_default_an_update_leaves_the_codebook_as_it_is(quantizer):
    module, variables = quantizer
    given = params_of(variables), variables["codebook"]
    params, _ = module.after_update(*given, latents(8, 5), step=9, key=KEY)
    jax.tree.map(assert_array_equal, params, params_of(variables))


def test_what_was_kept_goes_on_as_what_was_not(quantizer, step):
    """All that changes is in the variables, and is the same when read again."""
    _, variables = quantizer
    z = latents(2, 4, 4, 5)
    _, _, after = step(variables, z)
    kept = serialization.from_bytes(after, serialization.to_bytes(after))
    jax.tree.map(assert_array_equal, step(kept, z + 1), step(after, z + 1))


@pytest.mark.devices(8)
def test_a_sharded_batch_has_the_codes_and_the_update_of_one_device(quantizer, step):
    _, variables = quantizer
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.P("data"))
    z = latents(8, 4, 4, 5)
    one, eight = step(variables, z), step(variables, jax.device_put(z, rows))
    # Sums over devices run in another order.
    jax.tree.map(partial(assert_allclose, rtol=1e-4, atol=1e-5), eight, one)
    replicas = jax.tree.map(lambda leaf: leaf.addressable_shards, eight[2])
    for shards in jax.tree.leaves(replicas, is_leaf=lambda x: isinstance(x, list)):
        for shard in shards:
            assert_array_equal(shard.data, shards[0].data)


@pytest.mark.parametrize("name", sorted(LARGE_FIELDS))
def test_memory_is_bounded_where_codes_are_many(name):
    """Of a step, with all gradients and the update: no latents x codes is there."""
    module = QUANTIZERS[name](**LARGE_FIELDS[name])
    z = jax.ShapeDtypeStruct((4, 16, 16, module.dim), "float32")
    variables = jax.eval_shape(partial(module.init, train=True, step=0), KEY, z)
    compiled = _step(module).lower(variables, z).compile()
    chunk = 4 * 1024 * CHUNK  # 16 MiB
    table = 4 * LARGE * 8
    used = compiled.memory_analysis().temp_size_in_bytes
    # A few chunks of scores; tables, of gradients and of what they are summed from.
    assert used < 4 * chunk + 4 * table < 4 * 1024 * LARGE / 10


# VQ against the original.


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("output", ["emb_loss", "grad_h", "grad_codebook"])
def test_vq_loss_and_gradients_equal_the_originals(legacy, output):
    case = golden("02_vqmodel")
    table = case.weights["quantize.embedding.weight"]
    module = VQ(*table.shape, legacy=legacy)

    def loss(z, table):
        variables = {"params": {"embedding": table}}
        quantized = module.apply(variables, z, train=True)
        probed = jnp.sum(quantized.z * nhwc(case.inputs["probe"]))
        return quantized.loss + probed, quantized.loss

    z = nhwc(case.outputs["prequant"])
    (_, value), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(z, table)
    ours = dict(
        zip(("emb_loss", "grad_h", "grad_codebook"), (value, *gradients), strict=True)
    )
    theirs = case.outputs[f"legacy{legacy:d}_sane1/{output}"]
    theirs = nhwc(theirs) if output == "grad_h" else theirs
    tolerance = case.tolerance(f"legacy{legacy:d}_sane1/{output}")
    assert_allclose(ours[output], theirs, **tolerance)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("sane", [0, 1])
def test_vq_codes_equal_the_originals_whatever_the_loss_and_their_shape(legacy, sane):
    case = golden("02_vqmodel")
    quantized, start = vq(case, legacy=legacy), f"legacy{legacy:d}_sane{sane}"
    indices = case.outputs[f"{start}/indices"].ravel()
    assert_array_equal(quantized.codes.ravel(), indices)
    name = f"{start}/emb_loss"
    assert_allclose(quantized.loss, case.outputs[name], **case.tolerance(name))


def test_vq_equals_the_originals_older_class():
    case = golden("02_vqmodel")
    quantized = vq(case, legacy=True)
    assert_array_equal(quantized.codes.ravel(), case.outputs["v1/indices"].ravel())
    for name, ours in {
        "quant": np.moveaxis(quantized.z, -1, 1),
        "emb_loss": quantized.loss,
        "perplexity": perplexity(count_codes(quantized.codes, 20)),
    }.items():
        name = f"v1/{name}"
        assert_allclose(ours, case.outputs[name], **case.tolerance(name), err_msg=name)


def vq(case, **fields):
    """What our VQ makes of golden 02's latents."""
    table = case.weights["quantize.embedding.weight"]
    module = VQ(*table.shape, **fields)
    variables = {"params": {"embedding": table}}
    z = nhwc(case.outputs["prequant"])
    return jax.jit(partial(module.apply, train=False))(variables, z)


# Arithmetic.


def test_the_straight_through_gradient_is_that_of_the_latents():
    z, q = latents(2, 4, 5)
    probe = latents(4, 5)
    gradient = jax.grad(lambda z: jnp.vdot(straight_through(z, q, 1.0), probe))(z)
    assert_array_equal(gradient, probe)


def test_no_gradient_of_the_decoder_reaches_the_codebook():
    module = VQ(16, 5)
    z = latents(1, 4, 4, 5)
    params = module.init(KEY, z, train=False)["params"]

    def decoded(params):
        return module.apply({"params": params}, z, train=True).z.sum()

    assert_array_equal(jax.grad(decoded)(params)["embedding"], np.zeros((16, 5)))


def test_the_first_of_two_equally_near_codes_is_taken():
    table = jnp.array([[5.0], [1.0], [1.0], [-1.0]])
    assert_array_equal(nearest(jnp.array([[1.0], [0.0]]), table), [1, 1])


def test_the_correct_loss_puts_beta_on_the_commitment():
    z, q = jnp.array([0.0]), jnp.array([3.0])
    pull = jax.grad(
        lambda z, q: codebook_loss(z=z, q=q, beta=0.25, legacy=False), (0, 1)
    )
    assert_array_equal(jnp.concatenate(pull(z, q)), [-1.5, 6.0])


def test_unit_length_of_zero_is_zero_with_a_finite_gradient():
    value, pull = jax.vjp(unit_length, jnp.zeros(3))
    assert_array_equal(value, np.zeros(3))
    assert jnp.isfinite(pull(jnp.ones(3))[0]).all()


def test_normalised_codes_do_not_depend_on_the_length_of_latents():
    module = VQ(32, 5, normalize=True)
    z = latents(1, 6, 6, 5)
    variables = module.init(KEY, z, train=False)
    quantized = module.apply(variables, z, train=False)
    scaled = module.apply(variables, 100 * z, train=False)
    assert_array_equal(quantized.codes, scaled.codes)


def test_normalised_codes_stand_for_vectors_of_length_one():
    module = VQ(32, 5, normalize=True)
    variables = module.init(KEY, latents(1, 1, 1, 5), train=False)
    vectors = module.apply(variables, jnp.arange(32), method="lookup")
    assert_allclose(jnp.linalg.norm(vectors, axis=-1), 1, rtol=1e-6)


# Soft start, counting and revival.

SOFT = VQ(32, 5, start_step=10, blend_steps=4)
REVIVING = VQ(32, 5, start_step=10, revive_every=5, revive_until=40)


@pytest.fixture
def variables():
    return SOFT.init(KEY, latents(1, 1, 1, 5), train=False)


@pytest.mark.parametrize(
    ("step", "share"), [(0, 0), (9, 0), (10, 0.25), (12, 0.75), (13, 1), (99, 1)]
)
def test_quantization_is_blended_in(variables, step, share):
    z = latents(1, 4, 4, 5)
    apply = jax.jit(partial(SOFT.apply, train=True))
    blended = apply(variables, z, step=jnp.int32(step))
    quantized = SOFT.apply(variables, z, train=False)
    assert_allclose(blended.z, z + share * (quantized.z - z), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("step", "counts"), [(9, False), (10, True)])
def test_the_loss_counts_from_the_start_step(variables, step, counts):
    quantized = SOFT.apply(variables, latents(1, 4, 4, 5), train=True, step=step)
    assert (quantized.loss > 0) == counts


def test_evaluation_quantizes_wholly_whatever_the_step(variables):
    z = latents(1, 4, 4, 5)
    early = SOFT.apply(variables, z, train=False, step=0)
    assert_array_equal(early.z, SOFT.apply(variables, z, train=False, step=None).z)


def updated(module, variables, step, usage=0.0, compiled=False):
    """Table and counts after the update of `step`, from the counts `usage`."""
    update = partial(module.after_update, key=KEY)
    codebook = {"usage": jnp.broadcast_to(jnp.asarray(usage, jnp.float32), (32,))}
    given = variables["params"], codebook, latents(4, 4, 4, 5)
    if compiled:
        update, step = jax.jit(update), jnp.int32(step)
    params, codebook = update(*given, step=step)
    return params["embedding"], codebook["usage"]


def changed(module, variables, step, usage=0.0):
    """Which rows of the table the update of `step` replaces: bool [K]."""
    table, _ = updated(module, variables, step, usage)
    return (table != variables["params"]["embedding"]).any(-1)


@pytest.mark.parametrize(("step", "filled"), [(8, False), (9, True), (10, False)])
def test_the_table_is_filled_just_before_the_start_step(variables, step, filled):
    assert_array_equal(changed(SOFT, variables, step), np.full(32, filled))


def test_the_table_is_filled_with_different_latents_of_the_batch(variables):
    table, _ = updated(SOFT, variables, step=9)
    supply = {tuple(z) for z in np.asarray(latents(64, 5)).tolist()}
    rows = {tuple(row) for row in np.asarray(table).tolist()}
    assert len(rows & supply) == 32


def test_fewer_latents_than_codes_still_fill_the_table():
    """Each code near a latent, and no two codes alike: the second would be idle."""
    z = latents(3, 5)
    table = reseed(jnp.zeros((32, 5)), jnp.ones(32, bool), z, KEY)
    away = jnp.abs(table[:, None] - z).max(axis=-1).min(axis=-1)  # [32]
    assert (away < 0.5 * z.std(axis=0).max()).all()
    assert len(np.unique(np.asarray(table), axis=0)) == 32


@pytest.mark.parametrize(
    ("step", "revived"),
    [(13, False), (14, True), (15, False), (19, True), (39, True), (44, False)],
)
def test_idle_codes_are_revived_now_and_then_until_the_end(variables, step, revived):
    usage = jnp.arange(32) % 2
    idle = np.arange(32) % 2 == 0
    assert_array_equal(changed(REVIVING, variables, step, usage), idle & revived)


def test_counting_begins_anew_after_a_revival(variables):
    _, usage = updated(REVIVING, variables, step=14, usage=3.0)
    assert_array_equal(usage, np.zeros(32))


@pytest.mark.parametrize("step", [9, 12, 14])
def test_a_traced_step_updates_as_a_known_one(variables, step):
    usage = jnp.arange(32) % 2
    known = updated(REVIVING, variables, step, usage)
    traced = updated(REVIVING, variables, step, usage, compiled=True)
    jax.tree.map(assert_array_equal, traced, known)


def test_every_revived_code_is_drawn_by_the_batch_it_came_from(variables):
    z = 5 + latents(4, 4, 4, 5)  # far from everything in the table
    usage = jnp.arange(32) % 2
    params, _ = REVIVING.after_update(
        variables["params"], {"usage": usage}, z, step=14, key=KEY
    )
    codes = REVIVING.apply({"params": params}, z, train=False).codes
    assert set(range(0, 32, 2)) <= set(codes.ravel().tolist())


@pytest.mark.devices(4)
def test_revival_over_a_sharded_batch_equals_one_device(variables):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.P("data"))
    update = jax.jit(partial(REVIVING.after_update, step=14, key=KEY))
    z = latents(4, 4, 4, 5)
    given = variables["params"], variables["codebook"]
    jax.tree.map(
        assert_array_equal, update(*given, jax.device_put(z, rows)), update(*given, z)
    )


# Entropies, and what is refused.


@pytest.mark.parametrize("quantizer", [VQ, L2, EMA, Online, SimVQ])
def test_entropies_are_those_of_distances_over_the_temperature(quantizer):
    module = quantizer(16, 5, entropy_weight=0.3, entropy_temperature=0.7)
    without = quantizer(16, 5)
    z = latents(2, 4, 4, 5)
    variables = module.init(KEY, z, train=False)
    quantized = module.apply(variables, z, train=True)
    table = np.float64(module.apply(variables, jnp.arange(16), method="lookup"))
    apart = np.float64(quantized.latents)[..., None, :] - table
    p = np.exp(-np.square(apart).sum(-1) / 0.7).reshape(-1, 16)
    p /= p.sum(-1, keepdims=True)
    each = -(p * np.log(p)).sum(-1).mean()
    of_mean = -(p.mean(0) * np.log(p.mean(0))).sum()
    assert_allclose(quantized.stats["entropy_each"], each, rtol=1e-4)
    assert_allclose(quantized.stats["entropy_of_mean"], of_mean, rtol=1e-4)
    added = quantized.loss - without.apply(variables, z, train=True).loss
    # Float32 differences of numbers near 1.
    assert_allclose(added, 0.3 * (each - of_mean), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("quantizer", "fields", "message"),
    [
        (VQ, {"codebook_size": 0, "dim": 4}, "codebook_size=0 and dim=4; .* 1 or more"),
        (VQ, {"codebook_size": 8, "dim": 0}, "codebook_size=8 and dim=0; .* 1 or more"),
        (
            VQ,
            {"codebook_size": 2**22, "dim": 256},
            r"VQ's 4194304 codes of dim=256 would take 20.0 GiB .*allowed are 16: take",
        ),
        (
            Gumbel,
            {"codebook_size": 2**18, "dim": 8},
            r"codebook_size=262144 needs .* 8 GiB for 8192 .* 32768 at most.*'ibq'",
        ),
        (
            L2,
            {"codebook_size": 8, "dim": 4, "normalize": False},
            "L2 has normalize=Fal",
        ),
        (
            EMA,
            {"codebook_size": 8, "dim": 4, "entropy_weight": -1.0},
            "EMA has entropy_weight=-1.0 .*allowed: 0 or more",
        ),
        (
            IBQ,
            {"codebook_size": 8, "dim": 4, "entropy_temperature": 0.0},
            "IBQ has .*entropy_temperature=0.0; allowed: .* above 0",
        ),
        (
            Gumbel,
            {"codebook_size": 8, "dim": 4, "gradient": "rotation"},
            "Gumbel has no field 'gradient'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(quantizer, fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        quantizer(**fields)
    assert "\n" not in str(caught.value)


def test_kinds_are_alike_where_codes_are():
    size = {"codebook_size": 8, "dim": 3}
    assert kind_of(size) == "vq of 8 codes, dim 3"
    assert kind_of(size | {"normalize": True}) == kind_of(size | {"name": "l2"})
    assert kind_of({"name": "lfq"} | size) == kind_of(
        {"name": "lfq", "codebook_size": 8}
    )
    kinds = {kind_of({"name": name} | FIELDS[name]) for name in QUANTIZERS}
    assert len(kinds) == len(QUANTIZERS)
