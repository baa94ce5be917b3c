"""Quantizers without a table, or with a constant, through all that a tokenizer does."""

import json

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tiny_stage import CONFIG, FROZEN, IMAGE_SIZE, build, pictures, stepping

import taming_jax
from taming_jax import stored
from taming_jax.training.checkpoints import Checkpoints
from taming_jax.training.vqgan import make_init

QUANTIZERS = {
    "fsq": {"levels": [4, 4]},
    "simvq": {"codebook_size": 16, "dim": 4, "start_step": 1, "perturb_probability": 1},
}


@pytest.fixture(scope="module", params=QUANTIZERS)
def changes(request):
    quantizer = {"name": request.param, **QUANTIZERS[request.param]}
    return {"model": {"quantizer": quantizer}, "adversarial_weight": 0.0}


@pytest.fixture(scope="module")
def states(changes):
    """The first state, and those after the steps 0 and 1."""
    first = jax.jit(make_init(*build(**changes)))(jax.random.key(0))
    states = [first]
    for n in range(2):
        state, metrics = stepping(**changes)(states[-1], {"image": pictures(4, seed=n)})
        assert metrics["nonfinite_term"] == -1
        states.append(state)
    return states


@pytest.fixture(scope="module")
def run(changes, states, tmp_path_factory):
    """The directory of a run with the state after step 1."""
    directory = tmp_path_factory.mktemp("run") / "vqgan"
    directory.mkdir()
    section = CONFIG["vqgan"] | changes
    section["model"] = CONFIG["vqgan"]["model"] | changes["model"]
    record = {"config": CONFIG | {"vqgan": section}}
    (directory / "config.json").write_text(json.dumps(record))
    with Checkpoints(directory / "checkpoints", keep=1, best=("psnr", "max")) as kept:
        kept.save(2, states[2])
    return directory.parent


def test_the_encoder_learns_and_codes_are_counted(states):
    before, after = (np.asarray(s.params["quant_conv"]["kernel"]) for s in states[:2])
    assert (before != after).any()
    drawn = 2 * 4 * (IMAGE_SIZE // 2) ** 2
    assert states[2].codebook["quantizer"]["usage"].sum() == drawn
    assert states[2].usage.filling.sum() + states[2].usage.filled.sum() == drawn


def test_once_codes_are_frozen_nothing_of_them_moves(changes, states):
    state = states[2].replace(step=states[2].step * 0 + FROZEN)
    after, _ = stepping(**changes)(state, {"image": pictures(4)})
    for part in {"encoder", "quant_conv", "quantizer"} & state.params.keys():
        jax.tree.map(assert_array_equal, after.params[part], state.params[part])


def test_a_run_that_was_kept_goes_on_with_the_same_numbers(changes, states, run):
    best = ("psnr", "max")
    with Checkpoints(run / "vqgan" / "checkpoints", keep=1, best=best) as kept:
        _, restored = kept.restore(states[2])
    step, batch = stepping(**changes), {"image": pictures(4, seed=2)}
    ours, theirs = step(restored, batch), step(states[2], batch)
    jax.tree.map(assert_array_equal, ours, theirs)


def test_a_run_loads_with_the_codes_that_it_trained(changes, states, run):
    vqgan = taming_jax.load_vqgan(run)
    images = pictures(2, seed=5)
    variables = {"params": states[2].ema, "codebook": states[2].codebook}
    model = build(**changes).model
    expected = model.apply(variables, images, train=False)[1].codes
    assert_array_equal(vqgan.encode(np.asarray(images)), expected)
    assert vqgan.codebook_size == 16
    decoded = model.apply(variables, expected, method="decode")
    # One of them is compiled.
    clipped = np.clip(decoded, -1, 1)
    assert_allclose(vqgan.decode(np.asarray(expected)), clipped, rtol=0, atol=1e-5)


def test_an_export_has_the_fingerprint_of_its_run(run, tmp_path):
    model = stored.read(run, "vqgan")
    stored.write(tmp_path / "vqgan", model, dtype="float16", card={})
    assert stored.read(tmp_path, "vqgan").fingerprint == model.fingerprint
