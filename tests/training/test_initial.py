import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from numpy.testing import assert_array_equal
from tiny_stage import CONFIG, build, random_state

from taming_jax import fingerprint, stored
from taming_jax.training.checkpoints import Checkpoints
from taming_jax.training.initial import start_from


def judged(**changes):
    """The tiny stage, with statistics in its discriminator."""
    form = {"channels": 8, "layers": 1, "norm": "batch"}
    return build(**({"discriminator": form} | changes))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A run's directory, and its state, whose averages differ from its parameters."""
    directory = tmp_path_factory.mktemp("other") / "vqgan"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"config": CONFIG}))
    state = random_state(judged(), step=5)
    adversary = state.adversary
    state = state.replace(
        ema=jax.tree.map(lambda p: p + 1, state.params),
        codebook=jax.tree.map(lambda p: p + 2, state.codebook),
        adversary=adversary.replace(
            params=jax.tree.map(lambda p: p + 3, adversary.params),
            stats=jax.tree.map(lambda p: p + 4, adversary.stats),
        ),
    )
    best = ("psnr", "max")
    with Checkpoints(directory / "checkpoints", keep=1, best=best) as checkpoints:
        checkpoints.save(5, state)
    return str(directory), state


def test_without_a_directory_the_state_is_left_alone():
    state = random_state(judged(), step=0)
    assert start_from(None, state, "vqgan") is state


@pytest.mark.parametrize("part", ["params", "ema"])
def test_weights_are_the_other_runs_averages(other, part):
    directory, theirs = other
    ours = start_from(directory, random_state(judged(), step=0), "vqgan")
    jax.tree.map(assert_array_equal, getattr(ours, part), theirs.ema)


@pytest.mark.parametrize("part", ["params", "stats"])
def test_the_discriminator_comes_along(other, part):
    directory, theirs = other
    ours = start_from(directory, random_state(judged(), step=0), "vqgan")
    jax.tree.map(
        assert_array_equal,
        getattr(ours.adversary, part),
        getattr(theirs.adversary, part),
    )


def test_what_the_quantizer_has_counted_comes_along(other):
    directory, theirs = other
    ours = start_from(directory, random_state(judged(), step=0), "vqgan")
    jax.tree.map(assert_array_equal, ours.codebook, theirs.codebook)


def test_all_else_is_a_new_runs(other):
    new = random_state(judged(), step=0)
    ours = start_from(other[0], new, "vqgan")
    adversary = new.adversary.replace(opt_state=ours.adversary.opt_state)
    old = ours.replace(
        params=new.params, ema=new.ema, codebook=new.codebook, adversary=adversary
    )
    jax.tree.map(assert_array_equal, old, new)


def test_a_discriminator_of_another_form_stays_behind(other, capsys):
    new = random_state(judged(discriminator={"channels": 4, "layers": 1}), step=0)
    ours = start_from(other[0], new, "vqgan")
    jax.tree.map(assert_array_equal, ours.adversary, new.adversary)
    assert "has another one: a new one begins to learn" in capsys.readouterr().out


def test_a_model_that_was_exported_brings_no_discriminator(other, tmp_path, capsys):
    model = stored.read(other[0], "vqgan")
    stored.write(tmp_path / "vqgan", model, dtype="float32", card={})
    new = random_state(judged(), step=0)
    ours = start_from(str(tmp_path), new, "vqgan")
    jax.tree.map(assert_array_equal, ours.adversary, new.adversary)
    assert "brings no discriminator" in capsys.readouterr().out


def test_a_discriminator_that_was_kept_beside_the_weights_comes_along(other, tmp_path):
    directory, theirs = other
    model = stored.read(directory, "vqgan")
    stored.write(tmp_path / "vqgan", model, dtype="float32", card={})
    kept = {"params": theirs.adversary.params, **theirs.adversary.stats}
    np.savez(tmp_path / "vqgan" / "discriminator.npz", **flatten_dict(kept, sep="/"))
    ours = start_from(str(tmp_path), random_state(judged(), step=0), "vqgan")
    jax.tree.map(assert_array_equal, ours.adversary.params, theirs.adversary.params)


REMEMBERS = {"lecam_weight": 0.1, "r1_weight": 1.0}
REMEMBERS |= {"discriminator": {"channels": 8, "layers": 1, "norm": "act"}}


def test_a_discriminator_without_memory_comes_along_to_begin_one(tmp_path):
    """And one that has a memory leaves it behind."""
    for there, here in (({}, REMEMBERS), (REMEMBERS, {})):
        form = {"discriminator": REMEMBERS["discriminator"]}
        theirs = random_state(judged(**form | there), step=5)
        directory = tmp_path / f"remembers_{len(there)}" / "vqgan"
        directory.mkdir(parents=True)
        (directory / "config.json").write_text(json.dumps({"config": CONFIG}))
        stats = jax.tree.map(jnp.ones_like, theirs.adversary.stats)
        theirs = theirs.replace(adversary=theirs.adversary.replace(stats=stats))
        best = ("psnr", "max")
        with Checkpoints(directory / "checkpoints", keep=1, best=best) as checkpoints:
            checkpoints.save(5, theirs)
        new = random_state(judged(**form | here), step=0)
        ours = start_from(str(directory), new, "vqgan").adversary
        jax.tree.map(assert_array_equal, ours.params, theirs.adversary.params)
        expected = new.adversary.stats | {"batch_stats": stats["batch_stats"]}
        jax.tree.map(assert_array_equal, ours.stats, expected)


def test_averages_and_parameters_share_no_memory(other):
    """Else the step could not take both over."""
    ours = start_from(other[0], random_state(judged(), step=0), "vqgan")
    take = jax.jit(lambda s: jax.tree.map(jnp.negative, s), donate_argnums=0)
    assert jax.tree.leaves(take((ours.params, ours.ema)))


def test_another_model_is_refused(other):
    new = random_state(judged(model={"quantizer": {"codebook_size": 8, "dim": 4}}))
    named = r"another model: 1 parameters differ, first quantizer/embedding: \(16, 4\)"
    with pytest.raises(ValueError, match=named):
        start_from(other[0], new, "vqgan")


@pytest.mark.parametrize(
    ("quantizer", "named"),
    [
        ({"name": "ema", "codebook_size": 16, "dim": 4}, "ema of 16 codes, dim 4"),
        ({"name": "fsq", "levels": [4, 4]}, "fsq of 16 codes, dim 2, levels 4, 4"),
        ({"codebook_size": 16, "dim": 4, "normalize": True}, "l2 of 16 codes, dim 4"),
    ],
)
def test_a_model_with_another_quantizer_is_refused(other, quantizer, named):
    """Even one whose parameters are the same."""
    state = random_state(judged(model={"quantizer": quantizer}), step=0)
    settings = CONFIG["vqgan"]["model"] | {"quantizer": quantizer}
    message = f"another quantizer: vq of 16 codes, dim 4, and here it is {named}; set"
    with pytest.raises(ValueError, match=message):
        start_from(other[0], state, "vqgan", settings)


@pytest.fixture(scope="module")
def fixed_basis(tmp_path_factory):
    """A run with a quantizer that has a constant; its directory, state, settings."""
    changes = {"model": {"quantizer": {"name": "simvq", "codebook_size": 16, "dim": 4}}}
    section = CONFIG["vqgan"] | {"model": CONFIG["vqgan"]["model"] | changes["model"]}
    directory = tmp_path_factory.mktemp("simvq") / "vqgan"
    directory.mkdir()
    record = {"config": CONFIG | {"vqgan": section}}
    (directory / "config.json").write_text(json.dumps(record))
    state = random_state(judged(**changes), step=5)
    with Checkpoints(directory / "checkpoints", keep=1, best=("psnr", "max")) as saved:
        saved.save(5, state)
    return str(directory), state, changes


def test_a_constant_of_the_quantizer_comes_along(fixed_basis):
    directory, theirs, changes = fixed_basis
    new = random_state(judged(**changes), step=0)
    new = new.replace(codebook=jax.tree.map(lambda p: p + 1, new.codebook))
    ours = start_from(directory, new, "vqgan")
    jax.tree.map(assert_array_equal, ours.codebook, theirs.codebook)


def test_an_export_keeps_the_constant_and_the_fingerprint(fixed_basis, tmp_path):
    model = stored.read(fixed_basis[0], "vqgan")
    stored.write(tmp_path / "vqgan", model, dtype="float16", card={})
    exported = stored.read(tmp_path, "vqgan")
    basis = exported.variables["codebook"]["quantizer"]["basis"]
    assert_array_equal(basis, fixed_basis[1].codebook["quantizer"]["basis"])
    assert exported.fingerprint == model.fingerprint


def test_another_constant_makes_other_codes(fixed_basis):
    model = stored.read(fixed_basis[0], "vqgan")
    moved = jax.tree.map(lambda p: p + 1, model.variables["codebook"])
    variables = {**model.variables, "codebook": moved}
    other = fingerprint.of_codes(model.config["vqgan"], variables)
    assert other != model.fingerprint


def test_without_its_constant_a_quantizer_is_refused(fixed_basis, tmp_path):
    directory, _, changes = fixed_basis
    model = stored.read(directory, "vqgan")
    variables = {**model.variables, "codebook": {}}
    model = dataclasses.replace(model, variables=variables)
    stored.write(tmp_path / "vqgan", model, dtype="float32", card={})
    new = random_state(judged(**changes), step=0)
    with pytest.raises(ValueError, match=r"not all that its quantizer .* basis: give"):
        start_from(str(tmp_path), new, "vqgan")


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no model at .*W or W/vqgan"):
        start_from(str(tmp_path), random_state(judged()), "vqgan")
