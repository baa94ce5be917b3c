"""`shapes` against fixed bytes, and its truth against itself and its picture."""

import hashlib

import numpy as np
import pytest

from taming_jax.data import shapes


@pytest.fixture(scope="module")
def batch():
    return shapes.render(0, np.arange(200), 64, tuple(shapes.EXAMPLE))


@pytest.mark.parametrize(
    ("size", "digest"),
    [
        (64, "5c61e6d65706520c8a20788dc2033a9d6d6ba8f92e861d9f78e11e136e99a3e9"),
        (45, "37b6c8104009829ea40b25b040dd99e37b7b9434342e1115e8fbc1209cd4c2cd"),
        (256, "efa135509b0af7bdb4e5959e4d9d048b14ee9b1346a5271d44ff836e6413f156"),
    ],
)
def test_bytes_are_those_of_every_machine(size, digest):
    batch = shapes.render(7, np.arange(20), size, tuple(shapes.EXAMPLE))
    data = b"".join(batch[key].tobytes() for key in shapes.EXAMPLE)
    assert hashlib.sha256(data).hexdigest() == digest


def test_segmentation_is_the_label_and_background(batch):
    classes = [np.unique(values).tolist() for values in batch["segmentation"]]
    assert classes == [[0, 1 + label] for label in batch["label"]]


def test_box_is_the_extent_of_the_segmentation(batch):
    for segmentation, (box,) in zip(batch["segmentation"], batch["boxes"], strict=True):
        y, x = np.nonzero(segmentation)
        extent = [x.min(), y.min(), x.max() + 1, y.max() + 1]
        assert (box * 64).tolist() == extent


def test_the_box_has_the_class_of_the_label(batch):
    np.testing.assert_array_equal(batch["box_classes"][:, 0], batch["label"])


def test_the_object_is_nearer_than_the_wall(batch):
    wall = batch["segmentation"] == 0
    # At most 1 - 4 x 0.08, at the rim of the object that is closest to the wall.
    assert batch["depth"][~wall].max() < 0.69
    assert batch["depth"][wall].min() == 1


def test_edges_are_where_the_segmentation_changes(batch):
    inside = batch["segmentation"] > 0
    change = np.zeros_like(inside)
    change[:, 1:] |= inside[:, 1:] != inside[:, :-1]
    # The outline runs within half a pixel of one of the two centres.
    beside = np.maximum(batch["edges"][:, 1:], batch["edges"][:, :-1])
    assert beside[change[:, 1:]].min() >= 0.5


def test_edges_are_as_thin_as_a_pixel(batch):
    length = (batch["edges"] > 0).sum(axis=(1, 2))
    assert length.max() < 0.2 * 64 * 64


def test_keypoints_lie_in_the_box_or_on_its_rim(batch):
    (x0, y0, x1, y1) = batch["boxes"][:, 0, :, None].transpose(1, 0, 2)
    x, y, in_sight = np.moveaxis(batch["keypoints"][:, 0], -1, 0)
    # A horn may be too thin for the centres of the last two pixels.
    slack = 2.5 / 64
    np.testing.assert_array_equal(x, np.clip(x, x0 - slack, x1 + slack))
    np.testing.assert_array_equal(y, np.clip(y, y0 - slack, y1 + slack))
    assert in_sight.all()


def test_pixels_on_the_outline_lie_between_inside_and_outside():
    """Not antialiased, the 64-pixel picture would be every eighth pixel of 512."""
    small = shapes.render(0, np.arange(20), 64, ("image", "edges"))
    large = shapes.render(0, np.arange(20), 512, ("image",))["image"].astype(float)
    mean = large.reshape(20, 64, 8, 64, 8, 3).mean(axis=(2, 4))
    edge = small["edges"] > 0.5
    ours = abs(small["image"] - mean)[edge].mean()
    assert ours < 0.25 * abs(large[:, 4::8, 4::8] - mean)[edge].mean()


def test_all_hues_textures_and_backdrops_are_used_alike():
    plan = shapes._plan(0, np.arange(24_000))
    for field, count in ((plan.hue, 8), (plan.texture, 6), (plan.backdrop, 5)):
        # Five standard deviations at most.
        expected = 24_000 / count
        assert abs(np.bincount(field) - expected).max() < 5 * np.sqrt(expected)
