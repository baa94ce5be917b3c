"""A folder of maps: what is in their pixels, cut as the pictures would be."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from taming_jax.data import eval_batches, open_source, read_file, train_batches


def write(path, pixels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if mode == "P":
        picture.putpalette([7, 7, 7, 200, 0, 0] * 128)
    picture.save(path)
    return path


def folder(directory, **settings):
    data = {"name": "folder", "train": directory, "val": directory, "image_size": 16}
    return open_source(data | settings, "train")


NUMBERS = np.arange(20 * 24).reshape(20, 24)


@pytest.mark.parametrize(
    ("pixels", "classes"),
    [
        (NUMBERS.astype(np.uint8), NUMBERS % 256),
        (NUMBERS.astype(np.uint16), NUMBERS),
        (NUMBERS % 2 == 1, NUMBERS % 2),
    ],
    ids=["8 bits", "16 bits", "1 bit"],
)
def test_the_class_is_the_pixels_value(tmp_path, pixels, classes):
    path = write(tmp_path / "a.png", pixels)
    assert_array_equal(read_file(path, "segmentation"), classes)


def test_the_class_of_a_palette_is_its_entrys_number(tmp_path):
    path = write(tmp_path / "a.png", NUMBERS.astype(np.uint8), mode="P")
    assert_array_equal(read_file(path, "segmentation"), NUMBERS % 256)


@pytest.mark.parametrize("kind", ["depth", "edges"])
def test_brightness_is_from_0_to_1_in_8_bits_and_in_16(tmp_path, kind):
    levels = np.array([[0, 51, 255]])
    eight = write(tmp_path / "8.png", levels.astype(np.uint8))
    sixteen = write(tmp_path / "16.png", (levels * 257).astype(np.uint16))
    grey = write(tmp_path / "rgb.png", np.dstack([levels] * 3).astype(np.uint8))
    for path in (eight, sixteen, grey):
        assert_allclose(read_file(path, kind), [[0, 0.2, 1]], rtol=1e-6)


def test_16_bits_are_not_rounded_to_8(tmp_path):
    path = write(tmp_path / "a.png", np.array([[1, 2, 65_535]], np.uint16))
    assert_allclose(read_file(path, "depth") * 65_535, [[1, 2, 65_535]], rtol=1e-6)


@pytest.mark.parametrize("size", [7, 16, 40])
def test_classes_are_never_mixed(tmp_path, size):
    two = np.where(np.random.default_rng(0).random((20, 24)) < 0.5, 3, 200)
    write(tmp_path / "a.png", two.astype(np.uint8))
    source = folder(tmp_path, image_size=size, zoom=1.3)
    batches = train_batches(source, batch_size=1, seed=0, keep=("segmentation",))
    seen = np.concatenate([np.unique(next(batches)["segmentation"]) for _ in range(9)])
    assert set(seen) == {3, 200}


def test_all_fields_of_an_example_are_cut_and_mirrored_alike(tmp_path):
    """Nothing is resized: size 16, zoom 1 and a height of 16 leave pixels whole."""
    rng = np.random.default_rng(0)
    for name in "abcd":
        write(tmp_path / f"{name}.png", rng.integers(0, 256, (16, 40), np.uint8))
    fields = ("image", "segmentation", "depth", "edges")
    maps = dict.fromkeys(fields[1:], tmp_path)
    source = folder(tmp_path, train_maps=maps, val_maps=maps)
    batches = train_batches(source, batch_size=4, seed=3, keep=fields)
    shown = [next(batches) for _ in range(4)]
    views = {batch["segmentation"].tobytes() for batch in shown}
    assert len(views) == 4
    for batch in shown:
        classes = batch["segmentation"]
        assert_array_equal(batch["image"], np.repeat(classes[..., None], 3, axis=-1))
        assert_allclose(batch["depth"] * 255, classes, rtol=1e-5)
        assert_array_equal(batch["edges"], batch["depth"])


def test_maps_resume_where_they_were(tmp_path):
    for n in range(6):
        write(tmp_path / f"{n}.png", np.full((20, 24), n, np.uint8))
    settings = {"batch_size": 2, "seed": 1, "keep": ("segmentation", "index")}
    all_of_them = train_batches(folder(tmp_path), **settings)
    later = [next(all_of_them) for _ in range(5)][3]
    resumed = next(train_batches(folder(tmp_path), start_step=3, **settings))
    for name in settings["keep"]:
        assert_array_equal(later[name], resumed[name])


COLOURS = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (
            "a.png",
            "segmentation",
            "a.png.*a PNG of RGB; a class map is a PNG of one ch",
        ),
        ("a.jpg", "segmentation", "a.jpg.*a JPEG of RGB; a class map is a PNG"),
        ("a.png", "depth", "a.png.*has colours; a map of depth is a grey picture"),
        ("a.jpg", "edges", "a.jpg.*has colours; a map of edges is a grey picture"),
    ],
)
def test_pictures_are_no_maps(tmp_path, name, kind, message):
    write(tmp_path / name, COLOURS)
    with pytest.raises(ValueError, match=message):
        next(eval_batches(folder(tmp_path), batch_size=1, keep=(kind,)))
    with pytest.raises(ValueError, match=message):
        read_file(tmp_path / name, kind)


def test_a_grey_jpeg_is_no_class_map(tmp_path):
    """Its values are what is left of the classes."""
    path = write(tmp_path / "a.jpg", NUMBERS.astype(np.uint8))
    with pytest.raises(ValueError, match="a JPEG of L; a class map is a PNG"):
        read_file(path, "segmentation")
