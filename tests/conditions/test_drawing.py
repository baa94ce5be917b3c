import numpy as np
import pytest
from numpy.testing import assert_array_equal

from taming_jax.conditions.drawing import draw_layout
from taming_jax.conditions.objects import Boxes, Keypoints
from taming_jax.maps import class_colours

BLACK = np.zeros((9, 9, 3), np.uint8)


def test_a_box_is_framed_in_its_class_s_colour():
    drawn = draw_layout(BLACK, np.array([[0.25, 0.5, 0.75, 1.0]]), np.array([2]))
    framed = np.zeros((9, 9), bool)
    framed[4:9, 2:7] = True
    framed[5:8, 3:6] = False
    assert_array_equal(drawn.any(-1), framed)
    assert_array_equal(drawn[4, 2], class_colours(4)[3])
    assert not BLACK.any()


def test_a_point_is_a_cross():
    drawn = draw_layout(BLACK, np.array([[0.5, 0.5]]), np.array([0]))
    cross = np.zeros((9, 9), bool)
    cross[4, 2:7] = cross[2:7, 4] = True
    assert_array_equal(drawn.any(-1), cross)


@pytest.mark.parametrize("points", [False, True])
def test_a_layout_is_drawn_on_its_picture_where_there_is_one(points):
    """What is not frame or cross is the picture; without one it is dark."""
    pictures = np.random.default_rng(0).integers(100, 200, (2, 9, 9, 3)).astype("uint8")
    boxes = np.float32([[[0.25, 0.5, 0.75, 1.0]], [[0.0, 0.0, 0.5, 0.5]]])
    asked = {"boxes": boxes, "box_classes": np.array([[2], [0]])}
    kind = Boxes(tuple("abc"), objects=1, points=points)
    drawn, alone = kind.draw(asked, 9, pictures), kind.draw(asked, 9)
    lines = (alone != alone[0, 0, -1]).any(-1)
    assert (lines.sum((1, 2)) > 5).all()
    assert_array_equal(drawn[~lines], pictures[~lines])
    assert_array_equal(drawn[lines], alone[lines])


@pytest.mark.parametrize("points", [False, True])
def test_a_layout_of_the_whole_is_drawn_as_it_lies_in_the_crop(points):
    kind = Boxes(tuple("abc"), objects=1, points=points, crop=True)
    asked = {
        "boxes": np.float32([[[0.625, 0.25, 0.875, 0.5]]]),
        "box_classes": np.array([[2]]),
        "crop": np.float32([[0.5, 0, 1, 0.5]]),
    }
    seen = asked | {"boxes": np.float32([[[0.25, 0.5, 0.75, 1]]])}
    seen.pop("crop")
    plain = Boxes(tuple("abc"), objects=1, points=points)
    assert_array_equal(kind.draw(asked, 9), plain.draw(seen, 9))


def test_keypoints_are_drawn_on_their_picture_where_there_is_one():
    pictures = np.full((1, 9, 9, 3), 150, np.uint8)
    asked = np.float32([[[[0.5, 0.5, 1], [0, 0, 0]]]])
    kind = Keypoints(objects=1, points=2)
    drawn, alone = kind.draw(asked, 9, pictures), kind.draw(asked, 9)
    cross = (drawn != 150).any(-1)
    assert cross.sum() == 9
    assert_array_equal(drawn[cross], alone[cross])


def test_no_object_is_not_drawn():
    assert_array_equal(draw_layout(BLACK, np.ones((1, 4)), np.array([-1])), BLACK)
    assert_array_equal(draw_layout(BLACK, np.ones((0, 4)), np.array([], int)), BLACK)


def test_a_frame_with_room_has_its_name_in_it():
    large = np.zeros((40, 90, 3), np.uint8)
    box, kind = np.array([[0.0, 0.0, 1.0, 1.0]]), np.array([0])
    plain, named = draw_layout(large, box, kind), draw_layout(large, box, kind, ["cat"])
    assert (named != plain)[1:-1, 1:-1].any()
    small = draw_layout(BLACK, box, kind, ["cat"])
    assert_array_equal(small, draw_layout(BLACK, box, kind))
