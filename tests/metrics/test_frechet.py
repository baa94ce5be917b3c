"""The Fréchet distance against closed forms and a matrix root."""

import numpy as np
import pytest

from taming_jax.metrics.frechet import fit_gaussian, frechet_distance


def distance(a, b):
    return frechet_distance(fit_gaussian(a), fit_gaussian(b))


def random_features(seed, count=50, dimensions=6):
    r = np.random.default_rng(seed)
    mixing = r.normal(size=(dimensions, dimensions))
    return r.normal(size=(count, dimensions)) @ mixing + r.normal(size=dimensions)


def test_in_one_dimension_it_is_the_distance_of_means_and_deviations():
    a, b = np.array([[-1.0], [0], [1]]), np.array([[1.0], [4], [7]])  # deviations 1, 3
    np.testing.assert_allclose(distance(a, b), (4 - 0) ** 2 + (3 - 1) ** 2)


def test_it_has_the_trace_of_the_matrix_root():
    from scipy.linalg import sqrtm

    a, b = random_features(0), random_features(1)
    (ma, ca, _), (mb, cb, _) = fit_gaussian(a), fit_gaussian(b)
    expected = np.sum((ma - mb) ** 2) + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
    np.testing.assert_allclose(distance(a, b), expected, rtol=1e-9)


@pytest.mark.parametrize("count", [50, 4])  # 4: fewer than dimensions, so singular
def test_scaled_features_are_as_far_as_their_deviations(count):
    a = random_features(0, count)
    expected = np.sum(a.mean(0) ** 2) + np.trace(np.cov(a.T))  # (1 - 2)^2 of each
    np.testing.assert_allclose(distance(a, 2 * a), expected, rtol=1e-6)


def test_it_is_zero_for_the_same_features():
    a = random_features(0)
    # Relative to traces of about 40: a root of float64's rounding of the eigenvalues.
    np.testing.assert_allclose(distance(a, a), 0.0, atol=1e-6)


def test_it_is_symmetric():
    a, b = random_features(0), random_features(1, count=4)  # fewer than dimensions
    np.testing.assert_allclose(distance(a, b), distance(b, a), rtol=1e-6)


def test_float32_features_are_measured_in_float64():
    a = random_features(0).astype(np.float32) + 1e3
    assert fit_gaussian(a).covariance.dtype == np.float64


def test_one_sample_has_no_covariance():
    with pytest.raises(ValueError, match=r"\(1, 6\).*N >= 2"):
        fit_gaussian(random_features(0, count=1))


def test_features_of_two_networks_are_not_compared():
    with pytest.raises(ValueError, match="6 and of 5 dimensions"):
        distance(random_features(0), random_features(1, dimensions=5))
