"""`evaluate --stage vqgan`: what it prints and leaves behind."""

import copy
import functools
import json

import numpy as np
import pytest
import tiny_run
import tiny_stage
from PIL import Image

from taming_jax import cli
from taming_jax.interop.perceptual import save_perceptual
from taming_jax.metrics import judge


@pytest.fixture(autouse=True)
def quick_judge(monkeypatch):
    recipe = judge.Recipe(size=16, widths=(8,), features=4, steps=3, batch_size=8)
    quick = functools.partial(judge.judge_of, recipe=recipe)
    monkeypatch.setattr(judge, "judge_of", quick)


@pytest.fixture(autouse=True)
def no_cached_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def workdir(tmp_path):
    return tiny_run.write_run(tmp_path / "run")


def evaluate(workdir, *flags):
    flags = ["--stage", "vqgan", "--workdir", workdir, *flags]
    return cli.main(["evaluate", *map(str, flags)])


def figures(workdir):
    return json.loads((workdir / "vqgan" / "evaluation.json").read_text())


def test_it_leaves_its_figures_in_the_run(workdir):
    assert evaluate(workdir) == 0
    found = figures(workdir)
    assert (found["stage"], found["step"], found["examples"]) == ("vqgan", 3, 11)
    assert found["data"]["split"] == "val"
    assert {"psnr", "ssim", "codebook_usage", "judge_frechet"} < found.keys()


def test_it_prints_what_it_writes(workdir, capsys):
    evaluate(workdir)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    printed = {line[0]: float(line[1]) for line in lines if line[0] in figures(workdir)}
    assert printed["psnr"] == pytest.approx(figures(workdir)["psnr"], rel=1e-3)
    assert printed["examples"] == 11


def test_samples_limits_the_pictures(workdir):
    evaluate(workdir, "--samples", 7)
    assert figures(workdir)["examples"] == 7


def test_more_samples_than_pictures_are_refused(workdir, capsys):
    assert evaluate(workdir, "--samples", 12) == 2
    assert "--samples 12, and 11 pictures are held out" in capsys.readouterr().err
    assert not (workdir / "vqgan" / "evaluation.json").exists()


def test_a_model_that_is_no_run_stays_as_it_is(workdir, tmp_path, capsys):
    cli.main(["export", "--workdir", str(workdir), "--output", str(tmp_path / "model")])
    before = sorted((tmp_path / "model").rglob("*"))
    assert cli.main(["evaluate", "--stage=vqgan", f"--model={tmp_path / 'model'}"]) == 0
    assert sorted((tmp_path / "model").rglob("*")) == before
    assert "judge_accuracy " in capsys.readouterr().out
    judge_card = tmp_path / "cache" / "taming_jax" / "judge" / "judge.json"
    assert json.loads(judge_card.read_text())["held_out_examples"] == 11


def test_batch_size_changes_no_figure(workdir):
    evaluate(workdir, "--batch_size", 4)
    by_four = figures(workdir)
    evaluate(workdir, "--batch_size", 11)
    # Batches of two sizes round differently, which flips a pixel's last bit.
    assert figures(workdir)["psnr"] == pytest.approx(by_four["psnr"], rel=1e-3)


def test_seed_is_the_judges(workdir):
    evaluate(workdir, "--seed", 5)
    card = json.loads((workdir / "judge" / "judge.json").read_text())
    assert card["identity"]["seed"] == 5


def test_the_judge_is_trained_once(workdir):
    evaluate(workdir)
    weights = workdir / "judge" / "weights.npz"
    written = weights.stat().st_mtime_ns
    evaluate(workdir)
    assert weights.stat().st_mtime_ns == written


def test_data_without_classes_have_no_judge(tmp_path, capsys):
    for i in range(4):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    config = copy.deepcopy(tiny_run.CONFIG)
    place = str(tmp_path / "pictures")
    config["data"] = {"name": "folder", "train": place, "val": place, "image_size": 16}
    workdir = tiny_run.write_run(tmp_path / "run", config)
    assert evaluate(workdir) == 0
    assert "no judge" in capsys.readouterr().out
    assert not [name for name in figures(workdir) if name.startswith("judge")]


def test_lpips_is_measured_where_its_weights_are_given(tmp_path):
    save_perceptual(tmp_path / "lpips.npz", tiny_stage.random_perceptual())
    config = copy.deepcopy(tiny_run.CONFIG)
    config["vqgan"]["perceptual_weights"] = str(tmp_path / "lpips.npz")
    workdir = tiny_run.write_run(tmp_path / "run", config)
    evaluate(workdir)
    assert figures(workdir)["lpips"] > 0


def test_without_weights_it_says_why_there_is_no_lpips(workdir, capsys):
    evaluate(workdir)
    assert "no LPIPS: no perceptual weights at" in capsys.readouterr().out
    assert "lpips" not in figures(workdir)
