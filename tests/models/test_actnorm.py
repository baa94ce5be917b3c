"""ActNorm against the original's: what it learns from its first batch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import golden, nhwc
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models.discriminator import ActNorm


@pytest.fixture(scope="module")
def actnorm():
    """Golden 06, and what an ActNorm becomes by its first and by a second batch."""
    case = golden("06_actnorm")
    x = nhwc(case.inputs["x"])
    y, variables = ActNorm().init_with_output(jax.random.key(0), x, train=False)
    assert_array_equal(y, x)  # nothing seen, nothing done
    apply = partial(ActNorm().apply, train=True, mutable=["batch_stats"])
    y, first = apply(variables, x)
    y_second, second = apply(variables | first, x / 2 + 1)  # as recorded
    return case, y, y_second, variables | first, variables | second


def affine(variables):
    """The two halves of loc and scale together."""
    params, stats = variables["params"], variables["batch_stats"]
    return params["loc"] + stats["loc"], params["scale"] + stats["scale"]


def test_actnorm_maps_its_first_and_later_batches_as_the_originals(actnorm):
    case, y, y_second, first, _ = actnorm
    y_2d = ActNorm().apply(first, case.inputs["x2"], train=False)
    assert_allclose(y, nhwc(case.outputs["y"]), **case.tolerance("y"))
    expected = nhwc(case.outputs["y_second"])
    assert_allclose(y_second, expected, **case.tolerance("y_second"))
    assert_allclose(y_2d, case.outputs["y_2d"], **case.tolerance("y_2d"))


def test_actnorm_learns_the_originals_map_from_its_first_batch(actnorm):
    case, _, _, first, second = actnorm
    assert first["batch_stats"]["seen"] == case.outputs["initialized"]
    loc, scale = affine(first)
    assert_allclose(loc, case.outputs["loc"].ravel(), **case.tolerance("loc"))
    assert_allclose(scale, case.outputs["scale"].ravel(), **case.tolerance("scale"))
    expected = case.outputs["loc_second"].ravel()
    assert_allclose(affine(second)[0], expected, **case.tolerance("loc_second"))


def test_actnorms_map_has_the_originals_inverse_and_determinant(actnorm):
    case, y, _, first, _ = actnorm
    loc, scale = affine(first)
    reverse, places = y / scale - loc, y[0, ..., 0].size
    tolerance = case.tolerance("reverse")
    assert_allclose(reverse, nhwc(case.outputs["reverse"]), **tolerance)
    logdet = np.full(len(y), places * jnp.log(jnp.abs(scale)).sum())
    assert_allclose(logdet, case.outputs["logdet"], **case.tolerance("logdet"))
