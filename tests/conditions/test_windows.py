"""What windows of a large picture are told, against what a crop of it would be told."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from taming_jax.conditions import Vocabulary, windows
from taming_jax.conditions.coordinates import coordinates
from taming_jax.conditions.direct import Coordinates, LowResolution
from taming_jax.conditions.direct_maps import DirectMap
from taming_jax.conditions.kinds import CodedMap, Label
from taming_jax.conditions.objects import Boxes, Keypoints
from taming_jax.units import from_uint8

SHAPE, WINDOW, STRIDE = (12, 16), (8, 8), 4  # 48 x 64 pixels, windows of 32
DRAWS = np.random.default_rng(0)


def encode(variables, maps):
    """A tokenizer without weights: the class in the corner of each 4 x 4 pixels."""
    return maps[:, ::STRIDE, ::STRIDE]


CODED = CodedMap(("segmentation", False), 32, 32, STRIDE, 9, 9, encode)
MAPS = DRAWS.integers(0, 9, (2, 48, 64)).astype(np.int32)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (3, 5), (4, 8)])
def test_a_map_is_cut_as_the_picture_is(top, left):
    crop = MAPS[:, 4 * top : 4 * top + 32, 4 * left : 4 * left + 32]
    told = CODED.over(MAPS, SHAPE, WINDOW)
    assert_array_equal(told(top, left), CODED.tokens(CODED.checked(crop)))


PLACES = [(0, 0), (3, 5), (4, 7)]


@pytest.mark.parametrize(("top", "left"), PLACES)
@pytest.mark.parametrize("side", [2, 4, 8])
def test_a_map_without_a_tokenizer_is_cut_likewise(side, top, left):
    """Of fewer places than codes, too, between which a window may begin."""
    kind = DirectMap(("segmentation", False), 32, side=side, levels=9)
    crop = MAPS[:, 4 * top : 4 * top + 32, 4 * left : 4 * left + 32]
    told = kind.over(MAPS, SHAPE, WINDOW)
    assert_array_equal(told(top, left), kind.tokens(kind.checked(crop)))


@pytest.mark.parametrize(("top", "left"), PLACES)
@pytest.mark.parametrize(("stride", "side"), [(8, 16), (8, 32), (16, 32)])
def test_a_map_of_fewer_tokens_than_codes_is_cut_where_the_window_is(
    stride, side, top, left
):
    """Reduced before it is encoded, too; codes are the middles of patches."""

    def middles(variables, maps):
        return maps[:, stride // 2 :: stride, stride // 2 :: stride]

    kind = CodedMap(("segmentation", False), 32, side, stride, 9, 9, middles)
    crop = MAPS[:, 4 * top : 4 * top + 32, 4 * left : 4 * left + 32]
    told = kind.over(MAPS, SHAPE, WINDOW)
    assert_array_equal(told(top, left), kind.tokens(kind.checked(crop)))


def test_of_a_side_as_long_as_a_window_a_map_is_encoded_once():
    """Where no window begins between two tokens there is one grid of them."""
    kind = DirectMap(("segmentation", False), 32, side=4, levels=9)
    told = kind.over(MAPS[:, :32], (8, 16), WINDOW)
    assert told.tokens.shape == (2, 1, 2, 4, 8)


def test_coordinates_are_of_the_whole_picture():
    kind, maps = Coordinates(32, STRIDE), coordinates(48, 64)[None]
    crop = maps[:, 12:44, 20:52]
    assert_array_equal(kind.over(maps, SHAPE, WINDOW)(3, 5), kind.tokens(crop))


def test_small_pictures_are_cut_between_their_pixels():
    """4 pixels to a window of 8 codes: as if each were the four that it stands for."""
    kind = LowResolution(side=4, levels=256)
    small = DRAWS.uniform(-1, 1, (1, 6, 8, 3)).astype(np.float32)
    told = kind.over(small, SHAPE, WINDOW)
    assert_array_equal(told(2, 6), kind.tokens(kind.checked(small[:, 1:5, 3:7])))
    crop = small.repeat(2, 1).repeat(2, 2)[:, 3:11, 7:15]
    assert_array_equal(told(3, 7), kind.tokens(kind.checked(crop)))


@pytest.mark.parametrize(("top", "left"), PLACES)
def test_pictures_to_be_made_small_are_cut_before(top, left):
    kind = LowResolution(side=4, levels=256)
    large = DRAWS.uniform(-1, 1, (1, 48, 64, 3)).astype(np.float32)
    crop = large[:, 4 * top : 4 * top + 32, 4 * left : 4 * left + 32]
    told = kind.over(large, SHAPE, WINDOW)(top, left)
    assert_array_equal(told, kind.tokens(kind.checked(crop)))


def test_a_large_small_picture_is_drawn_as_its_windows_are_told_it():
    """Of 48 x 64 pixels 6 x 8 are told, 4 x 4 in a window of 32 x 32."""
    kind = LowResolution(side=4, levels=256)
    told = DRAWS.integers(0, 256, (1, 6, 8, 3)).astype(np.uint8)
    large = told.repeat(8, 1).repeat(8, 2)
    assert_array_equal(kind.draw(from_uint8(large), 32), large)
    red, green, blue = told[:, 1:5, 3:7].astype(int).reshape(1, 16, 3).T
    expected = (red * 256 + green) * 256 + blue
    window = kind.over(np.asarray(from_uint8(large)), SHAPE, WINDOW)(2, 6)
    assert_array_equal(window, expected.T)


BOXES = np.float32([[[0, 0, 0.25, 0.5], [0.5, 0.5, 1, 1], [0.25, 0.25, 0.5, 0.75]]])


def test_objects_are_told_where_they_are_in_the_window():
    """Of the first two objects that it shows, what it shows of them."""
    kind = Boxes(tuple("abc"), objects=2)
    asked = {"boxes": BOXES, "box_classes": np.array([[0, 1, 2]])}
    told = kind.over(asked, SHAPE, WINDOW)
    # Columns 8 to 15, rows 4 to 11: x from 1/2, y from 1/3, sides 1/2 and 2/3.
    seen = np.float32([[[0, 0.25, 1, 1], [0, 0, 0, 0]]])
    seen = kind.tokens({"boxes": seen, "box_classes": np.array([[1, -1]])})
    assert_array_equal(told(4, 8), seen)
    # Columns 2 to 9, rows 0 to 7: x from 1/8, y from 0; the third is the first two's.
    seen = np.float32([[[0, 0, 0.25, 0.75], [0.75, 0.75, 1, 1]]])
    seen = kind.tokens({"boxes": seen, "box_classes": np.array([[0, 1]])})
    assert_array_equal(told(0, 2), seen)


@pytest.mark.parametrize("points", [False, True])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (3, 5), (8, 4)])
def test_a_window_is_told_what_training_tells_of_a_crop_at_its_place(points, top, left):
    """Of a picture of twice the sides: the objects that it shows, and where it is."""
    kind = Boxes(tuple("abc"), objects=2, vocabulary=1024, points=points, crop=True)
    asked = {"boxes": BOXES, "box_classes": np.array([[0, 1, 2]])}
    crop = np.float32([[left, top, left + 8, top + 8]]) / 16
    told = kind.over(asked, (16, 16), WINDOW)(top, left)
    expected = kind.tokens(kind.of_batch(asked | {"crop": crop}))
    assert_array_equal(told, expected)
    # Of places by 32 x 32: the last two tokens are the corners of what is seen.
    corners = np.round(31 * crop[0]).astype(int)
    assert told[0, -2] == 32 * corners[1] + corners[0]
    assert told[0, -1] == 32 * corners[3] + corners[2]


def test_a_picture_that_is_a_part_itself_has_windows_of_the_whole():
    """Its lower right quarter is asked for: a window in the middle of that."""
    kind = Boxes(tuple("abc"), objects=2, vocabulary=1024, crop=True)
    asked = {"boxes": BOXES, "box_classes": np.array([[0, 1, 2]])}
    part = asked | {"crop": np.float32([[0.5, 0.5, 1, 1]])}
    told = kind.over(part, (16, 16), WINDOW)(4, 4)
    whole = kind.over(asked, (32, 32), WINDOW)(20, 20)
    assert_array_equal(told, whole)
    assert_array_equal(told[0, :3], [1, 32 * 16 + 16, 32 * 31 + 31])
    assert_array_equal(told[0, 3:6], 1023)  # the others are not in there


def test_points_outside_of_a_window_are_not_in_sight():
    kind = Keypoints(objects=1, points=2)
    points = np.float32(
        [[[[0.1, 0.1, 1], [0.2, 0.9, 0]], [[0.75, 0.5, 1], [0.1, 1, 1]]]]
    )
    told = kind.over(points, SHAPE, WINDOW)(4, 8)
    seen = np.float32([[[[0.5, 0.25, 1], [0, 0, 0]]]])
    assert_array_equal(told, kind.tokens(seen))


def test_several_are_told_one_after_the_other():
    told = {"label": Label(tuple("abc")), "segmentation": CODED}
    vocabulary = Vocabulary(16, told=told)
    asked = {"label": np.array([2, 0]), "segmentation": MAPS}
    crop = {"label": asked["label"], "segmentation": MAPS[:, 8:40, 4:36]}
    assert_array_equal(
        vocabulary.over(asked, SHAPE, WINDOW)(2, 1),
        vocabulary.asked_tokens(vocabulary.checked(crop)),
    )


def test_a_window_of_the_whole_picture_is_told_the_whole():
    told = CODED.over(MAPS[:, :32, :32], WINDOW, WINDOW)
    assert_array_equal(told(0, 0), CODED.tokens(MAPS[:, :32, :32]))


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (CODED, MAPS[:, :32], r"\[B, 48, 64\] below 9.*\(2, 32, 64\)"),
        (Coordinates(32, 4), jnp.zeros((1, 32, 32)), r"\[B, 48, 64\].*\(1, 32, 32\)"),
        (
            LowResolution(side=4),
            np.zeros((1, 8, 8, 3), np.float32),
            r"multiple of 6 and 8.*\(1, 8, 8, 3\)",
        ),
        (
            LowResolution(side=3),
            np.zeros((1, 3, 3, 3)),
            r"height a multiple of 8 codes",
        ),
    ],
)
def test_a_condition_of_another_size_is_refused(kind, given, message):
    with pytest.raises(ValueError, match=message):
        kind.over(given, SHAPE, WINDOW)


def test_nothing_is_the_same_everywhere():
    tokens = np.array([[4, 5]])
    assert_array_equal(windows.Same(tokens)(7, 3), tokens)
