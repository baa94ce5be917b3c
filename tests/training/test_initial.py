import json

import jax
import jax.numpy as jnp
import pytest
from numpy.testing import assert_array_equal
from tiny_stage import CONFIG, build, random_state

from taming_jax.training.checkpoints import Checkpoints
from taming_jax.training.initial import start_from


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A run's directory, and its state, whose averages differ from its parameters."""
    directory = tmp_path_factory.mktemp("other") / "vqgan"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"config": CONFIG}))
    state = random_state(build(), step=5)
    state = state.replace(ema=jax.tree.map(lambda p: p + 1, state.params))
    best = ("psnr", "max")
    with Checkpoints(directory / "checkpoints", keep=1, best=best) as checkpoints:
        checkpoints.save(5, state)
    return str(directory), state


def test_without_a_directory_the_state_is_left_alone():
    state = random_state(build(), step=0)
    assert start_from(None, state, "vqgan") is state


@pytest.mark.parametrize("part", ["params", "ema"])
def test_weights_are_the_other_runs_averages(other, part):
    directory, theirs = other
    ours = start_from(directory, random_state(build(), step=0), "vqgan")
    jax.tree.map(assert_array_equal, getattr(ours, part), theirs.ema)


def test_all_else_is_a_new_runs(other):
    new = random_state(build(), step=0)
    ours = start_from(other[0], new, "vqgan")
    old = ours.replace(params=new.params, ema=new.ema)
    jax.tree.map(assert_array_equal, old, new)


def test_averages_and_parameters_share_no_memory(other):
    """Else the step could not take both over."""
    ours = start_from(other[0], random_state(build(), step=0), "vqgan")
    take = jax.jit(lambda s: jax.tree.map(jnp.negative, s), donate_argnums=0)
    assert jax.tree.leaves(take((ours.params, ours.ema)))


def test_another_model_is_refused(other):
    new = random_state(build(model={"quantizer": {"codebook_size": 8, "dim": 4}}))
    named = r"another model: 1 parameters differ, first quantizer/embedding: \(16, 4\)"
    with pytest.raises(ValueError, match=named):
        start_from(other[0], new, "vqgan")


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no model at .*W or W/vqgan"):
        start_from(str(tmp_path), random_state(build()), "vqgan")
