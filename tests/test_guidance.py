"""Schedules of guidance: numbers by hand. LlamaGen's interval: models/test_llamagen."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.guidance import RAR_POWER, guidance_of


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [5, 5, 5, 5]),
        ("linear", [1, 1 + 4 / 3, 1 + 8 / 3, 5]),
        # (1 - cos(pi x)) / 2 at x = 0, 1/4, 1/2, 3/4.
        ("power-cosine:1", [1, 3 - 2**0.5, 3, 3 + 2**0.5]),
        # The same at x^2 = 0, 1/16, 1/4, 9/16: cosines .980785, .707107, -.195090.
        ("power-cosine:2", [1, 1.038429, 3 - 2**0.5, 3.390181]),
        ("interval:0", [5, 5, 1, 1]),
        ("interval:1", [5, 5, 5, 1]),
        ("interval:64", [5, 5, 5, 5]),
        ("interval:-1", [5, 5, 5, 5]),
    ],
)
def test_guidance_of_5_at_four_places(schedule, expected):
    found = guidance_of(5.0, schedule, 4)
    assert found.dtype == np.float32
    assert_allclose(found, expected, rtol=1e-6)


def test_the_power_is_that_of_rar_b_where_none_is_said():
    assert RAR_POWER == 2.75
    said, unsaid = (guidance_of(16, f"power-cosine{p}", 256) for p in (":2.75", ""))
    assert_array_equal(said, unsaid)
    # Place 128 of 256: 2^-2.75 = .148651, and 1 + 15 (1 - cos(.148651 pi)) / 2.
    assert_allclose(unsaid[128], 1.803080, rtol=1e-5)


@pytest.mark.parametrize(
    "schedule", ["constant", "linear", "power-cosine", "interval:3"]
)
def test_a_guidance_of_1_is_none_and_one_place_is_enough(schedule):
    assert_array_equal(guidance_of(1.0, schedule, 6), np.ones(6))
    assert 1 <= guidance_of(3.0, schedule, 1)[0] <= 3


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("steep", r"'steep': there are constant, linear, power-cosine\[:POWER\], int"),
        ("constant:2", r"'constant:2': there are constant, "),
        (None, "None: there are constant"),
        ("interval", "'interval': N of interval:N is a whole number from -1 on"),
        ("interval:", "N of interval:N is a whole number"),
        ("interval:2.5", "'interval:2.5': N of"),
        ("interval:inf", "'interval:inf': N of"),
        ("interval:-2", "from -1 on"),
        ("power-cosine:0", "POWER of power-cosine:POWER is above 0"),
        ("power-cosine:nan", "above 0"),
        ("power-cosine:much", "above 0"),
    ],
)
def test_a_schedule_that_there_is_not_is_refused(schedule, message):
    with pytest.raises(ValueError, match=message):
        guidance_of(2.0, schedule, 4)
