"""The discriminator's blur before it halves, against the mathematics of a low pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models.discriminator import Discriminator, blurred


@pytest.mark.parametrize("taps", [3, 4])
def test_a_blur_leaves_what_is_flat_up_to_the_border(taps):
    flat = jnp.full((1, 5, 6, 2), 0.7)
    assert_allclose(blurred(flat, taps), flat, rtol=1e-6)  # sums of weights


@pytest.mark.parametrize("taps", [3, 4])
def test_a_blur_takes_the_finest_pattern_away(taps):
    """Which half as many places would take for something else."""
    board = (-1.0) ** np.add.outer(np.arange(8), np.arange(8))[None, :, :, None]
    assert_array_equal(blurred(board, taps)[:, 2:-2, 2:-2], 0)


@pytest.mark.parametrize(
    ("taps", "row"), [(3, [0, 1, 2, 1, 0, 0]), (4, [1, 3, 3, 1, 0, 0])]
)
def test_a_blur_spreads_a_dot_binomially_and_wherever_it_is(taps, row):
    dot = np.zeros((1, 6, 7, 1), np.float32)
    dot[0, 2, 2, 0] = np.sum(row) ** 2
    spread = blurred(dot, taps)[0, :, :, 0]
    assert_array_equal(spread, np.outer(row, [*row, 0]))
    moved = blurred(np.roll(dot, 1, axis=2), taps)[0, :, :, 0]
    assert_array_equal(moved, np.roll(spread, 1, axis=1))


@pytest.mark.parametrize("taps", [3, 4])
def test_to_blur_before_a_stride_is_to_blur_after_the_convolution(taps):
    net = Discriminator(channels=4, layers=1, norm="none", blur=taps)
    x = jax.random.normal(jax.random.key(0), (1, 24, 24, 3))
    variables = net.init(jax.random.key(1), x, train=False)
    _, seen = net.apply(variables, x, train=False, capture_intermediates=True)
    (ours,) = seen["intermediates"]["conv_0"]["__call__"]
    kernel, bias = variables["params"]["conv_0"].values()
    full = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    after = blurred(full + bias, taps)[:, ::2, ::2]
    inner = slice(3, -3)  # borders are made differently
    assert_allclose(ours[:, inner, inner], after[:, inner, inner], atol=1e-5)


@pytest.mark.parametrize("blur", [1, 2, 5, -3])
def test_a_blur_of_other_taps_is_refused(blur):
    with pytest.raises(ValueError, match=rf"no blur of {blur} taps; allowed: 0, 3, 4"):
        Discriminator(blur=blur)
