"""A step of either stage on eight devices: equal to that on one, a share of the state
for each, and nothing sent without a reason.

Compared are gradients (where Adam keeps them, see tiny_stage.gradients), statistics
and metrics, not parameters: where the true gradient is zero, Adam's first step has the
size of the learning rate and the sign of a rounding error.
"""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from numpy.testing import assert_allclose
from on_mesh import (
    B1,
    BATCH,
    MESHES,
    ONE,
    PLACES,
    STAGES,
    WIDTH,
    build,
    first,
    run,
    sent,
)
from tiny_stage import gradients

each_stage = pytest.mark.parametrize("name", STAGES)


@pytest.mark.devices(8)
@each_stage
def test_a_step_is_that_of_one_device(name):
    """Sums of thousands of float32 in another order, and no other difference."""
    whole = run(name, ONE)
    for sizes in MESHES:
        split = run(name, sizes)
        assert_alike(learned_from(split.after), learned_from(whole.after))
        assert_alike(split.metrics, whole.metrics)


@pytest.mark.devices(8)
@pytest.mark.parametrize("variant", ["steady", "smooth"])
def test_a_step_with_every_option_of_the_adversary_is_that_of_one_device(variant):
    whole, split = (run("vqgan", sizes, variant=variant) for sizes in (ONE, (2, 2, 2)))
    assert_alike(learned_from(split.after), learned_from(whole.after))
    assert_alike(split.metrics, whole.metrics)
    regularised = {"steady": ("lecam", "r1"), "smooth": ("lecam",)}[variant]
    assert all(whole.metrics[name] > 0 for name in regularised)


@pytest.mark.devices(8)
def test_orthogonal_steps_of_split_matrices_are_those_of_whole_ones():
    """They need a whole matrix, whose parts lie on four devices."""
    whole, split = (run("prior", s, variant="orthogonal") for s in (ONE, (2, 2, 2)))
    before = jax.device_get(first("prior", ONE, "orthogonal")).params["blocks"]
    for name in ("query", "out", "up", "down"):
        far = [ran.after.params["blocks"][name]["kernel"] - before[name]["kernel"]
               for ran in (whole, split)]  # fmt: skip
        assert_allclose(far[1], far[0], atol=2e-3 * np.abs(far[0]).max())


@pytest.mark.devices(8)
@each_stage
def test_the_first_state_is_that_of_one_device_and_created_split(name):
    split, whole = first(name, (2, 2, 2)), first(name, ONE)
    assert_alike(jax.device_get(split), jax.device_get(whole), share=1e-6)
    lies, wanted = map(shardings, (split, build(name, (2, 2, 2)).stage.abstract))
    assert lies == wanted


@pytest.mark.devices(8)
@each_stage
def test_each_device_holds_its_share_of_the_state(name):
    """By what the compiled step takes; the first stage is whole along `tensor`."""
    for sizes in MESHES:
        ran, (data, fsdp, tensor) = run(name, sizes), sizes
        batch = sum(a.nbytes for a in ran.built.batch.values()) / (data * fsdp)
        held = ran.compiled.memory_analysis().argument_size_in_bytes - batch
        parts = fsdp * tensor if name == "prior" else fsdp
        # Up to 6 % more: vectors of 3, 4 and 12 elements, which eight do not divide;
        # norms and places, which are whole along `tensor`.
        assert held < 1.06 * size(ran.after) / parts, sizes


@pytest.mark.devices(8)
@each_stage
def test_all_that_is_sent_has_a_reason_and_every_reason_sends(name):
    """No array of a batch has a parameter's shape: gathered ones could not hide."""
    for sizes in MESHES:
        found, reasons = sent(run(name, sizes)), reasons_to_send(name, sizes)
        assert found - set().union(*reasons.values()) == set(), sizes
        assert [why for why, what in reasons.items() if not what & found] == [], sizes


@pytest.mark.devices(8)
def test_micro_batches_send_nothing_more():
    in_parts = sent(run("vqgan", (2, 2, 2), accumulate=2))
    assert in_parts - sent(run("vqgan", (2, 2, 2))) == set()


def reasons_to_send(name, sizes):
    """Reason -> what it may send, as {(kind, shape of the result on each device)}."""
    data, fsdp, tensor = sizes
    state = build(name, sizes).stage.abstract
    params = state.params, state.adversary and state.adversary.params
    used = {shape_at_use(*leaf) for leaf in jax.tree.leaves_with_path(params)}
    # A norm's are summed as what they are laid over images as, [1,1,C].
    laid = {(1, 1, *shape) for shape in used if len(shape) == 1}
    reasons = {
        "losses, metrics, norms": {("all-reduce", ())},
        "gradients": {("all-reduce", shape) for shape in used | laid},
    }
    if name == "vqgan":
        counts = state.usage, state.codebook, state.adversary.stats
        shapes = {leaf.shape for leaf in jax.tree.leaves(counts)}
        reasons["counts, BatchNorm"] = {("all-reduce", shape) for shape in shapes}
    if fsdp > 1:
        reasons["parameters, before use"] = {("all-gather", shape) for shape in used}
    if tensor > 1 and name == "prior":
        places = BATCH // (data * fsdp), PLACES
        reasons |= {
            "halves of a block, embeddings": {("all-reduce", (*places, WIDTH))},
            "softmax over a split vocabulary": {("all-reduce", places)},
            "its maximum": {("all-reduce", (*places, 1))},
            "its likeliest token": {("all-gather", (*places, tensor))},
        }
    return reasons


def shape_at_use(path, leaf) -> tuple[int, ...]:
    """Of a parameter on each device when it is used: whole along fsdp, one block's."""
    axes = (
        "tensor" if "tensor" in (over or ()) else None for over in leaf.sharding.spec
    )
    sharding = NamedSharding(leaf.sharding.mesh, PartitionSpec(*axes))
    shape = sharding.shard_shape(leaf.shape)
    return shape[1:] if "blocks" in jax.tree_util.keystr(path) else shape


def learned_from(state):
    """What a step has found out, before any optimizer has divided it by its size."""
    found = {"gradients": gradients(state.opt_state, B1), "usage": state.usage}
    if state.adversary:
        found["adversary"] = gradients(state.adversary.opt_state, B1)
        found["stats"] = state.adversary.stats
    return found


def assert_alike(split, whole, share=2e-5):
    """Within `share` of each array's largest magnitude; zero is anything below 1e-8."""

    def close(path, a, b):
        name, scale = jax.tree_util.keystr(path), np.abs(b).max()
        assert_allclose(a, b, rtol=0, atol=share * scale + 1e-8, err_msg=name)

    jax.tree.map_with_path(close, split, whole)


def shardings(tree):
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def size(tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
