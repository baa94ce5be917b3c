"""Where in its picture a crop lies, as the paper's priors of crops are told."""

import io

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from taming_jax.conditions.coordinates import coordinates as of_whole
from taming_jax.data import open_source, train_batches
from taming_jax.data.decoding import coordinates, decode_square


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_of_a_whole_picture_they_count_its_pixels():
    picture = encoded(np.zeros((48, 48), np.uint8))
    assert_allclose(coordinates(picture, 16), of_whole(16, 16), rtol=1e-6)
    assert_allclose(coordinates(picture, 16, mirrored=True), of_whole(16, 16))


@pytest.mark.parametrize("place", [(0.0, 0.0), (0.4, 0.7), (0.99, 0.99)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_of_a_crop_they_are_cut_out_of_those_of_the_picture(place, mirrored):
    """At a zoom that resizes nothing: what the pixels say and the coordinates agree.

    A picture whose values are its own coordinates, or those of its mirror image.
    """
    whole = of_whole(12, 20)
    values = np.round(whole * 240).astype(np.uint8)  # 240 pixels
    picture = encoded(values[:, ::-1] if mirrored else values)
    view = {"place": place, "mirrored": mirrored, "zoom": 1.5}
    shown = decode_square(picture, 8, **view)[..., 0]
    assert_allclose(coordinates(picture, 8, **view) * 240, shown, rtol=1e-6)


def test_a_resized_picture_is_counted_as_it_is_shown():
    """Half the size: the picture that the crop is of has 10 x 6 pixels."""
    picture = encoded(np.zeros((12, 20), np.uint8))
    asked = coordinates(picture, 6, place=(0.99, 0.0))
    assert_allclose(asked, of_whole(6, 10)[:, 4:], rtol=1e-6)


def test_a_folder_hands_them_out_with_its_crops(tmp_path):
    values = np.arange(240, dtype=np.uint8).reshape(12, 20)
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(encoded(values))
    settings = {"name": "folder", "train": tmp_path, "val": tmp_path, "image_size": 8}
    source = open_source({**settings, "zoom": 1.5, "flip": False}, "train")
    keep = ("image", "coordinates")
    for _, batch in zip(
        range(5), train_batches(source, batch_size=2, seed=0, keep=keep), strict=False
    ):
        assert_allclose(batch["coordinates"] * 240, batch["image"][..., 0], rtol=1e-6)
    assert_array_equal(source.example_spec["coordinates"].shape, (8, 8))
