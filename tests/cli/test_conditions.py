"""What `sample` is asked for by files: read, of which size, and what is refused."""

import json
import types

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from taming_jax.cli.conditions import asked_for
from taming_jax.conditions.coordinates import coordinates
from taming_jax.conditions.direct import Coordinates, LowResolution
from taming_jax.conditions.direct_maps import DirectMap
from taming_jax.conditions.objects import Boxes, Keypoints
from taming_jax.data import read_square
from taming_jax.maps import Input
from taming_jax.units import from_uint8
from taming_jax.windows import Windows

SIDE, STRIDE = 16, 4
BOXES = Boxes(("disc", "star"), objects=4)
KEYPOINTS = Keypoints(objects=4, points=2)


def prior_of(published="", given=None, about=types.MappingProxyType({}), **told):
    """As much of a prior as reading what it is told takes.

    published: what a published one is told, as tokens; given: by a tokenizer of these.
    """
    module = types.SimpleNamespace(image_channels=3)
    tokenizer = types.SimpleNamespace(input=given, module=module)
    return types.SimpleNamespace(
        vocabulary=types.SimpleNamespace(told=told),
        condition_vqgan=tokenizer if given else None,
        tokenizer=lambda: types.SimpleNamespace(stride=STRIDE),
        told=published,
        about=about,
        config={"prior": {"condition": "tokens" if published else "none"}},
        directory="runs/own",
        grid=(4, 4),
    )


TOLD_PICTURES = prior_of("picture", Input())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A directory with two pictures of noise, one of them twice as large."""
    place, draw = tmp_path_factory.mktemp("given"), np.random.default_rng(0)
    for name, side in (("a", 16), ("b", 32)):
        noise = draw.integers(0, 256, (side, side, 3)).astype(np.uint8)
        Image.fromarray(noise).save(place / f"{name}.png")
    return place


@pytest.mark.parametrize(
    ("condition", "count", "rows"),
    [("", 2, "ab"), ("", 1, "ab"), ("b.png", 3, "bbb")],
)
def test_conditions_go_with_pictures_in_their_order(pictures, condition, count, rows):
    asked = asked_for("all", pictures / condition, TOLD_PICTURES, pictures=count)
    expected = [read_square(pictures / f"{name}.png", SIDE) for name in rows]
    assert_array_equal(asked["picture"], from_uint8(np.stack(expected)))


def test_conditions_that_do_not_go_with_the_pictures_are_refused(pictures):
    with pytest.raises(ValueError, match="2 files and --given 3 pictures"):
        asked_for("all", pictures, TOLD_PICTURES, pictures=3)


# Maps and small pictures


def class_map(path, height, width):
    values = np.arange(height * width, dtype=np.uint8).reshape(height, width) % 5
    Image.fromarray(values).save(path)
    return values


def test_a_map_of_another_size_is_told_by_its_nearest_pixels(tmp_path):
    whole = class_map(tmp_path / "map.png", 24, 48)
    kind = DirectMap(("segmentation", False), SIDE, side=4, levels=5)
    prior = prior_of(segmentation=kind)
    asked = asked_for("all", tmp_path / "map.png", prior, shape=(2, 4))
    assert_array_equal(asked["segmentation"][0], whole[1::3, 1::3])


@pytest.mark.parametrize(
    "prior",
    [
        prior_of(segmentation=DirectMap(("segmentation", False), SIDE, 4, levels=4)),
        prior_of("segmentation", Input("segmentation")),  # of 3 classes
    ],
)
def test_of_many_class_maps_the_one_with_other_classes_is_named(tmp_path, prior):
    for name in "abz":
        class_map(tmp_path / f"{name}.png", 16, 16)
    for name in "ab":
        Image.new("L", (16, 16)).save(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match=r"z\.png: .* below [34]; .* from 0 to 4"):
        asked_for("all", tmp_path, prior)


@pytest.mark.parametrize("shape", [(4, 4), (4, 8)])
@pytest.mark.parametrize("name", ["segmentation", "low_resolution"])
def test_a_map_or_picture_of_other_proportions_is_refused(tmp_path, name, shape):
    class_map(tmp_path / "map.png", 20, 32)
    direct = DirectMap(("segmentation", False), SIDE, side=4, levels=5)
    told = {"segmentation": direct, "low_resolution": LowResolution(side=4)}
    message = r"map.png has 20 x 32 pixels and what is drawn for it 16 x (16|32): a con"
    with pytest.raises(ValueError, match=message):
        asked_for("all", tmp_path, prior_of(**{name: told[name]}), shape=shape)


def test_sides_that_are_off_by_less_than_a_pixel_are_proportions_all_the_same(tmp_path):
    class_map(tmp_path / "map.png", 33, 66)
    Image.open(tmp_path / "map.png").resize((67, 33)).save(tmp_path / "map.png")
    kind = DirectMap(("segmentation", False), SIDE, side=4, levels=5)
    prior = prior_of(segmentation=kind)
    asked = asked_for("all", tmp_path / "map.png", prior, shape=(2, 4))
    assert asked["segmentation"].shape == (1, 8, 16)


# Coordinates


@pytest.mark.parametrize("shape", [None, (6, 8)])
def test_coordinates_are_those_of_a_whole_picture_where_no_file_is_given(shape):
    prior = prior_of(coordinates=Coordinates(SIDE, STRIDE))
    asked = asked_for("all", None, prior, shape=shape)
    sides = [STRIDE * side for side in shape or prior.grid]
    assert_array_equal(asked["coordinates"], coordinates(*sides)[None])


def test_coordinates_in_a_file_are_called_so(tmp_path):
    place, values = tmp_path / "a.json", coordinates(SIDE, SIDE)
    prior = prior_of(coordinates=Coordinates(SIDE, STRIDE))
    place.write_text(json.dumps({"coordinates": values.tolist()}))
    assert_array_equal(asked_for("all", place, prior)["coordinates"], values[None])
    place.write_text(json.dumps({"coordinates": values[:8].tolist()}))
    with pytest.raises(
        ValueError, match=r"are numbers \[16, 16\], and these are 8 x 16"
    ):
        asked_for("all", place, prior)


# Objects


def test_files_have_objects_of_their_own_number(tmp_path):
    two = {"boxes": [[0, 0, 1, 1], [0, 0, 0.5, 1]], "box_classes": [1, 0]}
    for name, given in {"a": two, "b": {"boxes": [], "box_classes": []}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(given))
    asked = asked_for("all", tmp_path, prior_of(boxes=BOXES))["boxes"]
    assert_array_equal(asked["box_classes"], [[1, 0], [-1, -1]])
    assert BOXES.checked(asked)["boxes"].shape == (2, 2, 4)


CROPPED = Boxes(("disc", "star"), objects=4, crop=True)
ONE = {"boxes": [[0, 0, 1, 1]], "box_classes": [0]}


def test_a_file_says_what_is_seen_of_the_whole_or_all_is(tmp_path):
    none = {"boxes": [], "box_classes": [], "crop": [0.5, 0, 1, 0.5]}
    for name, given in {"a": ONE, "b": none}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(given))
    asked = asked_for("all", tmp_path, prior_of(boxes=CROPPED))["boxes"]
    assert_array_equal(asked["crop"], [[0, 0, 1, 1], [0.5, 0, 1, 0.5]])
    assert_array_equal(asked["box_classes"], [[0], [-1]])
    assert_array_equal(CROPPED.checked(asked)["crop"], asked["crop"])


@pytest.mark.parametrize(
    ("crop", "message"),
    [
        ([0, 0, 1], r"crop are numbers \[4\], and these are 3 of"),
        ([[0, 0, 1, 1]], r"crop are numbers \[4\], and these are 1 x 4 of"),
        ([], r"crop are numbers \[4\], and these are 0 of"),
        ("all", r"crop are numbers \[4\], and these are one of type <U3"),
        (None, r"crop are numbers \[4\], and these are one of type object"),
    ],
)
def test_a_crop_in_a_file_is_four_numbers(tmp_path, crop, message):
    (tmp_path / "asked.json").write_text(json.dumps(ONE | {"crop": crop}))
    with pytest.raises(ValueError, match=rf"asked\.json: {message}"):
        asked_for("all", tmp_path / "asked.json", prior_of(boxes=CROPPED))


def test_a_crop_is_refused_by_a_prior_that_is_told_none(tmp_path):
    (tmp_path / "asked.json").write_text(json.dumps(ONE | {"crop": [0, 0, 1, 1]}))
    with pytest.raises(ValueError, match=r"asked\.json has a crop, and this prior"):
        asked_for("all", tmp_path / "asked.json", prior_of(boxes=BOXES))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("[", "cannot be read .*: give JSON with boxes, box_classes"),
        ("[1]", "cannot be read .*: give JSON with boxes, box_classes"),
        ({"boxes": [[0, 0, 1, 1]]}, "cannot be read .*'box_classes'"),
        ({"boxes": 3, "box_classes": 4}, r"boxes are numbers \[N, 4\], .* one of type"),
        ({"boxes": [[0, 0, 1]], "box_classes": [0]}, r"\[N, 4\], and these are 1 x 3"),
        ({"boxes": "all", "box_classes": [0]}, r"boxes are numbers .* type <U3"),
        ({"boxes": [["a"] * 4], "box_classes": [0]}, "boxes are numbers .* 1 x 4 of"),
        ({"boxes": None, "box_classes": None}, "boxes are numbers .* type object"),
        ({"boxes": [[0, 0, 1, None]], "box_classes": [0]}, "boxes are .* type object"),
        ({"boxes": [[0, 0, 1, 1], [0]], "box_classes": [0]}, "cannot be read"),
        ({"boxes": [[0, 0, 1, 1]], "box_classes": [0.5]}, "box_classes are whole numb"),
        ({"boxes": [[0, 0, 1, 1]], "box_classes": ["a"]}, "box_classes are whole numb"),
        ({"boxes": [[0, 0, 1, 1]], "box_classes": 0}, r"box_classes are .* \[N\], and"),
        (
            {"boxes": [[0, 0, 1, 1]] * 2, "box_classes": [0]},
            "2 boxes, 1 box_classes: give one of each for every object",
        ),
        ({"boxes": [], "box_classes": [0]}, "0 boxes, 1 box_classes"),
    ],
)
def test_objects_that_cannot_be_are_refused(tmp_path, given, message):
    place = tmp_path / "asked.json"
    place.write_text(given if isinstance(given, str) else json.dumps(given))
    with pytest.raises(ValueError, match=rf"asked\.json.*{message}"):
        asked_for("all", place, prior_of(boxes=BOXES))


def write(place, **files):
    for name, given in files.items():
        (place / f"{name}.json").write_text(json.dumps(given))


OUTSIDE = {"boxes": [[0.1, 0.1, 0.5, 1.5]], "box_classes": [0]}
MANY = {"boxes": [[0, 0, 1, 1]] * 5, "box_classes": [0] * 5}
LOW, HIGH = ({"coordinates": np.full((SIDE, SIDE), end).tolist()} for end in (0, 1.5))


@pytest.mark.parametrize(
    ("kind", "right", "wrong", "message"),
    [
        ({"boxes": BOXES}, ONE, OUTSIDE, "are relative to the picture"),
        ({"boxes": BOXES}, ONE, MANY, "5 objects in a picture, and .* told 4"),
        (
            {"boxes": CROPPED},
            ONE,
            ONE | {"crop": [0.5, 0, 0.25, 1]},
            "crop",
        ),
        (
            {"keypoints": KEYPOINTS},
            {"keypoints": [[[0.5, 0.5, 1]] * 2]},
            {"keypoints": [[[0.5, 1.5, 1]] * 2]},
            "in sight reach from 0.5 to 1.5",
        ),
        ({"coordinates": Coordinates(SIDE, STRIDE)}, LOW, HIGH, "from 1.5 to 1.5"),
    ],
)
def test_of_many_files_the_one_that_is_wrong_is_named(
    tmp_path, kind, right, wrong, message
):
    write(tmp_path, a=right, b=right, z=wrong)
    with pytest.raises(ValueError, match=rf"z\.json: .*{message}"):
        asked_for("all", tmp_path, prior_of(**kind))


def test_windows_are_told_of_more_objects_than_there_are_places_for(tmp_path):
    write(tmp_path, a=ONE, b=MANY, z=OUTSIDE)
    how = {"shape": (8, 8), "windows": Windows((8, 8), (4, 4))}
    prior = prior_of(boxes=BOXES)
    with pytest.raises(ValueError, match=r"z\.json: "):
        asked_for("all", tmp_path, prior, **how)
    (tmp_path / "z.json").unlink()
    assert asked_for("all", tmp_path, prior, **how)["boxes"]["boxes"].shape == (2, 5, 4)


@pytest.mark.parametrize("given", [3, "a", None, [[0, 0, 1]], [[[0, 0]]], {"a": 1}])
def test_keypoints_that_cannot_be_are_refused(tmp_path, given):
    (tmp_path / "asked.json").write_text(json.dumps({"keypoints": given}))
    with pytest.raises(ValueError, match=r"keypoints are numbers \[N, 2, 3\], and"):
        asked_for("all", tmp_path / "asked.json", prior_of(keypoints=KEYPOINTS))


# Published priors, which are told tokens


@pytest.mark.parametrize("condition", [None, "a.json"])
def test_what_no_file_says_goes_in_by_load_prior(condition):
    with pytest.raises(
        ValueError, match=r"objects_bbox as tokens.* load_prior\(...\).s"
    ):
        asked_for("all", condition, prior_of("objects_bbox"))


def test_coordinates_that_a_published_prior_is_told_are_those_of_a_whole_picture():
    """What comes before the pixels of a place, on average, in 64 steps."""
    prior = prior_of("coord", about={"steps": 64})
    asked = asked_for("all", None, prior, shape=(8, 4))["coord"]
    across, down = np.arange(4) * STRIDE + 1.5, np.arange(8) * STRIDE + 1.5
    shares = (down[:, None] * SIDE + across) / (32 * SIDE)
    assert_array_equal(asked, np.round(64 * shares)[None])
    with pytest.raises(ValueError, match=r"without --condition they are those of a wh"):
        asked_for("all", "a.json", prior)


def test_a_map_that_a_published_prior_is_told_has_to_be_given():
    with pytest.raises(ValueError, match=r"is told depth: give --condition FILE\|DIR"):
        asked_for("all", None, prior_of("depth", Input("depth")))
