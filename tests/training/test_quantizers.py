"""Quantizers with no table, a constant or means, through all a tokenizer does."""

import json

import jax
import numpy as np
import on_mesh
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tiny_stage import CONFIG, FROZEN, IMAGE_SIZE, build, pictures, stepping

import taming_jax
from taming_jax import stored
from taming_jax.training.checkpoints import Checkpoints
from taming_jax.training.vqgan import make_init

# EMA as the cards have it: filled after step 0, revived after step 1, then at rest.
QUANTIZERS = {
    "ema": {
        "codebook_size": 16, "dim": 4, "start_step": 1, "blend_steps": 2,
        "revive_every": 1, "revive_until": 2,
    },
    "fsq": {"levels": [4, 4]},
    "simvq": {"codebook_size": 16, "dim": 4, "start_step": 1, "perturb_probability": 1},
}  # fmt: skip


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
    assert states[2].usage.filling.sum() + states[2].usage.filled.sum() == drawn
    is_reset = "sizes" in states[2].codebook["quantizer"]  # ema's, by its revival
    counted = states[2].codebook["quantizer"]["usage"].sum()
    assert counted == (0 if is_reset else drawn)


only_ema = pytest.mark.parametrize("changes", ["ema"], indirect=True, scope="module")


def table_of(state):
    """EMA's table, sizes and sums in double precision."""
    kept = state.codebook["quantizer"]
    table = state.params["quantizer"]["embedding"]
    return (np.asarray(x, np.float64) for x in (table, kept["sizes"], kept["sums"]))


def looked_up(changes, state, n):
    """Latents [N,D] of step n's batch, and which row each is nearest to, [N]."""
    variables = {"params": state.params, "codebook": state.codebook}
    model = build(**changes).model
    z = model.apply(variables, pictures(4, seed=n), method="encode").latents
    z = np.asarray(z, np.float64).reshape(-1, z.shape[-1])
    table, _, _ = table_of(state)
    return z, np.square(z[:, None] - table).sum(-1).argmin(1)


def lie_on(rows, latents):
    """Which rows are latents, but for what two programs round: bool [...]."""
    return (np.abs(rows[:, None] - latents).max(-1) < 1e-5).any(1)


@only_ema
def test_the_step_before_quantization_fills_the_table_with_latents(changes, states):
    table, sizes, sums = table_of(states[1])
    assert lie_on(table, looked_up(changes, states[0], 0)[0]).all()
    assert len(np.unique(table, axis=0)) == len(table)
    assert_array_equal(sizes, 1)
    assert_array_equal(sums, table)


@only_ema
def test_codes_are_means_of_their_latents_and_idle_ones_are_revived(changes, states):
    _, sizes, sums = table_of(states[1])
    latents, codes = looked_up(changes, states[1], 1)
    one_hot = np.eye(len(sizes))[codes]
    sizes = 0.99 * sizes + 0.01 * one_hot.sum(0)
    sums = 0.99 * sums + 0.01 * one_hot.T @ latents
    idle = one_hot.sum(0) == 0
    assert 0 < idle.sum() < len(idle)
    table, new_sizes, new_sums = table_of(states[2])
    # But for the smoothing, 1e-5 of a count.
    assert_allclose(table[~idle], (sums / sizes[:, None])[~idle], rtol=1e-3, atol=1e-5)
    assert_allclose(new_sizes[~idle], sizes[~idle], rtol=1e-6)
    assert lie_on(table[idle], latents).all()
    assert_array_equal(new_sizes[idle], 1)
    assert_array_equal(new_sums[idle], table[idle])


@only_ema
def test_after_the_last_revival_idle_codes_rest(changes, states):
    _, codes = looked_up(changes, states[2], 2)
    _, sizes, _ = table_of(states[2])
    after, _ = stepping(**changes)(states[2], {"image": pictures(4, seed=2)})
    idle = np.bincount(codes, minlength=len(sizes)) == 0
    assert idle.any()
    assert_allclose(list(table_of(after))[1][idle], 0.99 * sizes[idle], rtol=1e-6)


@pytest.mark.devices(8)
def test_means_on_a_mesh_and_of_parts_of_a_batch_are_those_of_one_device():
    whole, split = (
        on_mesh.run("vqgan", on_mesh.ONE, 1, "means"),
        on_mesh.run("vqgan", (2, 2, 2), 2, "means"),
    )
    for ours, theirs in zip(*map(table_of, (split.after, whole.after)), strict=True):
        # Sums of hundreds of float32 in another order.
        assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    revived = list(table_of(whole.after))[1] == 1
    assert revived.any()


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
