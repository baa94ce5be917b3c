"""Objects of crops: told relative to the whole with what is seen, or cut to it."""

import json

import jax
import numpy as np
import pytest
from golden import golden
from numpy.testing import assert_array_equal

from taming_jax.conditions.kinds import Data
from taming_jax.conditions.objects import Boxes
from taming_jax.conditions.table import as_facts, conditions_for, from_facts

CASE = golden("11_conditional_builders")
SHAPES = {"image": (8, 8, 3), "boxes": (4, 4), "box_classes": (4,)}
# Of the whole: in its upper left, in its middle, on the right, in the lower right.
WHOLE = {
    "boxes": np.float32(
        [
            [
                [0.0, 0.0, 0.25, 0.25],
                [0.25, 0.25, 0.75, 0.75],
                [0.75, 0.0, 1.0, 1.0],
                [0.5, 0.5, 1.0, 1.0],
            ]
        ]
    ),
    "box_classes": np.array([[0, 1, 0, 1]]),
}
RIGHT = WHOLE | {"crop": np.float32([[0.5, 0.25, 1.0, 0.75]])}  # without the first one


def made(name, crops=True, **options):
    """The kind for data that are crops, or whole pictures; classes a and b."""
    shapes = SHAPES | ({"crop": (4,)} if crops else {})
    data = Data(image_size=8, stride=4, object_names=("a", "b"), shapes=shapes)
    ((_, kind),) = conditions_for({"name": name, **options}, data).items()
    return kind


def test_boxes_are_told_relative_to_the_whole_and_then_what_is_seen():
    """Places are of 5 x 5: quarters are whole steps."""
    kind = made("boxes", vocabulary=25, crop=True)
    told = [1, 5 + 1, 15 + 3, 0, 3, 24, 1, 10 + 2, 24, 24, 24, 24]
    seen = [5 + 2, 15 + 4]
    assert (kind.length, kind.size) == (4 * 3 + 2, 25)
    assert_array_equal(kind.tokens(kind.of_batch(RIGHT)), [[*told, *seen]])
    assert_array_equal(kind.tokens(kind.checked(RIGHT)), [[*told, *seen]])


def test_points_are_told_relative_to_the_whole_and_then_what_is_seen():
    kind = made("points", vocabulary=25, objects=3, crop=True)
    # Centres: (.5, .5), (.875, .5), of whose four steps 3.5 is even at 4, (.75, .75).
    told = [1, 10 + 2, 0, 10 + 4, 1, 15 + 3]
    assert_array_equal(kind.tokens(kind.of_batch(RIGHT)), [[*told, 5 + 2, 15 + 4]])


def test_what_is_told_is_read_again():
    kind = made("boxes", vocabulary=25, objects=3, crop=True)
    read = kind.layout.read(kind.tokens(kind.of_batch(RIGHT)))
    assert_array_equal(read.crop, RIGHT["crop"])
    assert_array_equal(read.places, RIGHT["boxes"][:, 1:])
    assert_array_equal(read.classes, RIGHT["box_classes"][:, 1:])


# Builder 0 says crops. In float32 the centre of an object of the second annotations is
# on the other side of the middle between two places.
RUNS = [
    i
    for i, run in enumerate(CASE.config["runs"])
    if run["builder"] == 0
    and not run["horizontal_flip"]
    and (run["kind"], run["annotation_set"]) != ("center", 1)
]


@pytest.mark.parametrize("index", RUNS)
def test_the_original_tells_the_same_but_for_its_flags(index):
    run = CASE.config["runs"][index]
    known = CASE.config["annotation_sets"][run["annotation_set"]]

    def corners(boxes):
        boxes = np.array(boxes)
        return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1)

    kind = Boxes(
        tuple("abcdefghij"), objects=5, points=run["kind"] == "center", crop=True
    )
    batch = {
        "boxes": corners([[each["bbox"] for each in known]]),
        "box_classes": np.array([[each["category_no"] for each in known]]),
        "crop": corners([run["crop"] or [0, 0, 1, 1]]),
    }
    *objects, first, last = CASE.outputs[f"run{index:02}/tokens"]
    objects = np.reshape(objects, (5, -1))
    there = objects[:, 0] != kind.layout.nothing
    objects[there, 0] %= 10  # which of the ten classes; flags are beyond
    assert_array_equal(
        kind.tokens(kind.of_batch(batch))[0], [*objects.ravel(), first, last]
    )


def test_the_first_objects_that_are_seen_are_told():
    kind = made("boxes", objects=2, crop=True)
    asked = kind.of_batch(RIGHT)
    assert_array_equal(asked["box_classes"], [[-1, 1, 0, -1]])
    said = np.asarray(kind.tokens(asked))[0]
    assert_array_equal(said[[0, 3]], [1, 0])


def test_random_order_moves_objects_and_not_what_is_seen():
    kind = made("boxes", objects=3, crop=True)
    asked, orders = kind.of_batch(RIGHT), set()
    plain = np.asarray(kind.tokens(asked))[0]
    for seed in range(8):
        said = np.asarray(kind.tokens(asked, key=jax.random.key(seed)))[0]
        objects = said[:-2].reshape(3, 3)
        assert set(map(tuple, objects)) == set(map(tuple, plain[:-2].reshape(3, 3)))
        assert_array_equal(said[-2:], plain[-2:])
        orders.add(tuple(objects.ravel()))
    assert len(orders) > 1


def test_without_the_option_objects_are_told_as_they_lie_in_the_crop():
    kind = made("boxes", vocabulary=25)
    assert kind.entries == ("boxes", "box_classes", "crop")
    asked = kind.of_batch(RIGHT)
    assert set(asked) == {"boxes", "box_classes"}  # as of a picture that is a whole
    assert_array_equal(asked["box_classes"], [[-1, 1, 0, 1]])
    seen = [[0, 0, 0.5, 1], [0.5, 0, 1, 1], [0, 0.5, 1, 1]]
    assert_array_equal(asked["boxes"][0, 1:], seen)
    told = [1, 0, 20 + 2, 0, 2, 24, 1, 10, 24, 24, 24, 24]
    assert_array_equal(kind.tokens(kind.checked(asked)), [told])


@pytest.mark.parametrize("crop", [False, True])
def test_a_row_that_fills_up_a_batch_has_no_objects(crop):
    batch = {entry: np.zeros_like(RIGHT[entry]) for entry in RIGHT}
    asked = made("boxes", crop=crop).of_batch(batch)
    assert_array_equal(asked["box_classes"], [[-1] * 4])


def test_without_a_crop_all_of_the_picture_is_seen():
    kind = made("boxes", vocabulary=25, crop=True)
    asked, plain = kind.checked(WHOLE), made("boxes", vocabulary=25, crops=False)
    assert_array_equal(asked["crop"], [[0, 0, 1, 1]])
    tokens = kind.tokens(asked)
    assert_array_equal(tokens[:, :-2], plain.tokens(plain.checked(WHOLE)))
    assert_array_equal(tokens[:, -2:], [[0, 24]])


def test_only_objects_that_are_seen_have_to_find_places():
    kind = made("boxes", objects=3, crop=True)
    assert_array_equal(kind.checked(RIGHT)["box_classes"], [[-1, 1, 0, 1]])
    with pytest.raises(ValueError, match=r"4 objects in a picture, .* be told 3"):
        kind.checked(WHOLE)


@pytest.mark.parametrize(
    ("crop", "message"),
    [
        ([[0.5, 0, 1.25, 1]], r"crop of picture 0 is \[0.5, 0.0, 1.25, 1.0\]: x0"),
        ([[-0.5, 0, 1, 1]], "0 <= x0 < x1 <= 1"),
        ([[0.5, 0.5, 0.5, 1]], "0 <= x0 < x1 <= 1"),
        ([[0, 0.75, 1, 0.25]], "0 <= x0 < x1 <= 1"),
        ([[0, 0, np.nan, 1]], "0 <= x0 < x1 <= 1"),
        ([0, 0, 1, 1], r"crops are int64 \(4,\) of 1 pictures: give \[B, 4\]"),
        ([[0, 0, 1, 1]] * 2, r"crops are int64 \(2, 4\) of 1 pictures"),
        ([list("abcd")], r"crops are <U1 \(1, 4\)"),
        (None, r"crops are object \(\) of 1"),
        ([[0, 0, 1, 1], [0, 0]], "crops are lists of different lengths"),
    ],
)
def test_a_crop_that_cannot_be_is_refused(crop, message):
    with pytest.raises(ValueError, match=message):
        made("boxes", crop=True).checked(WHOLE | {"crop": crop})


def test_what_can_be_given_is_said_where_a_crop_can_be():
    with pytest.raises(ValueError, match=r"'crop': float32 \[B, 4\], what is seen"):
        made("boxes", crop=True).checked(WHOLE["boxes"])


def test_a_crop_is_refused_where_none_is_told():
    with pytest.raises(ValueError, match=r"give \{'boxes': .* -1 for none\}$"):
        made("boxes").checked(RIGHT)


def test_whole_pictures_have_no_crops_to_be_told():
    with pytest.raises(ValueError, match="are whole ones: leave crop out, or have"):
        made("points", crops=False, crop=True)


def test_crops_are_remembered_where_there_are_some():
    """What a run says of objects of whole pictures does not speak of crops."""
    told = {
        "boxes": made("boxes", crop=True),
        "points": made("points"),
    }
    facts = json.loads(json.dumps(as_facts(told)))
    assert from_facts(facts) == told
    assert [fact.keys() & {"crop", "cut"} for fact in facts] == [
        {"crop", "cut"},
        {"cut"},
    ]
    (fact,) = as_facts({"boxes": made("boxes", crops=False)})
    assert set(fact) == {"name", "names", "objects", "vocabulary", "points"}
