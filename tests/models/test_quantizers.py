"""What every quantizer promises, for each of them in turn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization
from flax.traverse_util import flatten_dict
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models.lookup import CHUNK, nearest
from taming_jax.models.quantizers import QUANTIZERS, kind_of

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


LOOKED_UP = sorted({*NEAREST, "ibq"} - {"lfq"})  # whose signs bfloat16 keeps


@pytest.mark.parametrize("name", LOOKED_UP, scope="module")
def test_codes_of_bfloat16_latents_are_those_of_double_precision(quantizer, name):
    """And not those of scores in bfloat16, which are others for some of the latents."""
    module, variables = quantizer
    z = latents(4, 16, 16, 5).astype(jnp.bfloat16)
    quantized = jax.jit(partial(module.apply, train=False))(variables, z)
    assert quantized.latents.dtype == jnp.float32
    table = module.apply(variables, jnp.arange(32), method="lookup")
    squares = 0 if name == "ibq" else np.square(table).sum(-1)
    scores = 2 * np.asarray(z, np.float64) @ np.asarray(table, np.float64).T - squares
    assert_array_equal(quantized.codes, scores.argmax(-1))
    rough = 2 * z @ table.astype(z.dtype).T - jnp.asarray(squares, z.dtype)
    assert (rough.argmax(-1) != scores.argmax(-1)).any()


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


def test_kinds_are_alike_where_codes_are():
    size = {"codebook_size": 8, "dim": 3}
    assert kind_of(size) == "vq of 8 codes, dim 3"
    assert kind_of(size | {"normalize": True}) == kind_of(size | {"name": "l2"})
    assert kind_of({"name": "lfq"} | size) == kind_of(
        {"name": "lfq", "codebook_size": 8}
    )
    kinds = {kind_of({"name": name} | FIELDS[name]) for name in QUANTIZERS}
    assert len(kinds) == len(QUANTIZERS)
