"""Latents perturbed in training: what the decoder sees of some pictures, and only that.

Which codes are neighbours, and how they are drawn, is in `test_lookup`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models.lookup import nearest
from taming_jax.models.quantizers import QUANTIZERS, VQ

KEY = jax.random.key(0)
Z = jax.random.normal(jax.random.key(1), (8, 4, 4, 5))
SIZE = {"codebook_size": 32, "dim": 5}
FIELDS = dict.fromkeys(QUANTIZERS, SIZE) | {
    "fsq": {"levels": (2, 2, 2, 2, 2)},
    "gumbel, soft": SIZE | {"straight_through": False},
}


def train(module, variables, step=0, key=KEY, z=Z):
    apply = partial(module.apply, variables, train=True, rngs={"quantizer": key})
    return jax.jit(lambda z, step: apply(z, step=step))(z, jnp.int32(step))


@pytest.fixture(scope="module", params=FIELDS)
def pair(request):
    """The quantizer, the same with every second latent perturbed, its variables."""
    name, fields = request.param.partition(",")[0], FIELDS[request.param]
    quantizer = QUANTIZERS[name]
    module = quantizer(**fields)
    perturbing = quantizer(
        **fields, perturb_probability=0.5, perturb_share=0.2, perturb_neighbours=3
    )
    return module, perturbing, jax.jit(partial(module.init, train=False))(KEY, Z)


def test_only_what_the_decoder_sees_of_the_first_pictures_changes(pair):
    module, perturbing, variables = pair
    plain, perturbed = train(module, variables), train(perturbing, variables)
    changed = (np.abs(plain.z - perturbed.z) > 1e-5).any(-1)
    assert not changed[2:].any()  # of a fifth of eight pictures, rounded up
    # Of 32 draws with odds of a half: four standard deviations.
    assert abs(changed[:2].mean() - 0.5) < 4 * 0.5 / np.sqrt(32)
    assert_array_equal(perturbed.codes, plain.codes)
    assert_array_equal(perturbed.loss, plain.loss)


def test_what_is_perturbed_is_one_of_the_nearest_other_codes(pair):
    module, perturbing, variables = pair
    plain, perturbed = train(module, variables), train(perturbing, variables)
    changed = (np.abs(plain.z - perturbed.z) > 1e-5).any(-1)
    z, codes = perturbed.z[changed], plain.codes[changed]
    table = module.apply(variables, jnp.arange(32), method="lookup")
    seen = nearest(z, table)
    # z + (e - z) rounds.
    assert_allclose(z, table[seen], rtol=0, atol=1e-5)
    apart = jnp.linalg.norm(table[:, None] - table, axis=-1)
    rank = jnp.argsort(jnp.argsort(apart, axis=-1), axis=-1)  # 0: the code itself
    assert set(np.unique(rank[codes, seen])) <= {1, 2, 3}


def test_gradients_pass_as_they_do_unperturbed(pair):
    module, perturbing, variables = pair

    def pull(of):
        return jax.grad(lambda z: jnp.sum(jnp.sin(Z) * train(of, variables, z=z).z))(Z)

    assert_array_equal(pull(perturbing), pull(module))


def test_evaluation_perturbs_nothing(pair):
    module, perturbing, variables = pair
    ours, plain = (of.apply(variables, Z, train=False).z for of in (perturbing, module))
    assert_array_equal(ours, plain)


TABLE = {"params": {"embedding": jax.random.normal(KEY, (32, 5))}}
ALWAYS = {"perturb_probability": 1.0, "perturb_share": 1.0, "perturb_neighbours": 3}


def test_all_of_the_nearest_codes_come_in_place_of_each_and_never_itself():
    quantized = train(VQ(32, 5, **ALWAYS), TABLE)
    table = TABLE["params"]["embedding"]
    seen = nearest(quantized.z, table)
    apart = jnp.linalg.norm(table[:, None] - table, axis=-1)
    rank = jnp.argsort(jnp.argsort(apart, axis=-1), axis=-1)  # 0: the code itself
    assert set(np.unique(rank[quantized.codes, seen])) == {1, 2, 3}


@pytest.mark.parametrize(("step", "share"), [(0, 1.0), (25, 0.75), (100, 0), (999, 0)])
def test_the_probability_falls_to_nothing(step, share):
    module = VQ(32, 5, perturb_steps=100, **ALWAYS)
    z = jnp.tile(Z, (8, 1, 1, 1))
    quantized = train(module, TABLE, step=step, z=z)
    seen = nearest(quantized.z, TABLE["params"]["embedding"])
    deviation = np.sqrt(share * (1 - share) / seen.size)
    changed = jnp.mean(seen != quantized.codes)
    assert_allclose(changed, share, rtol=0, atol=4 * deviation)


def test_what_is_not_quantized_yet_is_not_perturbed():
    module = VQ(32, 5, start_step=10, blend_steps=10, **ALWAYS)
    assert_array_equal(train(module, TABLE, step=9).z, Z)


def test_another_key_perturbs_otherwise():
    module = VQ(32, 5, **ALWAYS)
    one, other = (train(module, TABLE, key=jax.random.key(k)).z for k in (1, 2))
    assert (one != other).any()


@pytest.mark.devices(8)
def test_a_sharded_batch_is_perturbed_as_on_one_device():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.P("data"))
    module = VQ(32, 5, **(ALWAYS | {"perturb_share": 0.2}))
    one = train(module, TABLE)
    eight = train(module, TABLE, z=jax.device_put(Z, rows))
    assert_allclose(eight.z, one.z, rtol=0, atol=1e-6)


def test_used_codes_are_not_perturbed():
    message = "VQ has both used= and perturb_probability=0.5: .* leave one of them out"
    with pytest.raises(ValueError, match=message):
        VQ(32, 5, perturb_probability=0.5, used=(1, 2))


def test_one_code_has_no_neighbour():
    with pytest.raises(ValueError, match="VQ's one code has no neighbour"):
        VQ(1, 5, perturb_probability=0.5)
