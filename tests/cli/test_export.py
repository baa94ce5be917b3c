"""`export`: slim weights that give the same codes and nearly the same pictures."""

import json
import shutil

import jax
import numpy as np
import pytest
import tiny_run

import taming_jax
from taming_jax import cli, ranking, stored
from taming_jax.files import write_json
from taming_jax.training.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run.write_run(tmp_path_factory.mktemp("export") / "run")


@pytest.fixture
def workdir(run, tmp_path):
    """A copy of the run, to be written to."""
    return shutil.copytree(run, tmp_path / "run")


def export(workdir, output, *flags):
    flags = ["--workdir", workdir, "--output", output, *flags]
    return cli.main(["export", *map(str, flags)])


def card(output, stage="vqgan"):
    return json.loads((output / stage / "config.json").read_text())["card"]


def add_prior(workdir, tokenizer=None):
    """A stage that nobody could sample from: what it knows is three numbers."""
    stage_dir = workdir / "prior"
    stage_dir.mkdir(parents=True)
    config = {**tiny_run.CONFIG, "prior": {"tokenizer": tokenizer}}
    write_json(stage_dir / "config.json", {"config": config, "facts": {"codes": 16}})
    best = ranking.BEST_BY["prior"]
    with Checkpoints(stage_dir / "checkpoints", keep=1, best=best) as checkpoints:
        state = {"ema": {"head": np.float32([1, 2, 1 / 3])}, "codebook": {}}
        checkpoints.save(9, state, {"loss": 1.0})


def test_codes_are_the_same_and_pictures_nearly(run, tmp_path):
    assert export(run, tmp_path / "out") == 0
    whole, slim = map(taming_jax.load_vqgan, (run, tmp_path / "out"))
    shape = (8, 16, 16, 3)
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    codes = whole.encode(images)
    # 14 of 32,000 codes changed in a tokenizer trained on `shapes`; here none of 128.
    np.testing.assert_array_equal(slim.encode(images), codes)
    # Eleven bits through nine convolutions; those of unrelated weights differ by 0.5.
    assert np.abs(slim.decode(codes) - whole.decode(codes)).mean() < 2e-3
    assert slim.fingerprint == whole.fingerprint


def test_full_precision_changes_nothing(run, tmp_path):
    export(run, tmp_path / "out", "--dtype", "float32")
    codes = np.random.default_rng(0).integers(0, 16, (2, 4, 4)).astype(np.int32)
    whole, full = map(taming_jax.load_vqgan, (run, tmp_path / "out"))
    np.testing.assert_array_equal(full.decode(codes), whole.decode(codes))


def test_it_takes_a_fraction_of_the_run(run, tmp_path, capsys):
    export(run, tmp_path / "out")
    leaves = jax.tree.leaves(tiny_run.random_params(3))
    size = (tmp_path / "out" / "vqgan" / "weights.npz").stat().st_size
    headers = 500 * len(leaves)  # name, type and shape of an array, its zip's entries
    assert size < 2 * sum(leaf.size for leaf in leaves) + headers
    assert "vqgan: step 3, 0.0" in capsys.readouterr().out


def test_the_prior_comes_along(workdir, tmp_path):
    add_prior(workdir)
    assert export(workdir, tmp_path / "out") == 0
    prior = stored.read(tmp_path / "out", "prior")
    assert (prior.step, prior.record["facts"]) == (9, {"codes": 16})
    expected = np.float16([1, 2, 1 / 3]).astype(np.float32)
    np.testing.assert_array_equal(prior.variables["params"]["head"], expected)
    assert stored.is_there(tmp_path / "out", "vqgan")


def test_a_tokenizer_from_elsewhere_comes_along_and_is_found_beside(run, tmp_path):
    add_prior(tmp_path / "priors", tokenizer=str(run))
    assert export(tmp_path / "priors", tmp_path / "out") == 0
    prior = stored.read(tmp_path / "out", "prior")
    assert prior.config["prior"]["tokenizer"] is None
    fingerprints = (
        stored.read(w, "vqgan").fingerprint for w in (run, tmp_path / "out")
    )
    assert len(set(fingerprints)) == 1


def test_the_card_has_the_command_and_the_version(run, tmp_path):
    export(run, tmp_path / "out")
    assert card(tmp_path / "out") == {
        "command": f"python -m taming_jax export --workdir={run} "
        f"--output={tmp_path / 'out'} --dtype=float16",
        "version": taming_jax.__version__,
    }


def test_the_card_has_the_figures_of_these_weights(workdir, tmp_path):
    figures = {"stage": "vqgan", "step": 3, "psnr": 20.5}
    write_json(workdir / "vqgan" / "evaluation.json", figures)
    export(workdir, tmp_path / "out")
    assert card(tmp_path / "out")["figures"] == figures


def test_figures_of_other_weights_are_left_out(workdir, tmp_path):
    write_json(workdir / "vqgan" / "evaluation.json", {"step": 2, "psnr": 20.5})
    export(workdir, tmp_path / "out")
    assert "figures" not in card(tmp_path / "out")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--dtype", "bfloat16"],
            "dtype is 'bfloat16'; weights are kept as float16 or",
        ),
        (["--workdir", "nowhere"], "no model at 'nowhere': it does not exist"),
        (["--output", "gs://bucket/out"], "out is in a bucket; what is made here goes"),
    ],
)
def test_what_cannot_be_done_leaves_nothing_behind(
    run, tmp_path, capsys, flags, message
):
    assert export(run, tmp_path / "out", *flags) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file.txt").write_text("mine")
    assert export(run, tmp_path / "out") == 2
    assert "nothing is overwritten" in capsys.readouterr().err
