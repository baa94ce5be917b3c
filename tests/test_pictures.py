import numpy as np
from numpy.testing import assert_array_equal

from taming_jax.pictures import LINE, captioned

PICTURES = np.full((2, 16, 32, 3), 128, np.uint8)


def test_captions_leave_the_pictures_as_they_are():
    assert_array_equal(captioned(PICTURES, ["disc", "moon"])[:, :16], PICTURES)


def test_captions_are_dark_on_white_and_differ_by_name():
    lines = captioned(PICTURES, ["disc", "moon"])[:, 16:]
    assert lines.shape == (2, LINE, 32, 3)
    assert lines.min() == 0
    assert lines.max() == 255
    assert (lines[0] != lines[1]).any()


def test_a_name_longer_than_its_picture_is_cut():
    assert captioned(PICTURES, ["a very long name indeed"] * 2).shape[2] == 32
