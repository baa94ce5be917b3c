"""Orders of the grid's places, against the buffers of the original's permuters."""

import numpy as np
import pytest
from golden import golden
from numpy.testing import assert_array_equal

from taming_jax.conditions import codes_of, image_tokens
from taming_jax.orders import ORDERS, is_raster, make_order

CASE = golden("10_permuters")
THEIRS = {
    "subsample": "Subsample",
    "z_curve": "ZCurve",
    "spiral_out": "SpiralOut",
    "spiral_in": "SpiralIn",
    "random": "Random",
    "alternate": "AlternateParsing",
}
SIZES = (4, 8, 16)
# One row, one column, odd sides, sides that are no powers of two.
GRIDS = ((1, 1), (1, 5), (4, 1), (3, 3), (5, 7), (6, 4), (16, 16))


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("size", SIZES)
def test_orders_are_the_originals(name, size):
    order = make_order(name, (size, size))
    expected = CASE.outputs[f"{THEIRS[name]}_{size}x{size}/forward_shuffle_idx"]
    assert_array_equal(order, expected)


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("size", SIZES)
def test_tokens_go_there_and_back_as_the_originals(name, size):
    key, order = f"{THEIRS[name]}_{size}x{size}", make_order(name, (size, size))
    codes = CASE.inputs[key].reshape(-1, size, size).astype(np.int32)
    tokens = image_tokens(codes, order)
    assert_array_equal(tokens, CASE.outputs[f"{key}/forward"])
    assert_array_equal(codes_of(tokens, (size, size), order), codes)
    back = codes_of(codes.reshape(len(codes), -1), (size, size), order)
    assert_array_equal(back.reshape(len(codes), -1), CASE.outputs[f"{key}/reverse"])


def test_raster_is_the_originals_identity():
    tokens = CASE.inputs["Identity"]
    order = make_order("raster", (1, tokens.shape[1]))
    assert is_raster(order)
    there = tokens[:, order]
    assert_array_equal(there, CASE.outputs["Identity/forward"])
    back = CASE.outputs["Identity/reverse"]
    assert_array_equal(codes_of(there, (1, tokens.shape[1]), order)[:, 0], back)


@pytest.mark.parametrize("name", sorted(set(ORDERS) - {"subsample"}))
@pytest.mark.parametrize("grid", GRIDS)
def test_every_place_comes_once_on_any_grid(name, grid):
    order = make_order(name, grid)
    assert order.dtype == np.int32
    assert_array_equal(np.sort(order), np.arange(grid[0] * grid[1]))


@pytest.mark.parametrize("name", ["spiral_in", "spiral_out", "alternate"])
@pytest.mark.parametrize("grid", GRIDS)
def test_walks_go_from_neighbour_to_neighbour(name, grid):
    rows, columns = np.divmod(make_order(name, grid), grid[1])
    steps = abs(np.diff(rows)) + abs(np.diff(columns))
    assert_array_equal(steps, 1)


def test_an_order_of_ones_own_is_taken_as_it_is():
    assert_array_equal(make_order([3, 1, 0, 2, 5, 4], (2, 3)), [3, 1, 0, 2, 5, 4])


@pytest.mark.parametrize(
    ("order", "grid", "message"),
    [
        ("spiral", (4, 4), "no order 'spiral'; did you mean 'spiral_in'.*raster, subs"),
        ("subsample", (6, 6), "halves a grid .* 6 x 6 does not come out even"),
        ("subsample", (4, 8), "4 x 8 does not come out even.*another order"),
        ([0, 1, 2], (2, 2), "3 places does not fit a grid of 2 x 2: .*0 to 3 once"),
        ([0, 1, 2, 2], (2, 2), "4 places does not fit a grid"),
        ([0.0, 1.0], (1, 2), "2 places does not fit a grid of 1 x 2"),
    ],
)
def test_what_does_not_fit_the_grid_is_said(order, grid, message):
    with pytest.raises(ValueError, match=message):
        make_order(order, grid)
