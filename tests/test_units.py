"""Conversions of pictures, beside what the original's scripts make of them."""

import numpy as np
import pytest
from golden import golden

from taming_jax.units import to_uint8

CASE = golden("12_schedules_windows")


@pytest.mark.parametrize("script", ["make_samples", "sample_fast"])
def test_a_file_has_the_nearest_level_where_the_original_cuts_off(script):
    """At most one above what its scripts write, and never over half a level off."""
    images = np.moveaxis(CASE.inputs["uint8_source_chw"], 0, -1)
    found = to_uint8(images).astype(int)
    theirs = CASE.outputs[f"uint8_{script}_hwc"]
    assert np.isin(found - theirs, [0, 1]).all()
    exact = (np.clip(images, -1, 1) + 1) * np.float32(127.5)
    assert np.abs(found - exact).max() <= 0.5
    np.testing.assert_array_equal(np.floor(exact), theirs)
