"""`tokenize` for conditions without a tokenizer: what they read lies beside codes."""

import json
import re

import pytest
import tiny_run
from numpy.testing import assert_allclose
from tiny_conditions import config, train, write_card

from taming_jax import cli
from taming_jax.training.checkpoints import Checkpoints

WITHOUT_TOKENIZERS = [
    {"name": "boxes", "vocabulary": 64},
    {"name": "keypoints", "sections": 4},
    {"name": "low_resolution", "side": 4, "levels": 3},
    {"name": "coordinates", "steps": 8},
]


def test_what_is_told_without_a_tokenizer_lies_beside_codes_and_teaches_the_same(
    tmp_path,
):
    """The same losses, with objects in the same random order."""
    losses = []
    for name in ("with", "without"):
        run = tiny_run.write_run(tmp_path / name, config(WITHOUT_TOKENIZERS))
        if name == "with":
            assert cli.main(["tokenize", "--workdir", str(run)]) == 0
        train(run, WITHOUT_TOKENIZERS)
        line = (run / "prior" / "metrics.jsonl").read_text().splitlines()[-1]
        losses.append([json.loads(line)[key] for key in ("loss", "val_loss")])
    assert_allclose(*losses, rtol=1e-5)


def test_codes_that_lack_what_is_told_are_refused(tmp_path, capsys):
    run = tiny_run.write_run(tmp_path / "run", config(WITHOUT_TOKENIZERS))
    assert cli.main(["tokenize", "--workdir", str(run)]) == 0
    told = {"name": "low_resolution", "side": 4, "levels": 4}
    with pytest.raises(SystemExit):
        train(run, told)
    assert "without low_resolution_tokens as prior" in capsys.readouterr().err


def test_pictures_that_are_made_worse_anew_are_not_for_codes_on_disk(tmp_path, capsys):
    told = {"name": "low_resolution", "side": 4, "levels": 4, "degraded": True}
    run = tiny_run.write_run(tmp_path / "run", config(told))
    assert cli.main(["tokenize", "--workdir", str(run)]) != 0
    assert re.search("degraded=True .* encode them on the way", capsys.readouterr().err)
    assert not (run / "codes").exists()


# Maps, and a card that is not the tokenizer's


def write_maps_run(workdir):
    """W/condition_vqgan, for class maps of scenes: 4 x 4 pixels to a code."""
    stage = workdir / "condition_vqgan"
    stage.mkdir(parents=True)
    record = {"config": config("segmentation"), "facts": {}}
    (stage / "config.json").write_text(json.dumps(record))
    params = tiny_run.random_params(3, tiny_run.maps_model(11))
    with Checkpoints(stage / "checkpoints", keep=1, best=("mean_iou", "max")) as kept:
        kept.save(3, {"ema": params, "codebook": {}}, {"mean_iou": 0.5})
        kept.wait()
    return workdir


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"name": "segmentation", "side": 6}, "of 6 pixels a side, and its tokenizer"),
        ("depth", "'depth', and the condition's tokenizer is for segmentation: set"),
    ],
)
def test_maps_that_training_would_refuse_are_refused_before_they_are_encoded(
    tmp_path, capsys, told, message
):
    run = write_maps_run(tiny_run.write_run(tmp_path / "run", config(told)))
    assert cli.main(["tokenize", "--workdir", str(run)]) == 2
    assert message in capsys.readouterr().err
    assert not (run / "codes").exists()


def test_a_card_names_tokenizers_elsewhere_and_what_is_told(tmp_path):
    """The tokenizers were trained without a thought of it, and lie in other runs."""
    images = tiny_run.write_run(tmp_path / "images", config("none"))
    maps = write_maps_run(tmp_path / "maps")
    own = tmp_path / "own"
    places = {"tokenizer": str(images), "condition_tokenizer": str(maps)}
    told = [{"name": "segmentation", "side": 8}, {"name": "boxes", "vocabulary": 64}]
    card = write_card(tmp_path / "card.py", told, tokenizer="", condition_tokenizer="")
    flags = [f"--config.prior.{key}={place}" for key, place in places.items()]
    flags = ["--workdir", str(own), "--config", str(card), "--", *flags]
    assert cli.main(["tokenize", *flags]) == 0
    about = json.loads((own / "codes" / "codes.json").read_text())["condition"]
    assert (about["kind"], about["side"], about["grid"]) == ("segmentation", 8, [2, 2])
    losses = []
    for workdir in (own, tmp_path / "without"):
        workdir.mkdir(exist_ok=True)
        train(workdir, told, **places)
        line = (workdir / "prior" / "metrics.jsonl").read_text().splitlines()[-1]
        losses.append([json.loads(line)[key] for key in ("loss", "val_loss")])
    assert_allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], r"if its tokenizer is elsewhere, give --config CARD, and --config\.prior"),
        (["--", "--config.prior.condition=none"], "changes a card, and none is named"),
        (["--config", "configs/nothing.py"], "configs/nothing.py does not exist"),
    ],
)
def test_a_run_without_a_tokenizer_needs_a_card(tmp_path, capsys, flags, message):
    assert cli.main(["tokenize", "--workdir", str(tmp_path / "run"), *flags]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()
