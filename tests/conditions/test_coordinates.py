"""Coordinates as tokens, against the original's CoordStage."""

import numpy as np
import pytest
from golden import golden
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.conditions.coordinates import coordinates, quantize, resized, restore
from taming_jax.conditions.direct import Coordinates

CASE = golden("11_coord_stage")
STRIDE, STEPS = CASE.config["params"]["down_factor"], CASE.config["params"]["n_embed"]


@pytest.mark.parametrize("name", ["ramp", "random", "ones", "ties"])
def test_the_original_s_tokens_and_what_they_say(name):
    tokens = quantize(CASE.inputs[name][:, 0], STRIDE, STEPS)
    assert_array_equal(tokens, CASE.outputs[f"{name}/indices"][:, 0])
    assert_array_equal(tokens, CASE.outputs[f"{name}/quant"][:, 0])
    said, expected = restore(tokens, STRIDE, STEPS), CASE.outputs[f"{name}/decoded"]
    assert_allclose(said, expected[:, 0], **CASE.tolerance(f"{name}/decoded"))


@pytest.mark.parametrize("side", [3, 5, 7, 9, 31])
def test_the_original_s_resizing(side):
    maps = np.moveaxis(CASE.inputs["resize"], 1, -1)
    expected = np.moveaxis(CASE.outputs[f"resize_nearest_{side}"], 1, -1)
    assert_array_equal(resized(maps, side), expected)


@pytest.mark.parametrize("side", CASE.config["downsample_cond_size"])
def test_the_original_s_smaller_conditions(side):
    """Its size -1 is that of the map."""
    maps = np.concatenate([CASE.inputs["ramp"], CASE.inputs["random"]])[:, 0]
    tokens = quantize(maps if side == -1 else resized(maps, side), STRIDE, STEPS)
    assert_array_equal(tokens, CASE.outputs[f"cond_{side}/quant"][:, 0])
    assert_array_equal(tokens.reshape(2, -1), CASE.outputs[f"cond_{side}/indices"])


def test_one_is_a_value_of_its_own():
    assert quantize(np.ones((1, 4, 4), np.float32), 4, 16).item() == 16


def test_one_can_be_said_as_the_last_value_below():
    """Where the paper's vocabulary has no more: of ties nothing else changes."""
    maps = np.stack([CASE.inputs[n][0, 0, :16, :16] for n in ("ramp", "ties", "ones")])
    with_one, without = (
        np.asarray(Coordinates(16, STRIDE, STEPS, one=one).tokens(maps))
        for one in (True, False)
    )
    assert_array_equal(with_one[:2], without[:2])
    assert_array_equal(with_one[2], STEPS)
    assert_array_equal(without[2], STEPS - 1)
    assert Coordinates(16, STRIDE, STEPS, one=False).size == STEPS


def test_coordinates_count_the_pixels_by_rows():
    assert_array_equal(coordinates(2, 4) * 8, [[0, 1, 2, 3], [4, 5, 6, 7]])
