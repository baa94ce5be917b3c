"""Which figures there are for which condition, and of what."""

import numpy as np
from numpy.testing import assert_allclose

from taming_jax.metrics import asked


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


def test_each_kind_has_its_figure():
    told = {
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
    found = asked.scores(told, PICTURES, read)
    assert list(found) == asked.names(told, read)
    assert_allclose(found["iou"], 1)
    assert_allclose(found["depth_error"], 0.25)
    assert_allclose(found["edge_f_score"], 1)
    assert_allclose(found["boxes_found"], 1)
    assert np.isnan(found["keypoint_error"]).all()
    # 51 of 255 off everywhere: 20 log10(5) dB, reduced or not.
    assert_allclose(found["psnr"], 20 * np.log10(5))
    assert_allclose(found["psnr_of_8x8"], 20 * np.log10(5))


def test_without_a_reader_there_is_what_needs_none():
    told = {"depth": None, "low_resolution": None, "label": None}
    assert asked.names(told, None) == ["psnr", "psnr_of_8x8"]


def test_boxes_are_looked_for_in_a_class_map():
    told = {"boxes": None, "edges": None, "label": None, "low_resolution": None}
    assert asked.to_be_read(told) == {"segmentation", "edges"}
    assert asked.to_be_read({"label": None}) == set()
