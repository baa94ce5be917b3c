"""Which figures there are for which condition, and of what."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.conditions.direct import LowResolution
from taming_jax.conditions.kinds import CodedMap
from taming_jax.metrics import asked
from taming_jax.units import to_uint8


def read(pictures):
    """All pictures show the same."""
    count = len(pictures)
    return {
        "segmentation": np.ones((count, 8, 8), int),
        "depth": np.full((count, 8, 8), 0.75),
        "edges": np.ones((count, 8, 8)),
        "keypoints": np.zeros((count, 8, 8, 1)),
    }


PICTURES = np.full((2, 8, 8, 3), 51, np.uint8)


SMALL = {"low_resolution": LowResolution(side=8)}


def depth_kind(stretch=False):
    return CodedMap(("depth", stretch), 8, 8, stride=1, size=16, channels=1)


def test_each_kind_has_its_figure():
    wanted = {
        "segmentation": np.ones((2, 8, 8), int),
        "depth": np.zeros((2, 8, 8, 1), np.float32),  # .5 of [0, 1]
        "edges": np.ones((2, 8, 8, 1), np.float32),
        "boxes": {
            "boxes": np.tile(np.float32([0, 0, 1, 1]), (2, 1, 1)),
            "box_classes": np.zeros((2, 1), int),
        },
        "keypoints": np.zeros((2, 1, 1, 3)),
        "low_resolution": np.full((2, 8, 8, 3), -1, np.float32),
    }
    told = dict.fromkeys(wanted) | SMALL | {"depth": depth_kind()}
    found = asked.scores(told, wanted, PICTURES, read)
    assert list(found) == asked.names(told, read)
    assert_allclose(found["iou"], 1)
    assert_allclose(found["depth_error"], 0.25)
    assert_allclose(found["edge_f_score"], 1)
    assert_allclose(found["boxes_found"], 1)
    assert np.isnan(found["keypoint_error"]).all()
    # 51 of 255 off everywhere: 20 log10(5) dB, reduced or not.
    assert_allclose(found["psnr"], 20 * np.log10(5))
    assert_allclose(found["psnr_of_8x8"], 20 * np.log10(5))


def test_depth_that_is_told_stretched_is_compared_with_what_is_read_stretched():
    """A reader knows depth as examples have it; here without an error."""
    depth = np.linspace(0.3, 0.8, 64).reshape(1, 8, 8).astype(np.float32)
    kind = depth_kind(stretch=True)
    wanted = {"depth": kind.of_batch({"depth": depth})}
    found = asked.scores(
        {"depth": kind}, wanted, PICTURES[:1], lambda _: {"depth": depth}
    )
    assert_allclose(found["depth_error"], 0, atol=1e-6)
    # The other way round each place is off by twice how far it is from the middle.
    found = asked.scores(
        {"depth": kind}, wanted, PICTURES[:1], lambda _: {"depth": depth[:, ::-1, ::-1]}
    )
    error = np.abs(np.linspace(-1, 1, 64)).mean()
    assert_allclose(found["depth_error"], error, rtol=1e-5)


def test_figures_of_one_name_are_called_by_their_kinds_too():
    """Of either kind it is its own: here one asks for what is there, the other not."""
    maps = np.ones((2, 8, 8), int)
    wanted = {"segmentation": maps, "direct_segmentation": 2 * maps}
    wanted["edges"] = np.ones((2, 8, 8, 1), np.float32)
    told = dict.fromkeys(wanted)
    found = asked.scores(told, wanted, PICTURES, read)
    assert list(found) == asked.names(told, read)
    assert set(found) == {
        "segmentation_iou", "direct_segmentation_iou", "edge_f_score"
    }  # fmt: skip
    assert_allclose(found["segmentation_iou"], 1)
    assert_allclose(found["direct_segmentation_iou"], 0)


def test_without_a_reader_there_is_what_needs_none():
    told = {"depth": None, "label": None} | SMALL
    assert asked.names(told, None) == ["psnr", "psnr_of_8x8"]


@pytest.mark.parametrize(("size", "side"), [(8, 4), (36, 12), (12, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_small_pictures_are_compared_at_the_size_that_is_told(size, side, channels):
    """A pixel that is 64 too dark in each part is off by 64 / (pixels of a part)."""
    told = {"low_resolution": LowResolution(side, channels=channels)}
    wanted = np.zeros((2, size, size, channels), np.float32)
    pictures = to_uint8(wanted).copy()
    part = size // side
    pictures[:, ::part, ::part] -= 64
    found = asked.scores(told, {"low_resolution": wanted}, pictures, None)
    assert list(found) == ["psnr", f"psnr_of_{side}x{side}"]
    apart = np.round(64 / part**2)
    assert_allclose(found[f"psnr_of_{side}x{side}"], 20 * np.log10(255 / apart))


def test_pictures_are_made_worse_as_training_does_and_by_their_numbers():
    images = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)
    kind = LowResolution(side=4, levels=16, degraded=True)
    told = {"low_resolution": kind, "label": None}
    wanted = {"low_resolution": images[[0, 1, 0]], "label": np.arange(3)}
    heard = asked.as_trained(told, wanted, np.array([7, 0, 7]))
    worse = heard["low_resolution"]
    assert_array_equal(heard["label"], wanted["label"])
    key = jax.random.fold_in(jax.random.key(0), 7)
    assert_array_equal(kind.tokens(worse[:1]), kind.tokens(images[:1], key=key))
    assert_array_equal(worse[0], worse[2])
    assert (kind.tokens(worse) != kind.tokens(wanted["low_resolution"])).any(1).all()


def test_pictures_of_which_training_tells_the_means_stay_as_they_are():
    wanted = {"low_resolution": np.zeros((1, 8, 8, 3), np.float32)}
    assert asked.as_trained(SMALL, wanted, np.array([7])) == wanted


def test_of_boxes_of_a_crop_what_it_shows_of_them_is_looked_for():
    """The right half is seen: a half of one box, a sliver of another, none of others.

    What little is left of the sliver's would not be found, and it does not count.
    """
    boxes = np.float32(
        [[[0.25, 0, 0.75, 1], [0, 0, 0.5625, 1], [0, 0, 0.25, 1], [0.75, 0, 1, 1]]]
    )
    wanted = {
        "boxes": boxes,
        "box_classes": np.array([[0, 1, 1, 2]]),
        "crop": np.float32([[0.5, 0, 1, 1]]),
    }
    shown = np.zeros((1, 8, 8), int)
    shown[:, :, :4] = 1  # class 0 from the left to the middle, of class 2 nothing

    def halves(pictures):
        return {"segmentation": shown}

    found = asked.scores({"boxes": None}, {"boxes": wanted}, PICTURES[:1], halves)
    assert_allclose(found["boxes_found"], 0.5)
    shown[:, :, 4:] = 3
    found = asked.scores({"boxes": None}, {"boxes": wanted}, PICTURES[:1], halves)
    assert_allclose(found["boxes_found"], 1)


def test_a_crop_that_shows_no_object_has_no_figure():
    wanted = {
        "boxes": np.float32([[[0, 0, 0.25, 1]]]),
        "box_classes": np.array([[0]]),
        "crop": np.float32([[0.5, 0, 1, 1]]),
    }
    found = asked.scores({"points": None}, {"points": wanted}, PICTURES[:1], read)
    assert np.isnan(found["boxes_found"]).all()


def test_boxes_are_looked_for_in_a_class_map():
    told = {"boxes": None, "edges": None, "label": None, "low_resolution": None}
    assert asked.to_be_read(told) == {"segmentation", "edges"}
    assert asked.to_be_read({"label": None}) == set()
