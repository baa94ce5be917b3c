"""The comparison of priors: what is equal, what is not run again, what is printed."""

import sys

import jax
import numpy as np
import pytest

from benchmarks import prior_trial, priors
from benchmarks.coded_prior import ROWS, Coded
from benchmarks.prior_variants import (
    MODERN,
    PARAMETERS,
    VARIANTS,
    WITHOUT,
    changed,
    parts,
    section,
    size,
)
from configs import shapes
from taming_jax.metrics.frechet import fit_gaussian
from taming_jax.training.sections import plain

CODES, CLASSES = 512, 10


@pytest.mark.parametrize(
    "variant", ["paper", "modern", "biases", "no-above", "no-learned-positions"]
)
def test_every_variant_has_as_many_parameters_steps_and_pictures(variant):
    settings = section(variant, 600, CODES, CLASSES)
    assert size(settings, CODES, CLASSES) == pytest.approx(PARAMETERS, rel=0.001)
    assert (settings["steps"], settings["batch_size"]) == (600, 16)
    assert settings["model"]["layers"] == MODERN["model"]["layers"]


def test_the_modern_one_is_the_card_of_shapes():
    card = plain(shapes.get_config())["prior"]
    ours = {k: v for k, v in MODERN["model"].items() if k != "mlp_width"}
    assert ours | {"width": 160} == card["model"]
    same = ("learning_rate", "optimizer", "ema_decay", "label_dropout", "batch_size")
    assert {k: MODERN[k] for k in same} == {k: card[k] for k in same}
    assert MODERN["sampling"].items() <= card["sampling"].items()


def test_the_paper_s_is_its_card_made_small():
    from configs import imagenet

    card = plain(imagenet.get_config())["prior"]
    _, _, model = parts(section("paper", 600, CODES, CLASSES), CODES, CLASSES)
    _, _, theirs = parts(
        {**card, "model": card["model"] | {"dtype": "float32"}}, 1_024, 1_000
    )
    for field in ("norm", "mlp", "bias", "qk_norm", "rotary", "learned_positions",
                  "condition_everywhere", "above", "dropout"):  # fmt: skip
        assert getattr(model, field) == getattr(theirs, field), field
    assert VARIANTS["paper"]["optimizer"] == card["optimizer"]
    assert VARIANTS["paper"]["shared_vocabulary"] == card["shared_vocabulary"]


def test_each_variant_without_a_part_differs_from_the_modern_one_and_all_others():
    sections = [section(name, 600, CODES, CLASSES) for name in ("modern", *WITHOUT)]
    assert all(sections.count(each) == 1 for each in sections)


def test_an_unknown_variant_is_named():
    with pytest.raises(ValueError, match="no variant 'papre': choose among paper"):
        section("papre", 600, CODES, CLASSES)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run the script with flags, on trials that do nothing; -> the seeds it ran."""
    ran = []

    def run(section, coded, seed):
        ran.append(seed)
        figures = dict.fromkeys((f for f, _ in priors.COLUMNS.values()), 1.0 + seed)
        worse = 0.25 * (section["model"]["mlp"] == "gelu")
        return figures | {"seconds": 2.0, "bits_per_token": 3.0 + worse}

    monkeypatch.setattr(prior_trial, "run", run)
    monkeypatch.setattr(prior_trial, "open_coded", lambda name: name)
    monkeypatch.setattr(priors, "keep_programs", lambda: None)

    def command(*flags):
        ran.clear()
        results = str(tmp_path / "results" / "lines.jsonl")
        flags = ["--results", results, "--variants", "modern,no-squared-relu", *flags]
        monkeypatch.setattr(sys, "argv", ["", *flags])
        priors.main()
        return list(ran)

    return command


def test_what_has_a_line_is_not_run_again(command):
    assert command("--seeds", "0,2") == [0, 2] * 2
    assert command("--seeds", "0,1,2") == [1] * 2
    assert command("--seeds", "0,1,2") == []
    assert command("--seeds", "0", "--steps", "500") == [0] * 2
    assert command("--seeds", "0", "--data", "scenes") == [0] * 2


def test_the_tables_have_the_ends_and_what_each_part_changes(command, capsys):
    command("--seeds", "0,1")
    capsys.readouterr()
    assert command("--seeds", "0,1", "--table") == []
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "**shapes, 600 steps**"
    assert lines[4].startswith("| modern | 3.000 ± 0.000 | 1.5 ± 0.5 |")
    assert lines[6] == "**shapes, 600 steps: difference to modern**"
    assert lines[10].startswith("| no-squared-relu | **+0.250 ± 0.000** | +0.0 ± 0.0")


class Tokenizer:
    """Codes stand for grey squares."""

    codebook_size = 16

    def decode(self, codes):
        grey = np.asarray(codes, np.float32)[..., None] / 8 - 1
        return np.broadcast_to(grey, (*codes.shape, 3))


class Judge:
    """Sees the mean of two halves."""

    card = {"classes": ["dark", "light"]}  # noqa: RUF012

    def __call__(self, pictures):
        means = pictures.reshape(len(pictures), 2, -1).mean(2)
        return means, (means[:, 0] > 127).astype(np.int32)


def test_a_trial_learns_what_codes_a_label_has(monkeypatch):
    """Dark pictures have codes below 8, light ones above: one bit less than all."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(2, dtype=np.int32), ROWS)
    codes = rng.integers(0, 8, (2 * ROWS, 8, 8)).astype(np.int32)
    codes += 8 * labels[:, None, None]
    half = Coded(codes[:ROWS], labels[:ROWS])
    shown = np.zeros((ROWS, 8, 8, 3), np.uint8)
    judge = Judge()
    pictures = prior_trial.Pictures(
        shown, shown, {"val": labels[:ROWS]}, judge,
        fit_gaussian(rng.normal(size=(ROWS, 2))),
    )  # fmt: skip
    coded = prior_trial.CodedPictures(Coded(codes, labels), half, pictures, Tokenizer())
    tiny = {"model.width": 20, "model.mlp_width": 40, "model.layers": 1}
    tiny |= {"learning_rate": 0.02, "optimizer.warmup_steps": 0, "steps": 40}
    tiny |= {"label_dropout": 0.0, "sampling": {"guidance": 1.0}}
    figures = prior_trial.run(changed(MODERN, tiny), coded, seed=0)
    assert 2.9 < figures["bits_per_token"] < 3.5  # 3 is all there is to know
    assert figures["accuracy"] > 0.9
    assert {name for name, _ in priors.COLUMNS.values()} <= figures.keys()
    assert jax.numpy.isfinite(figures["plain_frechet"])
