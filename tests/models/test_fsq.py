import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models.quantizers import FSQ

LEVELS = (8, 5, 4, 3)
MODULE = FSQ(levels=LEVELS)
GRID = jnp.arange(480).reshape(1, 20, 24)


def quantized(z, train=False):
    return MODULE.apply({}, jnp.asarray(z, jnp.float32), train=train)


def test_levels_say_how_many_codes_and_dimensions_there_are():
    assert (MODULE.codebook_size, MODULE.size, MODULE.dim) == (480, 480, 4)


def test_codes_count_through_all_combinations_the_first_level_fastest():
    values = [np.arange(-(n // 2), n - n // 2) / (n // 2) for n in LEVELS]
    expected = [combination[::-1] for combination in itertools.product(*values[::-1])]
    vectors = MODULE.apply({}, GRID, method="lookup")
    assert_allclose(vectors.reshape(-1, 4), expected, rtol=1e-6)


def test_codes_of_latents_are_those_of_each_dimension_by_itself():
    z = 2 * jax.random.normal(jax.random.key(0), (2, 5, 5, 4))
    expected = np.zeros((2, 5, 5), int)
    for place in np.ndindex(expected.shape):
        base = 1
        for x, levels in zip(np.float64(z[place]), LEVELS, strict=True):
            reach, offset = 1.001 * (levels - 1) / 2, 0.0 if levels % 2 else 0.5
            bounded = reach * np.tanh(x + np.arctanh(offset / reach)) - offset
            expected[place] += (round(bounded) + levels // 2) * base
            base *= levels
    assert_array_equal(quantized(z).codes, expected)


def test_every_code_is_reached():
    """By latents with which tanh gives the middle of its level."""
    vectors = MODULE.apply({}, GRID, method="lookup")
    levels = np.array(LEVELS)
    reach, offset = 1.001 * (levels - 1) / 2, np.where(levels % 2, 0, 0.5)
    inner = np.clip((vectors * (levels // 2) + offset) / reach, -0.9999, 0.9999)
    z = np.arctanh(inner) - np.arctanh(offset / reach)
    assert_array_equal(quantized(z).codes, GRID)


def test_zero_is_a_level_of_every_dimension():
    middle = quantized(jnp.zeros((1, 1, 1, 4)))
    assert_array_equal(middle.z, jnp.zeros((1, 1, 1, 4)))


def test_the_gradient_is_that_of_tanh_and_ends_where_levels_do():
    z = jnp.array([[[[0.3, -0.2, 0.1, 0.0], [60.0, -60.0, 60.0, -60.0]]]])
    pull = jax.grad(lambda z: quantized(z, train=True).z.sum())(z)
    levels = np.array(LEVELS)
    reach, offset = 1.001 * (levels - 1) / 2, np.where(levels % 2, 0, 0.5)
    slope = 1 - np.tanh(z[0, 0, 0] + np.arctanh(offset / reach)) ** 2
    assert_allclose(pull[0, 0, 0], reach * slope / (levels // 2), rtol=1e-5)
    assert_array_equal(pull[0, 0, 1], np.zeros(4))


def test_nothing_is_learned_and_nothing_is_lost():
    z = jnp.zeros((1, 2, 2, 4))
    variables = MODULE.init(jax.random.key(0), z, train=True)
    assert variables.keys() == {"codebook"}
    assert quantized(z, train=True).loss == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"levels=\(\); it takes how many values .* levels=\(8, 5, 5, 5\)"),
        ({"levels": (8, 1)}, r"levels=\(8, 1\).*integers of 2 or more"),
        ({"levels": 5}, "FSQ has levels=5; it takes how many values each dimension"),
        ({"levels": (8, 2.5)}, r"levels=\(8, 2.5\).*integers of 2"),
        (
            {"levels": (8, 5, 5), "codebook_size": 256},
            r"levels=\(8, 5, 5\).*codebook_size=200, and codebook_size=256.*leave",
        ),
        (
            {"levels": (8, 4), "codebook_size": "32"},
            "codebook_size=32, and codebook_size='32', dim=None is asked for",
        ),
        ({"levels": (8, 5, 5), "dim": 4}, "are dim=3 .* dim=4 is asked for"),
        ({"levels": (2,) * 31}, r"2147483648 codes .* GiB .* allowed are 16"),
    ],
)
def test_levels_that_make_something_else_are_refused(fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        FSQ(**fields)
    assert "\n" not in str(caught.value)


def test_a_size_that_is_the_levels_product_may_be_given():
    assert FSQ(levels=(8, 5, 5), codebook_size=200, dim=3) == FSQ(levels=(8, 5, 5))
