"""The Fréchet distance between two sets of features, each seen as a Gaussian.

    d^2 = |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))

With Inception's features this is the FID (Heusel et al., 2017); with those of our
judge it ranks tokenizers of the same data, and compares with nothing else.
Everything is float64.
"""

from typing import NamedTuple

import numpy as np


class Gaussian(NamedTuple):
    """Mean [D] and unbiased covariance [D, D] of `count` feature vectors."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int


def fit_gaussian(features: np.ndarray) -> Gaussian:
    """features [N, D], N >= 2 -> their Gaussian. Singular where N <= D."""
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(
            f"features of shape {features.shape}; a covariance needs [N, D] with "
            "N >= 2; evaluate more samples"
        )
    return Gaussian(
        features.mean(axis=0),
        np.atleast_2d(np.cov(features, rowvar=False)),
        len(features),
    )


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """The squared distance d^2, as the FID is reported; 0 for equal Gaussians.

    (S_a S_b)^(1/2) has the trace of (R S_b R)^(1/2) with R = S_a^(1/2), a symmetric
    matrix: its eigenvalues are real and, but for rounding, not negative, also where
    a covariance is singular. A general matrix root is neither.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"features of {a.mean.size} and of {b.mean.size} dimensions; the distance "
            "needs both from the same network; compute one of them again"
        )
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ b.covariance @ root)
    trace = np.trace(a.covariance) + np.trace(b.covariance)
    distance = np.sum((a.mean - b.mean) ** 2) + trace
    return float(distance - 2.0 * np.sqrt(cross.clip(min=0.0)).sum())
