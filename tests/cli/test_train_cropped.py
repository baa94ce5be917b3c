"""A prior that is told objects of crops: from codes on disk to scores and pictures."""

import json

import jax
import numpy as np
import pytest
import tiny_run
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from tiny_conditions import DATA, config, train

from taming_jax import cli, data, load_prior, pictures
from taming_jax.cli import demo_conditions
from taming_jax.conditions.table import conditions_for
from taming_jax.data.scenes import CLASSES
from taming_jax.metrics import truth
from taming_jax.metrics.generation import evaluate_prior
from taming_jax.training.run import data_of

CROPS = DATA | {"zoom": 2}
TOLD = {"name": "boxes", "objects": 6, "vocabulary": 64, "crop": True}
ASKED = {
    "boxes": [[0.1, 0.2, 0.5, 0.9], [0.75, 0.5, 1, 1]],
    "box_classes": [4, 1],
    "crop": [0.25, 0.5, 0.75, 1],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trained on what `tokenize` has written."""
    directory = tmp_path_factory.mktemp("crops") / "run"
    tiny_run.write_run(directory, config(TOLD, data=CROPS))
    assert cli.main(["tokenize", "--workdir", str(directory)]) == 0
    return train(directory, TOLD, data=CROPS)


def held_out(*keep):
    return data.open_source(CROPS, "val").read(np.arange(5), None, keep)


def test_it_knows_what_the_classes_of_objects_are_called(run):
    (kind,) = load_prior(run).vocabulary.told.values()
    assert kind.names == CLASSES
    assert kind.length == 6 * 3 + 2


def test_codes_on_disk_say_of_held_out_crops_what_their_pictures_say(run):
    """Training has measured the former, `evaluate` measures the latter."""
    line = json.loads((run / "prior" / "metrics.jsonl").read_text().splitlines()[-1])
    figures = evaluate_prior(
        load_prior(run), data.open_source(CROPS, "val"), batch_size=4
    )
    assert_allclose(figures["nats_per_token"], line["val_loss"], rtol=1e-5)


def test_another_crop_gives_other_logits(run):
    prior, batch = load_prior(run), held_out("boxes", "box_classes", "crop")
    codes = np.zeros((5, 4, 4), np.int32)
    corner = batch | {"crop": batch["crop"] - np.float32(0.25)}
    corner["box_classes"] = np.full_like(batch["box_classes"], -1)
    middle = corner | {"crop": batch["crop"]}
    assert not np.allclose(prior.logits(codes, corner), prior.logits(codes, middle))


class FirstMap:
    """Reads the class map of the first held-out crop off all pictures."""

    def __call__(self, pictures):
        first = held_out("segmentation")["segmentation"][0]
        return {"segmentation": np.broadcast_to(first, (len(pictures), 16, 16))}


def test_boxes_are_looked_for_where_they_lie_in_the_crop(run):
    figures = evaluate_prior(
        load_prior(run),
        data.open_source(CROPS, "val"),
        batch_size=4,
        samples=5,
        reader=FirstMap(),
    )
    batch = held_out("boxes", "box_classes", "segmentation")
    lies = (batch["boxes"] - 0.25) / 0.5  # in the middle half, without draws
    seen = lies.clip(0, 1)
    areas = [
        np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1) for boxes in (seen, lies)
    ]
    classes = np.where(areas[0] >= areas[1] / 4, batch["box_classes"], -1)
    first = np.broadcast_to(batch["segmentation"][0], (5, 16, 16))
    each = truth.boxes_found(seen, classes, first)
    assert_allclose(figures["boxes_found"], np.nanmean(each))
    assert figures["boxes_found_of_originals"] == figures["boxes_found"]
    assert 0 < np.nanmean(each) < 1


@pytest.mark.parametrize("side", [None, 32])
def test_sample_draws_what_a_file_says_is_seen(run, tmp_path, side):
    """As large as a crop of training, or of more windows."""
    (tmp_path / "asked.json").write_text(json.dumps(ASKED))
    flags = ["--workdir", run, "--output", tmp_path / "out", "--count", 2]
    flags += ["--condition", tmp_path / "asked.json", "--guidance", 1]
    flags += [] if side is None else ["--height", side, "--width", side]
    assert cli.main(["sample", *map(str, flags)]) == 0
    with np.load(tmp_path / "out" / "samples.npz") as arrays:
        drawn = arrays["arr_0"]
    asked = {name: np.array([values] * 2) for name, values in ASKED.items()}
    settings = {} if side is None else {"shape": (side // 4,) * 2}
    images = load_prior(run).generate(
        jax.random.key(0), asked, temperature=0.9, top_p=0.95, guidance=1.0, **settings
    )
    assert_allclose(drawn, np.round((np.asarray(images) + 1) * 127.5), atol=1)
    with Image.open(tmp_path / "out" / "grid.png") as picture:
        assert picture.width > 3 * 16  # the objects, and two samples of them


def test_a_crop_out_of_the_picture_is_refused(run, tmp_path, capsys):
    (tmp_path / "asked.json").write_text(json.dumps(ASKED | {"crop": [0, 0, 2, 1]}))
    flags = ["--workdir", run, "--output", tmp_path / "out"]
    flags += ["--condition", tmp_path / "asked.json"]
    assert cli.main(["sample", *map(str, flags)]) != 0
    assert "the crop of picture 0 is [0" in capsys.readouterr().err


def test_whole_pictures_have_no_crops_to_tell(tmp_path, capsys):
    tiny_run.write_run(tmp_path, config(TOLD))
    with pytest.raises(SystemExit):
        train(tmp_path, TOLD)
    assert "leave crop out, or have scenes cut" in capsys.readouterr().err


def test_without_the_option_what_crops_show_is_told():
    source = data.open_source(CROPS, "val")
    told = {name: TOLD[name] for name in TOLD if name != "crop"}
    (kind,) = conditions_for(told, data_of(source, 16, 4)).values()
    batch = source.read(np.arange(5), None, kind.entries)
    seen = kind.checked(kind.of_batch(batch))
    assert_allclose(seen["boxes"], (batch["boxes"] * 2 - 0.5).clip(0, 1))
    assert kind.tokens(seen).shape == (5, 6 * 3)


def test_the_demo_draws_objects_as_they_lie_in_crops_from_corner_to_corner(
    run, tmp_path
):
    demo_conditions._draw(run, tmp_path / "page.png", 0)
    page = pictures.read_png(tmp_path / "page.png")
    source, entries = data.open_source(CROPS, "val"), ("boxes", "box_classes", "crop")
    corner = source.read(np.arange(1), np.zeros((1, 3)), ("image", *entries))
    assert_array_equal(corner["crop"], [[0, 0, 0.5, 0.5]])
    (kind,) = load_prior(run).vocabulary.told.values()
    drawn = kind.draw(kind.of_batch(corner), 16, corner["image"])
    assert (drawn != corner["image"]).any()
    assert_array_equal(page[:16, :16], drawn[0])
