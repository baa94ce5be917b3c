"""`evaluate --neighbours`: its page, its figures, and where there can be none."""

import functools
import json

import pytest
import tiny_run
from PIL import Image

from taming_jax import cli
from taming_jax.metrics import judge
from taming_jax.pictures import GAP, LINE


@pytest.fixture(autouse=True)
def quick_judge(monkeypatch, tmp_path):
    recipe = judge.Recipe(size=16, widths=(8,), features=4, steps=3, batch_size=8)
    quick = functools.partial(judge.judge_of, recipe=recipe)
    monkeypatch.setattr(judge, "judge_of", quick)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tiny_run.write_prior(tiny_run.write_run(tmp_path_factory.mktemp("near")))


def evaluate(*flags):
    return cli.main(["evaluate", *map(str, flags)])


def size_of_page(columns, rows):
    """Of two parts, with pictures of 16 pixels."""
    return (
        columns * (16 + GAP) - GAP,
        sum(LINE + n * (16 + LINE + GAP) - GAP for n in rows) + LINE,
    )


def test_a_page_and_figures_are_left_in_the_run(workdir):
    """Of seven samples and seven held-out pictures: the picture, 2 and 2 neighbours."""
    flags = ["--stage=prior", f"--workdir={workdir}", "--samples=7", "--neighbours=2"]
    assert evaluate(*flags) == 0
    with Image.open(workdir / "prior" / "neighbours.png") as page:
        assert page.size == size_of_page(5, (7, 7))
    figures = json.loads((workdir / "prior" / "evaluation.json").read_text())
    assert figures["neighbours_samples"] == 7
    for space in ("pixels", "features"):
        for of in ("", "_of_held_out"):
            nearest = figures[f"nearest_{space}{of}"]
            assert nearest >= figures[f"closest_{space}{of}"] >= 0
    assert "bits_per_token" in figures


def test_of_a_model_that_is_no_run_the_page_goes_elsewhere(workdir, tmp_path):
    model = tmp_path / "model"
    assert cli.main(["export", f"--workdir={workdir}", f"--output={model}"]) == 0
    flags = ["--stage=prior", f"--model={model}", "--samples=3", "--neighbours=1"]
    before = sorted(model.rglob("*"))
    assert evaluate(*flags, f"--output={tmp_path / 'page'}") == 0
    with Image.open(tmp_path / "page" / "neighbours.png") as page:
        assert page.size == size_of_page(3, (3, 3))
    assert sorted(model.rglob("*")) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--stage=prior", "--neighbours=25"], "25 neighbours, and there are 24"),
        (["--stage=vqgan", "--neighbours=2"], "for samples of a prior, and --stage is"),
        (["--stage=prior", "--output=here"], "--output here is for --neighbours"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(
    workdir, capsys, monkeypatch, flags, message
):
    monkeypatch.setattr(judge, "judge_of", None)
    assert evaluate(*flags, f"--workdir={workdir}") == 2
    assert message in capsys.readouterr().err


def test_nothing_is_written_into_what_model_names(workdir, capsys):
    flags = ["--stage=prior", f"--model={workdir}", "--neighbours=2"]
    assert evaluate(*flags) == 2
    assert "give --output DIR" in capsys.readouterr().err
