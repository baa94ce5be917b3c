"""What a recipe cannot ask for, and maps with classes that are not told."""

from dataclasses import fields

import numpy as np
import pytest

from taming_jax.conditions import CONDITIONS
from taming_jax.conditions.direct_maps import DirectMap
from taming_jax.conditions.kinds import CodedMap, Data
from taming_jax.conditions.on_disk import beside, written
from taming_jax.conditions.table import check_classes, requested


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("pose", "condition='pose' is not allowed: it must be one of label, .*tokens"),
        ({"name": "depth", "width": 8}, "no option 'width': it has side"),
        ({"name": "label", "width": 8}, "no option 'width': it has none"),
        (["label", "label"], "name at least one, each once"),
        ([], "name at least one, each once"),
        (["depth", "edges"], "only one of segmentation, depth, edges"),
        (["label", "none"], "is not allowed"),
    ],
)
def test_what_a_recipe_cannot_ask_for_is_said(condition, message):
    with pytest.raises(ValueError, match=message):
        requested(condition)


OPTIONS = [
    (name, option, {field.name: field.type for field in fields(kind)}[option])
    for name, kind in CONDITIONS.items()
    for option in kind.options
]
COUNTS = [(name, option) for name, option, kind in OPTIONS if kind is int]
SWITCHES = [(name, option) for name, option, kind in OPTIONS if kind is bool]


def test_an_option_is_a_count_or_a_switch():
    assert len(COUNTS) + len(SWITCHES) == len(OPTIONS)
    assert ("low_resolution", "degraded") in SWITCHES


@pytest.mark.parametrize("value", [0, -3, 2.5, "x", True, None])
@pytest.mark.parametrize(("name", "option"), COUNTS)
def test_a_count_is_a_whole_number_of_at_least_1(name, option, value):
    message = rf"'{name}' has {option}={value!r}: give a whole number of at least 1"
    with pytest.raises(ValueError, match=message):
        requested({"name": name, option: value})


@pytest.mark.parametrize(("name", "option"), COUNTS)
def test_a_count_is_taken_as_it_is(name, option):
    assert requested({"name": name, option: 4}) == ((name, {option: 4}),)


@pytest.mark.parametrize("value", [1, "yes", None])
@pytest.mark.parametrize(("name", "option"), SWITCHES)
def test_a_switch_is_true_or_false(name, option, value):
    with pytest.raises(ValueError, match=rf"{option}={value!r}: give True or False"):
        requested({"name": name, option: value})
    assert requested({"name": name, option: True}) == ((name, {option: True}),)


CODED = CodedMap(("segmentation", False), 8, 8, 4, 16, channels=3)
DIRECT = DirectMap(("segmentation", False), 8, side=2, levels=3)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (np.full((1, 8, 8), 3), r"int64 \(1, 8, 8\) from 3 to 3"),
        (np.full((1, 8, 8), -1), r"from -1 to -1"),
        (np.zeros((1, 8, 8), np.float32), r"float32 \(1, 8, 8\) from 0 to 0"),
        (np.zeros((1, 4, 4), int), r"\(1, 4, 4\)"),
    ],
)
@pytest.mark.parametrize("kind", [CODED, DIRECT], ids=["coded", "direct"])
def test_class_maps_are_integers_below_the_number_of_classes(kind, given, found):
    wanted = rf"class maps int32 \[B, 8, 8\] below 3; the condition is .*{found}"
    with pytest.raises(ValueError, match=wanted):
        kind.checked(given)


MAPS = np.zeros((2, 8, 8), np.int32)
MAPS[1, 3, 3] = 4
BATCH = {"segmentation": MAPS, "index": np.array([5, 7])}


@pytest.mark.parametrize(("coded", "direct"), [(5, 4), (4, 5)])
def test_of_two_kinds_of_class_maps_each_has_classes_of_its_own(coded, direct):
    told = {
        "segmentation": CodedMap(("segmentation", False), 8, 8, 4, 16, coded),
        "direct_segmentation": DirectMap(("segmentation", False), 8, 2, direct),
    }
    which = "direct_segmentation" if direct < coded else "segmentation"
    message = rf"from 0 to 4 \(pictures \[7\]\).* classes 0 to 3 by {which}: mend"
    with pytest.raises(ValueError, match=message):
        check_classes(told, BATCH)


def test_a_class_that_is_not_told_is_not_written_as_another_condition_s_token():
    data = Data(image_size=8, stride=4, shapes={"segmentation": (8, 8)})
    four, five = (
        beside({"name": "direct_segmentation", "levels": levels}, data)
        for levels in (4, 5)
    )
    with pytest.raises(ValueError, match=r"pictures \[7\].* classes 0 to 3"):
        written(four, BATCH)
    assert written(five, BATCH)["direct_segmentation_tokens"].shape == (2, 4)
