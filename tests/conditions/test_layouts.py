"""Objects as tokens, against the original's builders, position by position."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import golden
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.conditions.layouts import (
    FLAGS,
    Layout,
    check_boxes,
    cut_to,
    relative,
    sized,
)

CASE = golden("11_conditional_builders")
RUNS = range(len(CASE.config["runs"]))
TWO = np.array([[[0.1, 0.2, 0.4, 0.6], [0.5, 0.5, 0.9, 0.7]]])


def layout(run):
    said = CASE.config["builders"][run["builder"]]
    return Layout(
        classes=said["no_object_classes"],
        objects=said["no_max_objects"],
        vocabulary=said["no_tokens"],
        points=run["kind"] == "center",
        crop=said["encode_crop"],
        flags=said["use_group_parameter"] + 3 * said["use_additional_parameters"],
    )


def objects(run):
    """What a run of the original's was given: boxes, classes, flags, crop."""
    known = CASE.config["annotation_sets"][run["annotation_set"]]
    boxes = np.array([a["bbox"] for a in known])
    classes = np.array([a["category_no"] for a in known])
    names = ("is_group_of", "is_occluded", "is_depiction", "is_inside")
    flags = np.array([[a.get(name, False) for name in names] for a in known])
    crop = None if run["crop"] is None else np.array([run["crop"]])
    return boxes[None], classes[None], flags[None], crop


@pytest.mark.parametrize("index", RUNS)
def test_the_original_s_tokens(index):
    run = CASE.config["runs"][index]
    assert layout(run).length == run["embedding_dim"]
    tokens = layout(run).write(*objects(run), mirrored=run["horizontal_flip"])
    assert_array_equal(tokens[0], CASE.outputs[f"run{index:02}/tokens"])


@pytest.mark.parametrize("index", RUNS)
def test_the_original_s_inverse(index):
    run, out = CASE.config["runs"][index], f"run{index:02}/inverse_"
    read = layout(run).read(CASE.outputs[f"run{index:02}/tokens"][None])
    there = read.classes[0] >= 0
    places = read.places[0][there]
    if run["kind"] == "bbox":
        places = sized(places)
    geometry = CASE.outputs[out + "geometry"]
    assert_allclose(places, geometry, rtol=0, atol=1e-12)  # as the index says
    said = np.column_stack([read.classes[0], read.flags[0]])[there]
    assert_array_equal(said, CASE.outputs[out + "flags"])
    bits = np.left_shift(1, np.arange(len(FLAGS)))
    tokens = said[:, 0] + layout(run).classes * (said[:, 1:] @ bits)
    assert_array_equal(tokens, CASE.outputs[out + "representation"])
    if read.crop is not None:
        crop = CASE.outputs[out + "crop"]
        assert_allclose(sized(read.crop[0]), crop, rtol=0, atol=1e-12)


@pytest.mark.parametrize("index", RUNS)
def test_the_original_shuffles_the_first_ones_before_it_cuts_them(index):
    run = CASE.config["runs"][index]
    boxes, classes, flags, crop = objects(run)
    order = list(range(min(layout(run).objects, classes.shape[1])))
    random.Random(CASE.config["seed"]).shuffle(order)
    shuffled = (array[:, order] for array in (boxes, classes, flags))
    tokens = layout(run).write(*shuffled, crop, mirrored=run["horizontal_flip"])
    assert_array_equal(tokens[0], CASE.outputs[f"run{index:02}/tokens_seeded"])


@pytest.mark.parametrize("index", [0, 1])
def test_the_original_s_places(index):
    kind = Layout(10, 1, vocabulary=CASE.config["builders"][index]["no_tokens"])
    x = CASE.inputs["tokenize_coordinates"]
    points = np.stack(np.meshgrid(x, x), -1)  # a row for each y
    assert_array_equal(kind.place(points), CASE.outputs[f"tokenize_{index}"])
    spots = kind.spot(np.arange(kind.vocabulary))
    assert_allclose(spots, CASE.outputs[f"untokenize_{index}"], rtol=0, atol=1e-12)


def test_jax_s_arrays_give_the_same_tokens_inside_of_a_program():
    kind = Layout(classes=3, objects=4, crop=True)
    classes = np.array([[2, 0]])
    tokens = jax.jit(kind.write)(jnp.asarray(TWO), jnp.asarray(classes))
    assert_array_equal(tokens, kind.write(TWO, classes))


def test_a_key_puts_objects_into_another_order_and_leaves_none_for_the_end():
    kind = Layout(classes=9, objects=8)
    boxes = jnp.tile(jnp.asarray(TWO), (1, 3, 1))
    classes = jnp.array([[0, 1, -1, 3, 4, 5]])
    orders = set()
    for seed in range(8):
        said = kind.write(boxes, classes, key=jax.random.key(seed)).reshape(8, 3)
        assert set(map(int, said[:5, 0])) == {0, 1, 3, 4, 5}
        assert_array_equal(said[5:], kind.nothing)
        orders.add(tuple(map(int, said[:5, 0])))
    assert len(orders) > 1


def test_of_more_objects_than_places_the_last_ones_are_left_out():
    tokens = Layout(classes=3, objects=1).write(TWO, np.array([[-1, 2]]))
    assert tokens[0, 0] == 2
    tokens = Layout(classes=3, objects=1).write(TWO, np.array([[1, 2]]))
    assert tokens[0, 0] == 1


def test_a_layout_says_what_it_has_no_tokens_for():
    with pytest.raises(ValueError, match=r"10 classes with 4 flags are 160.*161"):
        Layout(classes=10, objects=3, vocabulary=100, flags=4)
    with pytest.raises(ValueError, match=r"flags=2: 0, 1 \(group\) or 4"):
        Layout(classes=10, objects=3, flags=2)
    with pytest.raises(ValueError, match="0 objects: at least one"):
        Layout(classes=10, objects=0)
    assert len(FLAGS) == 4


@pytest.mark.parametrize(
    "box",
    [[-0.1, 0, 0.5, 0.5], [0, 0, 0.5, 1.1], [0.5, 0, 0.2, 0.5], [0, 0.3, 0.5, 0.3]],
)
def test_boxes_lie_in_the_picture_and_have_a_size(box):
    boxes = np.array([[[0, 0, 1, 1], box]], np.float32)
    with pytest.raises(ValueError, match=r"box 1 of picture 0 .*0 <= x0 < x1 <= 1"):
        check_boxes(boxes, np.array([[0, 1]]), 3)
    check_boxes(boxes, np.array([[0, -1]]), 3)  # no object, no box


def test_a_box_of_the_whole_lies_in_a_crop_by_its_sides():
    crops = np.array([[0.5, 0.25, 1.0, 0.75]])
    boxes = np.array([[[0.25, 0.5, 0.75, 1.0], [0.5, 0.25, 0.75, 0.5], [0, 0, 0.5, 1]]])
    expected = [[[-0.5, 0.5, 0.5, 1.5], [0, 0, 0.5, 0.5], [-1, -0.5, 0, 1.5]]]
    assert_array_equal(relative(boxes, crops), expected)
    expected = [[[0, 0.5, 0.5, 1], [0, 0, 0.5, 0.5], [0, 0, 0, 1]]]
    assert_array_equal(cut_to(boxes, crops), expected)


def test_objects_have_classes_that_there_are():
    with pytest.raises(ValueError, match=r"from 0 to 3: integers from 0 to 2, or -1"):
        check_boxes(TWO, np.array([[0, 3]]), 3)
    with pytest.raises(ValueError, match=r"\(1, 2, 4\) and their .*\(1, 3\)"):
        check_boxes(TWO, np.array([[0, 1, 2]]), 3)
    for classes in (np.zeros((1, 2)), np.array([["a", "b"]]), np.zeros((1, 0))):
        boxes = TWO[:, : classes.shape[1]]
        with pytest.raises(ValueError, match=r"classes of .* integers from 0 to 2, or"):
            check_boxes(boxes, classes, 3)


def test_boxes_are_numbers():
    with pytest.raises(ValueError, match=r"boxes are <U1 \(1, 2, 4\).* give numbers"):
        check_boxes(np.full((1, 2, 4), "a"), np.array([[0, 1]]), 3)


def test_the_published_prior_of_coco_is_told_thirty_boxes_and_the_crop():
    """By its .yaml 348 tokens go through it, 256 of which are the picture's."""
    boxes = np.array([[[0.1, 0.2, 0.4, 0.6], [0.5, 0.5, 0.5, 0.5]]])
    kind = Layout(classes=183, objects=30, vocabulary=8_192, crop=True)
    whole = np.array([[0.0, 0.0, 1.0, 1.0]])
    tokens = kind.write(boxes, np.array([[17, 2]]), crop=whole)
    assert tokens.shape == (1, 348 - 256)
    assert_array_equal(tokens[0, [0, 3, 6]], [17, 2, 8_191])
    assert_array_equal(kind.read(tokens).crop, whole)
