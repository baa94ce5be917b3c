"""Where windows lie, against the original's scripts place by place, and their order."""

import numpy as np
import pytest
from golden import golden
from numpy.testing import assert_array_equal

from taming_jax.conditions.windows import window_box
from taming_jax.windows import Windows
from taming_jax.windows.places import lengths, rounded_up, runs, schedule, waves

TRACES = golden("12_schedules_windows")
CASES = [(case["W"], tuple(case["grid"])) for case in TRACES.config["windows"]]
SCENES = [(case["W"], tuple(case["grid"])) for case in TRACES.config["scene"]]


def windows_of(side, shape, **settings):
    return Windows(shape, (side, side), **settings)


def scene(side, shape, name):
    return TRACES.outputs[f"scene_W{side}_{shape[0]}x{shape[1]}/{name}"]


@pytest.mark.parametrize(("side", "shape"), CASES)
def test_windows_are_the_sampling_script_s(side, shape):
    trace = TRACES.outputs[f"W{side}_{shape[0]}x{shape[1]}/trace"]
    row, column, *local, top, bottom, left, right = trace[:, :8].T
    tops, lefts = windows_of(side, shape).origins
    assert_array_equal(tops[row], top)
    assert_array_equal(lefts[column], left)
    assert_array_equal([row - tops[row], column - lefts[column]], local)
    assert_array_equal([bottom - top, right - left], np.full((2, len(trace)), side))


@pytest.mark.parametrize(("side", "shape"), CASES)
def test_codes_by_what_windows_show_are_the_sampling_script_s(side, shape):
    """Its stand-in for a model hangs on every token up to the place that is drawn."""
    name, sizes = f"W{side}_{shape[0]}x{shape[1]}", TRACES.config["V"]
    condition, codes = TRACES.inputs[f"{name}/cond"], np.zeros(shape, int)
    tops, lefts = windows_of(side, shape).origins
    for row, column in np.ndindex(shape):
        window = np.s_[
            tops[row] : tops[row] + side, lefts[column] : lefts[column] + side
        ]
        tokens = np.concatenate([condition[window].ravel(), codes[window].ravel()])
        last = side**2 - 1 + (row - tops[row]) * side + column - lefts[column]
        weighed = np.arange(1, last + 2) * tokens[: last + 1]
        codes[row, column] = (weighed.sum() + 7 * last) % sizes
    assert_array_equal(codes, TRACES.outputs[f"{name}/final"])
    assert_array_equal(codes.ravel(), TRACES.outputs[f"{name}/trace"][:, 8])


@pytest.mark.parametrize(("side", "shape"), SCENES)
def test_with_one_less_before_the_place_they_are_the_scene_script_s(side, shape):
    center = ((side - 1) // 2,) * 2
    tops, lefts = windows_of(side, shape, center=center).origins
    row, column, left, top = scene(side, shape, "y_x_x0_y0").T
    assert_array_equal(tops[row], top)
    assert_array_equal(lefts[column], left)


@pytest.mark.parametrize(("side", "shape"), SCENES)
def test_a_place_s_context_is_what_its_window_shows_before_it(side, shape):
    windows = windows_of(side, shape, center=((side - 1) // 2,) * 2)
    steps = schedule(windows, at_once=1)
    order = np.lexsort((steps.blocks[:, 0], steps.rows[:, 0]))  # by rows
    before = lengths(windows, steps)[order, 0]
    assert_array_equal(before, scene(side, shape, "context_len"))
    tops, lefts = windows.origins
    numbers, sums = np.arange(np.prod(shape)).reshape(shape), []
    for (row, column), count in zip(np.ndindex(shape), before, strict=True):
        top, left = tops[row], lefts[column]
        seen = numbers[top : top + side, left : left + side].ravel()[:count]
        sums.append(np.arange(1, count + 1) @ seen)
    assert_array_equal(sums, scene(side, shape, "context_checksum"))


@pytest.mark.parametrize(("side", "shape"), SCENES)
def test_windows_are_said_as_the_scene_script_s_crops(side, shape):
    _, _, left, top = scene(side, shape, "y_x_x0_y0").T
    boxes = [window_box(*at, shape, (side, side)) for at in zip(top, left, strict=True)]
    # float32 here, float64 there.
    np.testing.assert_allclose(boxes, scene(side, shape, "crop_box"), rtol=1e-6)


def test_windows_of_half_a_picture_move_not_at_all_along_the_other_half():
    tops, lefts = Windows((8, 20), (8, 16)).origins
    assert_array_equal(tops, np.zeros(8))
    assert_array_equal(lefts, [*np.zeros(9), 1, 2, 3, 4, *np.full(7, 4)])


@pytest.mark.parametrize("stride", range(1, 8))
@pytest.mark.parametrize("shape", [(7, 7), (9, 16), (21, 10)])
def test_a_block_lies_in_its_window_and_that_in_the_picture(shape, stride):
    windows = windows_of(7, shape, stride=stride)
    for size, start in zip(shape, windows.origins, strict=True):
        first = np.arange(0, size, stride)
        last = np.minimum(first + stride, size) - 1
        assert (start >= 0).all()
        assert (start <= first).all()
        assert (last < start + 7).all()
        assert (start + 7 <= size).all()


def test_a_large_picture_takes_a_quarter_of_the_steps():
    windows = windows_of(16, (64, 64))
    assert waves(windows).max() + 1 == 1072
    assert 64 * 64 / len(schedule(windows).rows) > 3.5


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("at_once", [1, 2, 16])
def test_a_unit_is_drawn_once_and_after_all_that_its_window_shows(stride, at_once):
    windows = windows_of(5, (9, 12), stride=stride)
    when = check_order(windows, None, at_once)
    assert (when >= 0).all()


@pytest.mark.parametrize("stride", [1, 3])
def test_what_is_given_is_not_waited_for(stride):
    """Of a picture whose upper half is given, only the lower one is drawn."""
    windows, drawn = windows_of(5, (9, 12), stride=stride), np.ones((9, 12), bool)
    drawn[:5] = drawn[7, :3] = False
    when = check_order(windows, drawn, 16)
    assert_array_equal((when >= 0)[drawn], True)
    assert_array_equal(when[: 5 // stride * stride], -1)
    assert when.max() < check_order(windows, None, 16).max() / 1.5


def test_nothing_to_draw_is_no_step():
    windows = windows_of(4, (6, 6))
    assert len(schedule(windows, np.zeros((6, 6), bool)).rows) == 0


def check_order(windows, drawn, at_once):
    """The step of each place, int [h,w], -1 of none; fails if one comes too soon."""
    stride, steps = windows.stride, schedule(windows, drawn, at_once)
    assert steps.rows.shape[1] <= at_once
    when = np.full(windows.shape, -1)
    for number, (rows, blocks) in enumerate(zip(*steps[:2], strict=True)):
        for row, block in zip(rows[rows >= 0], blocks[rows >= 0], strict=True):
            unit = when[row, block * stride : (block + 1) * stride]
            assert (unit == -1).all()
            unit[:] = number
    tops, lefts = windows.origins
    for row, column in np.argwhere(when >= 0):
        top, left = tops[row // stride], lefts[column // stride]
        first = column // stride * stride
        above = when[top:row, left : left + windows.window[1]]
        assert above.max(initial=-1) < when[row, column]
        assert when[row, left:first].max(initial=-1) < when[row, column]
    return when


def test_lengths_become_few_at_the_least_cost():
    """Against all ways to choose three out of seven."""
    numbers = np.random.default_rng(0).choice([1, 2, 5, 9, 10, 30, 31], 60)
    found = rounded_up(numbers, 3)
    values = np.unique(numbers)
    costs = [
        sum(min(t for t in (a, b, values[-1]) if t >= n) for n in numbers)
        for a in values
        for b in values
    ]
    assert len(np.unique(found)) == 3
    assert (found >= numbers).all()
    assert found.sum() == min(costs)


def test_runs_are_stretches_of_equal_numbers():
    assert runs(np.array([7, 7, 2, 7])) == [(7, 0, 2), (2, 2, 3), (7, 3, 4)]


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_what_is_given_never_takes_more_steps_than_there_is_room_for(stride):
    """No more waves than all codes take, and one step of each that is not full."""
    windows, draws = Windows((9, 11), (4, 4), stride), np.random.default_rng(stride)
    every = schedule(windows)
    most = every.rows.shape[1]
    for share in (0.02, 0.2, 0.5, 0.9):
        drawn = draws.uniform(size=(9, 11)) < share
        steps = schedule(windows, drawn, most)
        units = int((steps.rows >= 0).sum())
        assert len(steps.rows) <= len(every.rows) + units // most
