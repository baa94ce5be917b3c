"""How much of a codebook is used: over N codes, never over one batch.

A batch shows few codes whatever the codebook's health, so the counts run over
everything that is evaluated, and N is reported beside the figures.
"""

import numpy as np


def count_codes(codes: np.ndarray, codebook_size: int) -> np.ndarray:
    """int32 codes of any shape -> int64 [codebook_size], how often each occurs."""
    return np.bincount(np.ravel(codes), minlength=codebook_size)


def usage(counts: np.ndarray) -> float:
    """The share of the codebook that occurs at all, in [0, 1]."""
    return float(np.mean(counts > 0))


def perplexity(counts: np.ndarray) -> float:
    """exp of the codes' entropy: as many codes, were all equally frequent."""
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))
