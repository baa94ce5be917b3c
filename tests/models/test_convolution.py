import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models.convolution import (
    Conv,
    depth_to_space,
    normal,
    space_to_depth,
    uniform,
)


@pytest.mark.parametrize(("gain", "kept"), [(1.0, 1 / 3), (3**0.5, 1.0)])
def test_a_fresh_convolution_keeps_as_much_variance_as_its_gain_says(gain, kept):
    x = jax.random.normal(jax.random.key(0), (16, 16, 16, 32))
    variables = Conv(256, gain=gain).init(jax.random.key(1), x)
    y = Conv(256).apply(variables, x)[:, 1:-1, 1:-1]  # the border sees zeros
    bias = variables["params"]["bias"]
    # 256 random kernels of 288 entries: their mean square is good to a percent.
    assert_allclose(jnp.var(y - bias), kept, rtol=0.05)


def test_arithmetic_is_in_the_dtype_that_was_asked_for():
    y, _ = Conv(2, dtype=jnp.bfloat16).init_with_output(
        jax.random.key(0), jnp.ones((1, 4, 4, 3))
    )
    assert y.dtype == jnp.bfloat16


def test_initial_draws_do_not_depend_on_how_they_are_folded():
    key = jax.random.key(0)
    drawn = uniform(0.5)(key, (3, 3, 2, 4)), normal(0.5)(key, (3, 3, 2, 4))
    plain = (
        jax.random.uniform(key, (3, 3, 2, 4), minval=-0.5, maxval=0.5),
        0.5 * jax.random.normal(key, (3, 3, 2, 4)),
    )
    jax.tree.map(assert_array_equal, drawn, plain)


def test_unfolding_a_folded_picture_gives_it_back():
    x = np.arange(2 * 6 * 4 * 3).reshape(2, 6, 4, 3)
    assert_array_equal(depth_to_space(space_to_depth(x, 2), 2), x)


def test_a_folded_place_holds_its_patch_row_by_row():
    x = np.arange(2 * 4).reshape(1, 2, 4, 1)
    assert_array_equal(space_to_depth(x, 2)[0, 0], [[0, 1, 4, 5], [2, 3, 6, 7]])
