"""The step on eight devices is the step on one, but for the order of sums.

Compared are gradients (where Adam keeps them, see tiny_stage.gradients), statistics
and metrics, not parameters: where the true gradient is zero, Adam's first step has the
size of the learning rate and the sign of a rounding error.
"""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tiny_stage import CONFIG, FULL, SECTION, gradients, pictures

from taming_jax.training.mesh import batch_sharding, create_mesh
from taming_jax.training.recipe import Mesh
from taming_jax.training.vqgan import make_vqgan_stage

BATCH_NORM = SECTION["discriminator"] | {"norm": "batch"}
SHARDED = SECTION | {"discriminator": BATCH_NORM, "batch_size": 8}


def make(sizes):
    """(mesh, stage) with BatchNorm over the first devices."""
    mesh = create_mesh(sizes, jax.devices()[: sizes.data * sizes.fsdp])
    return mesh, make_vqgan_stage(CONFIG | {"vqgan": SHARDED}, mesh)


def stepped(mesh, stage, state):
    """(state, metrics) after a step with everything in use; `state` from anywhere."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, stage.abstract)
    batch = {"image": jax.device_put(pictures(8), batch_sharding(mesh))}
    with jax.set_mesh(mesh):
        return stage.step(jax.device_put(state, shardings), batch)


def close(path, a, b):
    """Sums of thousands of float32, in another order."""
    name, scale = jax.tree_util.keystr(path), np.abs(b).max()
    assert_allclose(a, b, rtol=0, atol=2e-5 * scale + 1e-8, err_msg=name)


def assert_alike(split, whole):
    jax.tree_util.tree_map_with_path(
        close, jax.device_get(split), jax.device_get(whole)
    )


def assert_halved(state):
    """Each of eight devices holds half of what can be halved: nearly everything."""
    leaves = jax.tree.leaves((state.params, state.opt_state, state.ema))
    held = [
        sum(leaf.addressable_shards[n].data.nbytes for leaf in leaves) for n in range(8)
    ]
    assert max(held) < 0.51 * sum(leaf.nbytes for leaf in leaves)


@pytest.mark.devices(8)
def test_eight_devices_equal_one_and_share_the_state():
    """Both players' gradients, BatchNorm over the global batch, codes and metrics.

    Over fsdp the state is split from its creation on.
    """
    over_fsdp = make(Mesh(4, 2))
    first = over_fsdp[1].init()
    assert_halved(first)
    first = jax.device_get(first.replace(step=first.step + FULL))
    split, said = stepped(*over_fsdp, first)
    assert_halved(split)
    whole, expected = stepped(*make(Mesh(1)), first)
    for state, metrics in ((split, said), stepped(*make(Mesh(8)), first)):
        assert_alike(gradients(state.opt_state), gradients(whole.opt_state))
        assert_alike(
            gradients(state.adversary.opt_state), gradients(whole.adversary.opt_state)
        )
        assert_alike(state.adversary.stats, whole.adversary.stats)
        assert_array_equal(state.usage.filling, whole.usage.filling)
        assert_alike(metrics, expected)
