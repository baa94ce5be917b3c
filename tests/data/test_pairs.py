"""Folders of pictures and of their maps: who belongs to whom, and how it is cut."""

import logging

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from taming_jax.data import eval_batches, open_source, read_file, train_batches


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


@pytest.fixture
def pairs(tmp_path):
    """Six pictures in two classes, and maps whose value is the pictures' red."""
    rng = np.random.default_rng(0)
    for n in range(6):
        name, red = f"{'ab'[n % 2]}/{n}.v1", rng.integers(0, 256, (16, 24))
        colours = np.stack([red, rng.integers(0, 256, (16, 24)), red], -1)
        write(tmp_path / "photos" / f"{name}.png", colours)
        write(tmp_path / "labels" / f"{name}.PNG", red)
    return tmp_path


def settings(pairs, **others):
    data = {"name": "folder", "train": str(pairs / "photos"), "image_size": 16}
    maps = {"segmentation": str(pairs / "labels")}
    return data | {"val": 0.34, "train_maps": maps} | others


@pytest.mark.parametrize("split", ["train", "val"])
def test_each_picture_has_its_own_map(pairs, split):
    source = open_source(settings(pairs), split)
    keep = ("image", "segmentation", "label")
    (batch,) = eval_batches(source, batch_size=len(source), keep=keep)
    assert len(source) == {"train": 4, "val": 2}[split]
    assert_array_equal(batch["segmentation"], batch["image"][..., 0])
    assert_array_equal(batch["image"].shape[1:], (16, 16, 3))


def test_maps_are_cropped_and_mirrored_as_their_pictures(pairs):
    """Crops of the pictures' own height: no pixel is resized."""
    source = open_source(settings(pairs, val=0.2), "train")
    batches = train_batches(
        source, batch_size=4, seed=0, keep=("image", "segmentation", "index")
    )
    seen = set()
    for _, batch in zip(range(6), batches, strict=False):
        assert_array_equal(batch["segmentation"], batch["image"][..., 0])
        rows = zip(batch["index"], batch["segmentation"], strict=True)
        seen |= {(i, part.tobytes()) for i, part in rows}
    assert len(seen) > len(source)  # more than one view of some


def test_val_has_maps_of_its_own_where_it_is_a_folder(pairs):
    own = {"val": str(pairs / "photos"), "val_maps": {"segmentation": pairs / "labels"}}
    source = open_source(settings(pairs, **own), "val")
    (batch,) = eval_batches(source, batch_size=6, keep=("image", "segmentation"))
    assert_array_equal(batch["segmentation"], batch["image"][..., 0])


def test_maps_alone_are_read_without_their_pictures(pairs):
    source = open_source(settings(pairs), "train")
    for path in (pairs / "photos").rglob("*.png"):
        path.write_bytes(b"torn")
    (batch,) = eval_batches(source, batch_size=4, keep=("segmentation",))
    assert batch["mask"].all()


def test_other_maps_are_other_data(pairs):
    before = open_source(settings(pairs), "train").identity
    assert open_source(settings(pairs), "train").identity == before
    without = open_source(settings(pairs, train_maps={}), "train").identity
    for path in (pairs / "labels").rglob("*.PNG"):
        write(path, np.zeros((16, 24)))
    after = open_source(settings(pairs), "train").identity
    assert after != before
    assert {k: v for k, v in after.items() if k != "maps"} == without


def test_maps_that_belong_to_no_picture_are_said_once_and_left_out(pairs, caplog):
    write(pairs / "labels" / "b" / "stray.png", np.zeros((4, 4)))
    with caplog.at_level(logging.WARNING):
        for split in ("train", "val"):
            open_source(settings(pairs), split)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        "left out: 1 of 7 maps in data.train_maps.segmentation, which belong to no "
        "picture: b/stray.png"
    )


def test_a_map_of_another_size_is_unreadable_and_named(pairs, caplog):
    write(pairs / "labels" / "b" / "3.v1.PNG", np.zeros((16, 23)))
    source = open_source(settings(pairs, val=str(pairs / "photos"),
        val_maps={"segmentation": str(pairs / "labels")}), "train")  # fmt: skip
    (batch,) = eval_batches(source, batch_size=6, keep=("image", "segmentation"))
    assert (batch["mask"].sum(), len(source.bad)) == (5, 1)
    assert "labels/b/3.v1.PNG: it has 23 x 16 pixels, and the picture" in caplog.text


def test_a_turned_photograph_is_as_large_as_it_looks(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    upright = np.zeros((24, 16, 3), np.uint8)
    path = write(tmp_path / "photos" / "a.png", np.rot90(upright))
    with Image.open(path) as picture:
        picture.save(path, exif=exif)
    write(tmp_path / "photos" / "b.png", upright)
    for name in "ab":
        write(tmp_path / "labels" / f"{name}.png", upright[..., 0])
    source = open_source(settings(tmp_path, val=0.5), "train")
    (batch,) = eval_batches(source, batch_size=1, keep=("image", "segmentation"))
    assert batch["mask"].all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_maps": {"segmentation": None}}, "segmentation is not set, and the ca"),
        ({"train_maps": {"normals": "x"}}, "normals is not a key; .* depth, edges"),
        ({"train_maps": "labels"}, "train_maps is 'labels'; it says for each kind"),
        ({"val_maps": {"depth": "x"}}, "data.val is held out .* leave data.val_maps"),
        ({"val": "photos"}, "data.train_maps has segmentation and data.val_maps has n"),
        ({"train_maps": {"depth": "nowhere"}}, "maps.depth is 'nowhere', which does n"),
    ],
)
def test_what_cannot_be_meant_is_refused(pairs, change, message):
    with pytest.raises(ValueError, match=message):
        open_source(settings(pairs, **change), "train")


def test_a_picture_without_a_map_is_refused(pairs):
    (pairs / "labels" / "a" / "2.v1.PNG").unlink()
    with pytest.raises(ValueError, match=r"lacks the maps of 1 of 6 pictures: a/2.v1"):
        open_source(settings(pairs, val=str(pairs / "photos"),
            val_maps={"segmentation": str(pairs / "labels")}), "train")  # fmt: skip


def test_two_maps_of_one_picture_are_refused(pairs):
    write(pairs / "labels" / "a" / "2.v1.png", np.zeros((16, 24)))
    with pytest.raises(ValueError, match=r"two maps of one picture, a/2.v1.PNG and"):
        open_source(settings(pairs), "train")


def test_pictures_and_maps_of_the_same_files_are_not_asked_for_together(pairs):
    source = open_source(settings(pairs, train_maps={}), "train")
    with pytest.raises(ValueError, match=r"one of them: .* data.train_maps.depth"):
        train_batches(source, batch_size=1, seed=0, keep=("image", "depth"))


def test_depth_may_be_floats_in_four_bytes_from_least_to_greatest(tmp_path):
    depth = np.random.default_rng(0).normal(3, 40, (5, 6)).astype("<f4")
    bytes_of = depth[..., None].view(np.uint8)
    path = write(tmp_path / "a.png", bytes_of)
    expected = (depth - depth.min()) / (depth.max() - depth.min())
    assert_allclose(read_file(path, "depth"), expected, rtol=1e-6)


def test_floats_that_are_all_alike_are_nearest(tmp_path):
    even = np.full((5, 6), 2.5, "<f4")[..., None].view(np.uint8)
    assert_array_equal(read_file(write(tmp_path / "a.png", even), "depth"), 0)


def test_bytes_that_are_no_numbers_are_no_depth(tmp_path):
    odd = np.array([[np.nan, 1.5]], "<f4")[..., None].view(np.uint8)
    with pytest.raises(ValueError, match=r"a.png .*not all is finite"):
        read_file(write(tmp_path / "a.png", odd), "depth")
