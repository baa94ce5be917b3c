"""Maps in the units of their tokenizers, and in colours."""

import numpy as np
import pytest
from golden import golden, nhwc
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax import units
from taming_jax.maps import Input, class_colours, input_of, legend

DEPTH = np.array([[[0.0, 0.25], [0.5, 1.0]], [[0.2, 0.2], [0.3, 0.4]]], np.float32)
FLAT = np.full((1, 2, 2), 0.7, np.float32)


def test_depth_is_as_far_from_minus_one_to_one_as_from_zero_to_one():
    assert_array_equal(Input("depth").read(DEPTH), 2 * DEPTH[..., None] - 1)


def test_stretched_depth_is_the_originals():
    """(d - min) / max(1e-8, max - min), then 2 d - 1; each picture for itself."""
    stretched = np.array([[[0, 0.25], [0.5, 1]], [[0, 0], [0.5, 1]]])[..., None]
    read = Input("depth", stretch=True).read(DEPTH)
    assert_allclose(read, 2 * stretched - 1, atol=1e-6)
    assert_array_equal(Input("depth", stretch=True).read(FLAT), -np.ones((1, 2, 2, 1)))


def test_class_maps_are_read_as_they_are():
    classes = np.array([[[0, 3]]], np.int32)
    assert Input("segmentation").read(classes) is classes


def test_pictures_are_read_as_ever():
    pictures = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    assert_array_equal(Input().read(pictures), units.from_uint8(pictures))


def test_a_class_keeps_its_colour_whatever_the_others_are():
    assert_array_equal(class_colours(183)[:11], class_colours(11))


@pytest.mark.parametrize(("count", "apart"), [(11, 47), (183, 16)])
def test_colours_of_classes_are_apart(count, apart):
    colours = class_colours(count).astype(float)
    distances = np.linalg.norm(colours[:, None] - colours, axis=-1)
    assert distances[~np.eye(count, dtype=bool)].min() >= apart


def test_a_class_map_tells_apart_what_the_original_s_drawing_does():
    """Each of its colours is one of ours; which ones it has depends on the batch."""
    case = golden("12_schedules_windows")
    maps = case.inputs["onehot"].argmax(1)
    ours = Input("segmentation").draw(maps).reshape(-1, 3)
    theirs = nhwc(case.outputs["rgb_onehot"]).reshape(-1, 3)
    pairs = np.unique(np.concatenate([ours, theirs], axis=1), axis=0)
    assert len(pairs) == len(np.unique(ours, axis=0)) == len(np.unique(theirs, axis=0))
    assert len(pairs) == 5


def test_a_class_map_is_drawn_in_the_colours_of_its_classes():
    classes = np.array([[[2, 0], [1, 2]]])
    assert_array_equal(Input("segmentation").draw(classes), class_colours(3)[classes])


def test_near_is_yellow_and_far_is_violet():
    near, far = Input("depth").draw(np.array([-1.0, 1.0]).reshape(1, 1, 2, 1))[0, 0]
    assert (near.tolist(), far.tolist()) == ([253, 231, 37], [68, 1, 84])


def test_depth_grows_lighter_the_nearer_it_is():
    colours = Input("depth").draw(np.linspace(-1, 1, 50).reshape(1, 1, 50, 1))[0, 0]
    lightness = colours @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) < 0).all()


def test_edges_are_grey():
    assert Input("edges").draw(
        np.array([-1.0, 1.0]).reshape(1, 1, 2, 1)
    ).ravel().tolist() == [0, 255]


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (2, 3), (3, 3), (5, 3)])
def test_pictures_of_any_channels_can_be_shown(channels, shown):
    assert Input().draw(np.zeros((2, 4, 4, channels))).shape == (2, 4, 4, shown)


def colours_in(picture):
    return {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}


def test_a_legend_has_the_colours_of_what_occurs_and_no_others():
    shown = legend([np.array([0, 2]), np.array([2])], ["ground", "sky", "sea"], 200)
    colours = [tuple(colour) for colour in class_colours(3).tolist()]
    assert {colours[0], colours[2]} <= colours_in(shown)
    assert colours[1] not in colours_in(shown)


def test_a_legend_takes_as_many_lines_as_it_needs():
    wide, narrow = (legend([np.arange(4)], "abcd", width) for width in (400, 40))
    assert (wide.shape[1], narrow.shape[1]) == (400, 40)
    assert narrow.shape[0] > wide.shape[0]


def test_classes_without_names_are_called_by_their_numbers():
    numbered = legend([np.arange(3)], (), 200)
    assert_array_equal(numbered, legend([np.arange(3)], ["0", "1", "2"], 200))


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"model": {}}, Input("image")),
        ({"model": {"classes": True}}, Input("segmentation")),
        ({"model": {}, "input": "depth", "stretch": True}, Input("depth", True)),
    ],
)
def test_a_section_says_what_it_is_for_or_its_model_does(section, expected):
    assert input_of(section) == expected


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"model": {}, "input": "normals"}, "'normals' is not allowed: .*image or seg"),
        ({"model": {}, "input": "segmentation"}, "class maps are .*classes=True"),
        ({"model": {"classes": True}, "input": "image"}, "input='image' and .*True"),
        ({"model": {}, "stretch": True}, "input='image' and stretch=True: .* depth"),
    ],
)
def test_a_kind_that_is_not_the_models_is_refused(section, message):
    with pytest.raises(ValueError, match=message):
        input_of(section)
