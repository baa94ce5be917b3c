"""Each kind of condition: the tokens by hand, and what cannot be told."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from taming_jax.conditions import CONDITIONS, Vocabulary
from taming_jax.conditions.kinds import Coded, Data, MapTokenizer
from taming_jax.conditions.table import as_facts, conditions_for, from_facts
from taming_jax.maps import Input

SHAPES = {
    "image": (8, 8, 3),
    "depth": (8, 8),
    "boxes": (3, 4),
    "box_classes": (3,),
    "keypoints": (3, 2, 3),
}
BOXES = {
    "boxes": np.array([[[0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.5, 1.0]]], np.float32),
    "box_classes": np.array([[1, 0]]),
}
DIRECT = {"name": "direct_depth", "levels": 9}
RAGGED = [[[0]], [[0, 1]]]


def mean_of_quarters(scale, maps):
    """A tokenizer of depth: the mean of 4 x 4 pixels as one of 8 codes."""
    means = maps[..., 0].reshape(len(maps), maps.shape[1] // 4, 4, -1, 4).mean((2, 4))
    return jnp.round(scale * (means + 1)).astype(jnp.int32)


def about(kind="depth", **changes):
    tokenizer = MapTokenizer(Input(kind), 4, 8, 1, mean_of_quarters)
    given = {"shapes": SHAPES, "tokenizer": tokenizer, "class_names": ("a", "b")}
    return Data(image_size=8, stride=4, **given | changes)


def made(condition, data=None):
    ((_, kind),) = conditions_for(condition, data or about()).items()
    return kind


def test_a_map_becomes_its_tokenizer_s_codes():
    depth = np.zeros((1, 8, 8), np.float32)
    depth[0, :4, 4:] = 1
    kind = made("depth")
    assert_array_equal(
        kind.tokens(kind.of_batch({"depth": depth}), 3.5), [[0, 7, 0, 0]]
    )


def test_a_smaller_map_has_fewer_tokens():
    kind = made({"name": "depth", "side": 4})
    asked = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1)
    expected = mean_of_quarters(3.5, asked[:, ::2, ::2])
    assert kind.length == 1
    assert_array_equal(kind.tokens(asked, 3.5), expected.reshape(1, -1))


def test_a_map_that_is_codes_already_is_taken_as_it_is():
    codes = np.arange(4).reshape(1, 2, 2)
    asked = made("depth").of_batch({"condition_codes": codes})
    assert isinstance(asked, Coded)
    assert_array_equal(made("depth").tokens(asked), [[0, 1, 2, 3]])


def test_a_small_picture_is_colours_counted_by_channels():
    kind = made({"name": "low_resolution", "side": 2, "levels": 3})
    images = np.full((1, 4, 4, 3), -1, np.float32)
    images[0, :2, 2:] = [1, 0, -1]  # levels 2, 1, 0
    images[0, 2:, 0] = 1  # half of a pixel's part: the mean is level 1 of all
    assert (kind.length, kind.size) == (4, 27)
    assert_array_equal(kind.tokens(images), [[0, 2 * 9 + 3, 9 + 3 + 1, 0]])


def test_only_training_degrades_small_pictures_and_each_in_its_way():
    images = np.random.default_rng(0).uniform(-1, 1, (8, 8, 8, 3)).astype(np.float32)
    kind = made({"name": "low_resolution", "side": 4, "degraded": True})
    clean = made({"name": "low_resolution", "side": 4})
    key = jax.random.key(0)
    assert_array_equal(kind.tokens(images), clean.tokens(images))
    assert_array_equal(clean.tokens(images, key=key), clean.tokens(images))
    changed = (kind.tokens(images, key=key) != kind.tokens(images)).mean(1)
    assert len(np.unique(changed)) > 2


def test_of_a_class_map_the_middle_pixels_classes_are_told():
    maps = np.zeros((1, 8, 8), np.int32)
    maps[0, 2, 2:7], maps[0, 6, 6] = 5, 2  # of 4 x 4 parts the pixels 2, 2 and so on
    data = about("segmentation", shapes={"segmentation": (8, 8)}, tokenizer=None)
    kind = made({"name": "direct_segmentation", "levels": 6}, data)
    assert (kind.grid, kind.length, kind.size) == ((2, 2), 4, 6)
    assert_array_equal(kind.tokens(kind.checked(maps)), [[5, 5, 0, 2]])


def test_of_depth_the_rounded_means_are_told():
    depth = np.zeros((1, 8, 8), np.float32)
    depth[0, :4, 4:], depth[0, 4:, :4] = 1, np.arange(4) / 4  # a mean of 3 / 8
    kind = made({"name": "direct_depth", "side": 2, "levels": 9}, about(tokenizer=None))
    asked = kind.of_batch({"depth": depth})
    assert_array_equal(kind.tokens(kind.checked(asked)), [[0, 8, 3, 0]])


def test_coordinates_of_a_whole_picture_count_its_pixels():
    kind = made({"name": "coordinates", "steps": 64})
    # Quarters of 8 x 8 pixels: rows 0-3 and columns 0-3 have the mean 13.5, and so on.
    batch = {"image": np.zeros((1, 8, 8, 3))}
    assert_array_equal(kind.tokens(kind.of_batch(batch)), [[14, 18, 46, 50]])
    assert kind.size == 65


def test_coordinates_of_a_crop_are_what_the_example_says():
    shapes = {"image": (8, 8, 3), "coordinates": (8, 8)}
    kind = conditions_for("coordinates", Data(8, 4, shapes=shapes, crops=True))
    kind = kind["coordinates"]
    where = np.random.default_rng(0).random((2, 8, 8)).astype(np.float32)
    assert kind.entries == ("coordinates",)
    assert_array_equal(kind.of_batch({"coordinates": where}), where)


def test_boxes_are_a_class_and_two_corners():
    kind = made({"name": "boxes", "vocabulary": 25})
    tokens = kind.tokens(kind.checked(BOXES))
    assert_array_equal(tokens, [[1, 0, 24, 0, 11, 22, 24, 24, 24]])


def test_of_an_example_s_objects_as_many_are_told_as_there_are_places_for():
    kind = made({"name": "boxes", "objects": 1})
    classes, boxes = np.array([[-1, 0, 1, 0]]), np.tile([0.0, 0.0, 1.0, 1.0], (1, 4, 1))
    boxes[0, 1] = 0  # nothing, as in rows that fill up a batch
    asked = kind.of_batch({"boxes": boxes, "box_classes": classes})
    assert_array_equal(asked["box_classes"], [[-1, -1, 1, -1]])
    points = made({"name": "keypoints", "objects": 1})
    assert points.of_batch({"keypoints": np.zeros((1, 3, 2, 3))}).shape[1] == 1


def test_points_are_a_class_and_a_centre():
    kind = made({"name": "points", "vocabulary": 25, "objects": 2})
    # (.5, .5) is the place 2, 2; (.375, .75) of four steps is 1.5, to even, and 3.
    assert_array_equal(kind.tokens(kind.checked(BOXES)), [[1, 12, 0, 17]])


def test_keypoints_are_places_or_out_of_sight():
    points = np.zeros((1, 1, 2, 3), np.float32)
    points[0, 0, 0] = [0.5, 1.0, 1]
    points[0, 0, 1] = [0.5, 0.5, 0]
    kind = made({"name": "keypoints", "sections": 5, "objects": 2})
    assert_array_equal(kind.tokens(points), [[4 * 5 + 2, 25, 25, 25]])


@pytest.mark.parametrize("name", sorted(set(CONDITIONS) - {"label"}))
def test_every_kind_can_be_drawn_and_said_within_its_size(name):
    if name == "segmentation":
        tokenizer = MapTokenizer(
            Input(name), 4, 8, 3, lambda _, maps: maps[:, ::4, ::4]
        )
        data = about(tokenizer=tokenizer, shapes={**SHAPES, name: (8, 8)})
    else:
        shapes = {**SHAPES, "edges": (8, 8), "segmentation": (8, 8)}
        data = about(name, shapes=shapes)
    batch = {
        "image": np.zeros((2, 8, 8, 3), np.uint8),
        "segmentation": np.full((2, 8, 8), 2),
        "depth": np.ones((2, 8, 8), np.float32),
        "edges": np.ones((2, 8, 8), np.float32),
        **{entry: BOXES[entry].repeat(2, 0) for entry in BOXES},
        "keypoints": np.ones((2, 3, 2, 3), np.float32),
    }
    direct = name.startswith("direct_")
    kind = made({"name": name, "levels": 3} if direct else name, data)
    asked = kind.of_batch({entry: batch[entry] for entry in kind.entries})
    tokens = np.asarray(kind.tokens(kind.checked(asked), 3.5))
    assert tokens.shape == (2, kind.length)
    assert 0 <= tokens.min() <= tokens.max() < kind.size
    drawn = kind.draw(asked, 8)
    assert drawn.shape == (2, 8, 8, 3)
    assert drawn.dtype == np.uint8
    assert "give condition=" in kind.missing()


@pytest.mark.parametrize(
    ("condition", "given", "message"),
    [
        ("label", [2], r"labels reach from 2 to 2; .* classes 0 to 1: 0 a, 1 b"),
        ("label", [[0]], r"labels are int64 of shape \(1, 1\): give int32 \[B\]"),
        ("depth", np.zeros((1, 8, 8, 1), int), r"told images float32 \[B, 8, 8, 1\]"),
        ("depth", np.zeros((1, 4, 4, 1)), r"the condition is float64 \(1, 4, 4, 1\)"),
        ("depth", np.full((1, 8, 8, 1), 9.0), "from 9 to 9"),
        ("low_resolution", np.zeros((1, 9, 9, 3)), "the same multiple of 8"),
        ("low_resolution", np.zeros((1, 8, 8, 3), np.uint8), "is uint8"),
        (
            "low_resolution",
            np.full((1, 8, 8, 3), 1.5),
            "from 1.5 to 1.5",
        ),
        (DIRECT, np.zeros((1, 8, 8), np.int32), r"told images float32 \[B, 8, 8, 1\]"),
        (DIRECT, np.full((1, 8, 8, 1), 9.0), "of depth; the condition .* 9 to 9"),
        ("coordinates", np.full((1, 8, 8), 2.0), r"in \[0, 1\]; .* from 2 to 2"),
        ("coordinates", np.full((1, 8, 8), "a"), r"the condition is <U1 \(1, 8, 8\)$"),
        ("boxes", BOXES["boxes"], r"this prior is told objects: give \{'boxes'"),
        ("boxes", BOXES | {"boxes": -BOXES["boxes"]}, "box 0 of picture 0"),
        ("boxes", BOXES | {"box_classes": np.array([[2, 0]])}, "from 0 to 1, or -1"),
        ({"name": "boxes", "objects": 1}, BOXES, "2 objects .* be told 1: leave some"),
        ("keypoints", np.zeros((1, 3, 5, 3)), r"told keypoints float32 \[B, M, 2, 3\]"),
        ("keypoints", np.full((1, 1, 2, 3), 2.0), "reach from 2 to 2: x and y"),
        ("keypoints", np.ones((1, 4, 2, 3)), "of 4 objects in a picture"),
        ("keypoints", {"a": 1}, r"in sight\); the condition is object \(\)"),
        ("keypoints", np.full((1, 1, 2, 3), "a"), r"the condition is <U1 \(1, 1, 2, 3"),
        ("label", [[0], [0, 1]], r"^labels are lists of different lengths"),
        ("depth", RAGGED, "^maps are lists of different lengths"),
        ("low_resolution", RAGGED, "^small pictures are lists of different lengths"),
        ("coordinates", RAGGED, "^coordinates are lists of different lengths"),
        ("boxes", {"boxes": RAGGED, "box_classes": [[0]]}, "^boxes are lists of diff"),
        ("boxes", BOXES | {"box_classes": RAGGED}, "^classes of boxes are lists of"),
    ],
)
def test_what_a_prior_cannot_be_told_is_said(condition, given, message):
    with pytest.raises(ValueError, match=message):
        made(condition).checked(given)


@pytest.mark.parametrize(
    ("condition", "changes", "message"),
    [
        ("label", {"class_names": ()}, "'label', and these data have no classes"),
        ("depth", {"tokenizer": None}, "needs a tokenizer of depth: train it with"),
        ("edges", {}, "tokenizer is for depth: set prior.condition='depth'"),
        ("depth", {"shapes": {"image": (8, 8, 3)}}, "reads 'depth' .* have image"),
        ({"name": "depth", "side": 6}, {}, "one code of 4: set side to a multiple"),
        ({"name": "low_resolution", "side": 3}, {}, "do not divide into side=3"),
        ({"name": "low_resolution", "levels": 1}, {}, "at least 1 pixel and 2 levels"),
        ({"name": "direct_depth"}, {}, "has levels=None: say how many values"),
        (DIRECT | {"side": 3}, {}, "maps of 8 pixels do not divide into side=3"),
        (DIRECT, {"shapes": {"image": (8, 8, 3)}}, "reads 'depth' .* have image"),
        ("coordinates", {"crops": True}, "crops these pictures at random"),
        ({"name": "boxes", "vocabulary": 3}, {}, "take at least 5"),
    ],
)
def test_what_data_do_not_give_is_said(condition, changes, message):
    with pytest.raises(ValueError, match=message):
        made(condition, about(**changes))


def test_conditions_are_had_again_from_what_a_run_remembers():
    names = ["label", "depth", "low_resolution", "coordinates", "boxes", "keypoints"]
    names += [DIRECT]
    conditions = conditions_for(names, about())
    facts = json.loads(json.dumps(as_facts(conditions)))
    assert from_facts(facts, mean_of_quarters) == conditions
    assert from_facts(facts, mean_of_quarters)["depth"].encode is mean_of_quarters


def test_conditions_together_have_tokens_of_their_own_one_after_the_other():
    told = conditions_for(["label", "depth"], about())
    vocabulary = Vocabulary(codes=100, told=told)
    asked = {"label": np.array([1]), "depth": np.ones((1, 8, 8, 1), np.float32)}
    tokens = vocabulary.asked_tokens(vocabulary.checked(asked), 3.5)
    assert_array_equal(tokens, [[101, 109, 109, 109, 109]])
    assert (vocabulary.size, vocabulary.nothing, vocabulary.length) == (111, 110, 5)
    assert_array_equal(vocabulary.no_label(1), [[110] * 5])
    assert vocabulary.classes == 2


def test_what_lies_on_the_picture_is_known_by_rows_and_columns():
    told = conditions_for(["label", "boxes", "depth"], about())
    first = 1 + told["boxes"].length
    assert Vocabulary(100, told=told).grids == ((0, 1, 1), (first, 2, 2))
    assert Vocabulary(100, told=conditions_for("boxes", about())).grids == ()


def test_the_paper_s_conditions_share_the_codes_tokens():
    told = conditions_for("depth", about())
    vocabulary = Vocabulary(codes=100, shared=True, told=told)
    asked = {"depth": np.ones((1, 8, 8, 1), np.float32)}
    assert_array_equal(vocabulary.asked_tokens(asked, 3.5), [[7, 7, 7, 7]])
    with pytest.raises(ValueError, match="8 condition tokens with 7 codes"):
        Vocabulary(codes=7, shared=True, told=told)


def test_conditions_together_are_of_equally_many_pictures():
    vocabulary = Vocabulary(100, told=conditions_for(["label", "depth"], about()))
    asked = {"label": np.array([1, 0]), "depth": np.ones((1, 8, 8, 1), np.float32)}
    with pytest.raises(ValueError, match=r"how many pictures\? label 2, depth 1"):
        vocabulary.checked(asked)


def test_of_conditions_together_each_is_given():
    vocabulary = Vocabulary(100, told=conditions_for(["label", "depth"], about()))
    for given in (None, np.array([1]), {"label": np.array([1])}):
        with pytest.raises(ValueError, match="label and depth together, as a dict"):
            vocabulary.checked(given)
    with pytest.raises(ValueError, match=r"told depth, and was not: give condition="):
        vocabulary.checked({"label": np.array([1]), "depth": None})
