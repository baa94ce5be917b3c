"""One's own pictures and maps, in two folders: every command, from card to samples."""

import functools
import json
import re
import shutil

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from taming_jax import cli, data, load_prior
from taming_jax.cli.train import main
from taming_jax.data import scenes
from taming_jax.maps import write_class_map
from taming_jax.metrics import reader

CARD = "configs/custom.py:small_segmentation"
HALF = {"channels": 4, "latent_channels": 4, "blocks": 0}
SHORT = {"steps": 2, "batch_size": 4, "log_every": 2, "image_every": 2,
         "eval_every": 2, "checkpoint_every": 2}  # fmt: skip
PRIOR = {"width": 16, "layers": 1, "heads": 2, "dropout": 0.0}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve scenes as PNGs, and their class maps under the same names elsewhere."""
    root = tmp_path_factory.mktemp("own")
    drawn = scenes.render(0, np.arange(12), 32, ("image", "segmentation"))
    for split, rows in (("train", range(8)), ("val", range(8, 12))):
        for kind in ("photos", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in rows:
            picture = Image.fromarray(drawn["image"][i])
            picture.save(root / "photos" / split / f"{i}.png")
            write_class_map(root / "labels" / split / f"{i}.png",
                            drawn["segmentation"][i])  # fmt: skip
    return root


def flags(root, workdir, **changes):
    """The card of the documents, shrunk."""
    values = {
        "data.train": root / "photos/train",
        "data.val": root / "photos/val",
        "data.train_maps.segmentation": root / "labels/train",
        "data.val_maps.segmentation": root / "labels/val",
        "data.image_size": 16,
        "condition_vqgan.model.encoder.image_channels": 11,
        "vqgan.adversarial_weight": 0.0,
        "vqgan.decoder_only_start": 2,
    }
    for stage in ("vqgan", "condition_vqgan"):
        for half in ("encoder", "decoder"):
            values |= {f"{stage}.model.{half}.{k}": v for k, v in HALF.items()}
        values[f"{stage}.model.quantizer.codebook_size"] = 16
        values |= {f"{stage}.{key}": value for key, value in SHORT.items()}
    values |= {f"prior.{key}": value for key, value in SHORT.items()}
    values |= {f"prior.model.{key}": value for key, value in PRIOR.items()}
    values = {k: v for k, v in (values | changes).items() if v is not None}
    return [f"--config={CARD}", f"--workdir={workdir}"] + [
        f"--config.{key}={value}" for key, value in values.items()
    ]


def train_tokenizer(stage, *arguments):
    main(["train_vqgan.py", f"--stage={stage}", *arguments], ["vqgan", stage])


def train_prior(*arguments):
    main(["train_prior.py", *arguments], ["prior"])


@pytest.fixture(scope="module")
def tokenizers(photos, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    for stage in ("vqgan", "condition_vqgan"):
        train_tokenizer(stage, *flags(photos, workdir))
    return workdir


@pytest.fixture(scope="module")
def finished(photos, tokenizers):
    train_prior(*flags(photos, tokenizers))
    return tokenizers


def held_out(photos):
    paths = [photos / "labels/val" / f"{i}.png" for i in range(8, 12)]
    return np.stack([data.read_square(path, 16, "segmentation") for path in paths])


def test_the_prior_is_told_the_codes_of_maps_that_lie_beside_the_pictures(
    finished, photos
):
    prior = load_prior(finished)
    maps = held_out(photos)
    tokens = prior.vocabulary.asked_tokens({"segmentation": maps})
    codes = prior.condition_vqgan.encode(maps)
    assert_array_equal(tokens, 16 + codes.reshape(4, -1))
    record = json.loads((finished / "prior" / "config.json").read_text())
    assert set(record["data"]["train"]["maps"]) == {"segmentation"}


def test_what_is_on_disk_teaches_what_is_encoded_on_the_way(finished, photos, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "prior")
    assert cli.main(["tokenize", "--workdir", str(run), "--flips"]) == 0
    train_prior(*flags(photos, run))
    (there, here) = (
        json.loads((w / "prior/metrics.jsonl").read_text().splitlines()[-1])
        for w in (run, finished)
    )
    for name in ("loss", "val_loss"):  # square pictures, of which crops are all
        assert there[name] == pytest.approx(here[name], rel=1e-4)


def test_evaluate_and_sample_ask_for_maps_of_the_folder(
    finished, photos, tmp_path, monkeypatch
):
    few = reader.Recipe(widths=(8, 8, 8), steps=3, batch_size=8)
    quick = functools.partial(reader.reader_of, recipe=few)
    monkeypatch.setattr(reader, "reader_of", quick)
    verb = ["evaluate", "--workdir", str(finished), "--stage", "prior"]
    assert cli.main([*verb, "--samples", "4", "--batch_size", "4"]) == 0
    figures = json.loads((finished / "prior" / "evaluation.json").read_text())
    assert figures["examples"] == 4
    assert {"iou", "iou_of_originals", "iou_of_reconstructions"} < figures.keys()
    asked = ["--condition", str(photos / "labels/val"), "--count", "1"]
    output = ["--output", str(tmp_path / "out"), "--workdir", str(finished)]
    assert cli.main(["sample", *output, *asked]) == 0
    with np.load(tmp_path / "out" / "samples.npz") as arrays:
        assert arrays["arr_0"].shape == (4, 16, 16, 3)


def refusal(capsys, run, *arguments):
    with pytest.raises(SystemExit):
        run(*arguments)
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data.train_maps.segmentation": None},
            "data.train_maps.segmentation is not set, and the card reads segm",
        ),
        (
            {"data.val_maps.segmentation": None},
            "data.train_maps has segmentation and data.val_maps has not: set",
        ),
        (
            {"condition_vqgan.model.encoder.image_channels": 3},
            r"class maps reach from 0 to \d+ .* the model has classes 0 to 2",
        ),
    ],
)
def test_maps_that_are_missing_or_unknown_end_training_in_a_line(
    photos, tmp_path, capsys, changes, message
):
    arguments = ("condition_vqgan", *flags(photos, tmp_path / "run", **changes))
    assert re.search(message, refusal(capsys, train_tokenizer, *arguments))
    assert not (tmp_path / "run").exists()


def test_a_prior_of_maps_on_pictures_alone_says_where_to_put_them(
    tokenizers, photos, tmp_path, capsys
):
    """The card of pictures alone, with a condition that reads maps beside them."""
    run = tmp_path / "run"
    shutil.copytree(tokenizers / "vqgan", run / "vqgan")
    shutil.copytree(tokenizers / "condition_vqgan", run / "condition_vqgan")
    arguments = [
        flag.replace("small_segmentation", "small")
        for flag in flags(photos, run)
        if "_maps." not in flag and "config.condition_vqgan" not in flag
    ]
    changes = {"prior.condition": "segmentation"}
    arguments += [f"--config.{key}={value}" for key, value in changes.items()]
    line = refusal(capsys, train_prior, *arguments)
    assert "say where the maps of the pictures are by data.train_maps.segm" in line


def test_a_prior_is_told_where_in_its_picture_a_crop_lies(tokenizers, photos, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tokenizers / "vqgan", run / "vqgan")
    changes = {"data.zoom": 1.5, "prior.condition": "coordinates"}
    train_prior(*flags(photos, run, **changes))
    record = json.loads((run / "prior" / "config.json").read_text())
    (told,) = record["facts"]["condition"]["told"]
    assert (told["cut"], load_prior(run).vocabulary.length) == (True, 4)


def test_a_class_that_the_tokenizer_has_not_ends_the_prior_in_a_line(
    tokenizers, photos, tmp_path, capsys
):
    root = shutil.copytree(photos, tmp_path / "own")
    for path in (root / "labels/train").glob("*.png"):
        write_class_map(path, np.full((32, 32), 12))
    run = tmp_path / "run"
    for stage in ("vqgan", "condition_vqgan"):
        shutil.copytree(tokenizers / stage, run / stage)
    line = refusal(capsys, train_prior, *flags(root, run))
    assert re.search(r"reach from 12 to 12 .*prior is told classes 0 to 10", line)
