"""Pictures beside what was asked for: each figure by hand."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from taming_jax.metrics import truth


def test_iou_is_the_mean_over_the_classes_that_were_asked_for():
    asked = np.array([[[0, 0], [0, 2]]])
    found = np.array([[[0, 0], [2, 3]]])
    # Of class 0 two of three pixels, of class 2 none; class 3 was not asked for.
    assert_allclose(truth.iou(asked, found), [(2 / 3 + 0) / 2])
    assert_allclose(truth.iou(asked, asked), [1])


def test_depth_error_is_the_mean_distance():
    found = np.stack([np.full((2, 2), 0.25), np.full((2, 2), -0.5)])
    assert_allclose(truth.depth_error(np.zeros((2, 2, 2)), found), [0.25, 0.5])


def edges(*columns):
    canvas = np.zeros((1, 6, 8), np.float32)
    canvas[..., list(columns)] = 1
    return canvas


@pytest.mark.parametrize(
    ("found", "score"),
    [((2,), 1), ((3,), 1), ((4,), 0), ((2, 6), 2 / 3), ((), 0)],
)
def test_edges_count_as_found_within_a_pixel(found, score):
    """(2, 6): all that was asked for, and half of what is there was: 2/3."""
    assert_allclose(truth.edge_f_score(edges(2), edges(*found)), [score], atol=1e-9)


def test_no_edges_asked_for_are_no_figure():
    assert np.isnan(truth.edge_f_score(edges(), edges(2))).all()


def regions(rows, columns, kind=3):
    canvas = np.zeros((1, 10, 10), int)
    canvas[0, rows, columns] = kind
    return canvas


BOX, KIND = np.array([[[0.2, 0.2, 0.6, 0.8]]]), np.array([[2]])


@pytest.mark.parametrize(
    ("found", "share"),
    [
        (regions(slice(2, 8), slice(2, 6)), 1),
        (regions(slice(2, 6), slice(2, 6)), 1),  # two thirds
        (regions(slice(2, 4), slice(2, 6)), 0),  # a third
        (regions(slice(2, 8), slice(2, 6), kind=4), 0),
        (regions(slice(2, 8), slice(7, 10)), 0),
    ],
)
def test_a_box_is_found_where_its_class_fills_half_of_it(found, share):
    assert_allclose(truth.boxes_found(BOX, KIND, found), [share])


def test_no_box_is_no_figure_and_none_of_a_few_is_left_out():
    nothing = np.zeros((1, 10, 10), int)
    assert np.isnan(truth.boxes_found(BOX, np.array([[-1]]), nothing)).all()
    two = np.concatenate([BOX, BOX], 1), np.array([[2, -1]])
    found = regions(slice(2, 8), slice(2, 6))
    assert_allclose(truth.boxes_found(*two, found), [1])


def test_a_keypoint_is_as_far_off_as_the_highest_place_near_it():
    heat = np.zeros((1, 20, 20, 2))
    heat[0, 10, 12, 0] = 1  # (.625, .525)
    heat[0, 0, 0, 0] = 9  # too far away to be it
    asked = np.zeros((1, 1, 2, 3))
    asked[0, 0, 0] = [0.575, 0.525, 1]
    asked[0, 0, 1] = [0.5, 0.5, 0]  # out of sight
    assert_allclose(truth.keypoint_error(asked, heat), [0.05])


def test_nothing_in_sight_is_no_figure():
    heat = np.zeros((1, 4, 4, 1))
    assert np.isnan(truth.keypoint_error(np.zeros((1, 1, 1, 3)), heat)).all()
