"""What a stride costs: larger scenes at the same scale, read when they are reduced."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from benchmarks import stride_quality
from taming_jax import data

CARD = {"name": "scenes", "train": 4, "val": 2, "image_size": 32, "zoom": 8}


def read(settings, name):
    return data.open_source(settings, "val").read(np.arange(2), None, [name])[name]


def test_larger_pictures_show_the_same_scenes_at_the_same_scale():
    small = read(CARD, "image")
    large = read(stride_quality.cut_out(CARD, 128), "image")
    assert_array_equal(large[:, 48:80, 48:80], small)


def test_what_is_read_is_asked_of_the_same_part_of_a_scene():
    large = read(stride_quality.cut_out(CARD, 128), "segmentation")
    small = read(stride_quality.cut_out(CARD, 128, 64), "segmentation")
    assert small.shape == (2, 64, 64)
    assert np.mean(large[:, ::2, ::2] == small) > 0.95


@pytest.mark.parametrize("side", [0, 32, 192, 512])
def test_a_side_that_is_no_whole_number_of_parts_is_refused(side):
    with pytest.raises(ValueError, match=f"--side {side}: .*256 pixels.* with 64"):
        stride_quality.cut_out(CARD, side)


def test_pictures_are_reduced_to_means():
    pictures = np.zeros((1, 4, 4, 3), np.uint8)
    pictures[0, :2, :2, 1] = [[10, 20], [30, 40]]
    reduced = stride_quality.reduced(pictures, 2)
    assert_array_equal(reduced[0, ..., 1], [[25, 0], [0, 0]])


def test_a_figure_is_of_the_pictures_that_have_one():
    values = np.array([0.5, np.nan, 0.7])
    assert stride_quality.mean_of(values) == "0.600 (0.100)"
