"""Quantities that change with the step, against the original's schedules."""

import numpy as np
import pytest
from golden import golden
from numpy.testing import assert_allclose

from taming_jax.models.schedules import warm_up_cosine

CASE = golden("12_schedules_windows")


@pytest.mark.parametrize("number", range(len(CASE.config["schedulers"])))
def test_warm_up_and_half_a_cosine_are_the_original_s(number):
    said = CASE.config["schedulers"][number]
    found = [
        warm_up_cosine(
            int(step),
            [said[name] for name in ("lr_start", "lr_max", "lr_min")],
            [said[name] for name in ("warm_up_steps", "max_decay_steps")],
        )
        for step in CASE.inputs["steps"]
    ]
    # float32 here; near the end of the cosine its argument's rounding is what is left.
    assert_allclose(np.stack(found), CASE.outputs[f"schedule_{number}"], rtol=1e-5)
