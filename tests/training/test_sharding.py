"""The step on eight devices is the step on one, but for the order of sums.

Compared are gradients (where Adam keeps them, see tiny_stage.gradients), statistics
and metrics, not parameters: where the true gradient is zero, Adam's first step has the
size of the learning rate and the sign of a rounding error.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tiny_stage import CONFIG, FULL, SECTION, build, gradients, pictures, random_state

from taming_jax.training.mesh import batch_sharding, create_mesh
from taming_jax.training.recipe import Mesh
from taming_jax.training.vqgan import make_vqgan_stage

pytestmark = pytest.mark.devices(8)

BATCH_NORM = SECTION["discriminator"] | {"norm": "batch"}
SHARDED = SECTION | {"discriminator": BATCH_NORM, "batch_size": 8}
LAYOUTS = {"one": Mesh(1), "data": Mesh(8), "fsdp": Mesh(4, 2)}


@functools.cache
def stepped(layout):
    """(state, metrics) after one step with BatchNorm, everything in use."""
    sizes = LAYOUTS[layout]
    mesh = create_mesh(sizes, jax.devices()[: sizes.data * sizes.fsdp])
    stage = make_vqgan_stage(CONFIG | {"vqgan": SHARDED}, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, stage.abstract)
    parts = build(discriminator=BATCH_NORM, batch_size=8)
    state = jax.device_put(random_state(parts, FULL), shardings)
    with jax.set_mesh(mesh):
        batch = {"image": jax.device_put(pictures(8), batch_sharding(mesh))}
        return stage.step(state, batch)


def close(path, a, b):
    """Sums of thousands of float32, in another order."""
    name, scale = jax.tree_util.keystr(path), np.abs(b).max()
    assert_allclose(a, b, rtol=0, atol=2e-5 * scale + 1e-8, err_msg=name)


def assert_alike(split, whole):
    jax.tree_util.tree_map_with_path(
        close, jax.device_get(split), jax.device_get(whole)
    )


def test_many_devices_equal_one():
    """Both players' gradients, BatchNorm over the global batch, codes and metrics."""
    whole, expected = stepped("one")
    for split, said in (stepped("data"), stepped("fsdp")):
        assert_alike(gradients(split.opt_state), gradients(whole.opt_state))
        assert_alike(
            gradients(split.adversary.opt_state), gradients(whole.adversary.opt_state)
        )
        assert_alike(split.adversary.stats, whole.adversary.stats)
        assert_array_equal(split.usage.filling, whole.usage.filling)
        assert_alike(said, expected)


def test_state_lives_over_fsdp_from_its_creation_on():
    """Each device holds half of what can be halved: nearly everything."""
    mesh = create_mesh(LAYOUTS["fsdp"])
    stage = make_vqgan_stage(CONFIG | {"vqgan": SHARDED}, mesh)
    states = [stage.init()]
    first = jax.tree.map(jnp.copy, states[0])
    states.append(stage.step(first, {"image": pictures(8)})[0])
    for state in states:
        leaves = jax.tree.leaves((state.params, state.opt_state, state.ema))
        whole = sum(leaf.nbytes for leaf in leaves)
        here = [
            sum(leaf.addressable_shards[n].data.nbytes for leaf in leaves)
            for n in range(8)
        ]
        assert max(here) < 0.51 * whole
