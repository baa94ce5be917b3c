"""Quantities that change with the step, against the original's schedules."""

import jax
import numpy as np
import pytest
from golden import golden
from numpy.testing import assert_allclose

from taming_jax.models.schedules import warm_up_cosine

CASE = golden("12_schedules_windows")


@pytest.mark.parametrize("number", range(len(CASE.config["schedulers"])))
def test_warm_up_and_half_a_cosine_are_the_original_s(number):
    said = CASE.config["schedulers"][number]
    values = [said[name] for name in ("lr_start", "lr_max", "lr_min")]
    ends = [said[name] for name in ("warm_up_steps", "max_decay_steps")]

    def found():
        steps = CASE.inputs["steps"].tolist()
        return np.stack([warm_up_cosine(step, values, ends) for step in steps])

    expected = CASE.outputs[f"schedule_{number}"]
    with jax.enable_x64(True):
        assert_allclose(found(), expected, rtol=1e-12)
    # float32; near the end of the cosine its argument's rounding is what is left.
    assert_allclose(found(), expected, rtol=1e-5)
