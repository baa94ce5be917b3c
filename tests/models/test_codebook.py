"""Tables of codes: soft start, counting and revival, and entropies of the choice."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models.codebook import reseed
from taming_jax.models.quantizers import EMA, L2, VQ, Online, SimVQ

KEY = jax.random.key(0)
SOFT = VQ(32, 5, start_step=10, blend_steps=4)
REVIVING = VQ(32, 5, start_step=10, revive_every=5, revive_until=40)


def latents(*shape):
    return jax.random.normal(jax.random.key(7), shape)


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
