"""The demo, on models too small to be good: every phase, what it leaves, going on."""

import functools
import json

import pytest
import tiny_run

from taming_jax import cli
from taming_jax.metrics import judge

FEW = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "eval_examples": 4}
CARD = {
    **tiny_run.CONFIG,
    "vqgan": {
        **FEW,
        "model": tiny_run.MODEL,
        "perceptual_weight": 0.0,
        "adversarial_weight": 0.0,
    },
    "prior": {**tiny_run.PRIOR, **FEW},
    "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Twice in one directory: the second time everything is there already."""
    place = tmp_path_factory.mktemp("demo")
    (place / "tiny.py").write_text(
        "from ml_collections import ConfigDict\n\n\n"
        f"def get_config():\n    return ConfigDict({CARD!r})\n"
    )
    flags = ["--config", place / "tiny.py", "--workdir", place / "run", "--samples", 12]
    recipe = judge.Recipe(size=16, widths=(8,), features=4, steps=3, batch_size=8)
    quick = functools.partial(judge.judge_of, recipe=recipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "judge_of", quick)
        assert cli.main(["demo", *map(str, flags)]) == 0
        first = json.loads((place / "run" / "summary.json").read_text())
        assert cli.main(["demo", *map(str, flags)]) == 0
    return place / "run", first


def test_the_summary_has_what_the_demo_is_judged_by(run):
    run, _ = run
    summary = json.loads((run / "summary.json").read_text())
    figures = ["psnr", "codebook_usage", "label_accuracy", "judge_accuracy", "seconds"]
    assert all(summary[name] >= 0 for name in figures)
    assert summary["samples"] == 12


def test_the_figures_are_those_of_the_evaluations(run):
    run, _ = run
    summary = json.loads((run / "summary.json").read_text())
    vqgan, prior = (
        json.loads((run / stage / "evaluation.json").read_text())
        for stage in ("vqgan", "prior")
    )
    assert summary["psnr"] == vqgan["psnr"]
    assert summary["label_accuracy"] == prior["label_accuracy"]


def test_going_on_with_what_is_done_changes_no_figure(run):
    run, first = run
    again = json.loads((run / "summary.json").read_text())
    assert again["label_accuracy"] == first["label_accuracy"]
    assert again["seconds_by_phase"]["train_vqgan"] == pytest.approx(
        first["seconds_by_phase"]["train_vqgan"]
    )


def test_every_class_has_its_pictures(run):
    run, _ = run
    assert (run / "samples" / "grid.png").exists()
    assert len(list((run / "samples").glob("0*.png"))) == 80
