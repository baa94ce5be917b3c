"""Rejection sampling: of more samples than are wanted the most recognisable ones stay.

    scores of candidates [G, n] --kept--> the best `count` of each, by number

A classifier is asked how sure it is of the class that was asked for, and the best share
is accepted, as in VQ-VAE-2 (Razavi et al. 2019) and in the paper's figures for
ImageNet: samples look better, and there is less variety among them.

Legend: G things that are asked for, n candidates of each.
"""

import math

import numpy as np


def candidates(count: int, share: float) -> int:
    """How many are drawn of each so that `count` are the best `share` of them.

    Raises:
      ValueError: for what is no share.
    """
    if not 0 < share <= 1:
        raise ValueError(
            f"accept={share}: the share of the samples that is kept, above 0 and at "
            "most 1; 0.1 keeps the best of ten"
        )
    return math.ceil(round(count / share, 6))  # 7 of .07 are 100, whatever floats say


def log_odds(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """log p / (1 - p) of each label's probability: logits [B, C] -> float64 [B].

    They are in the order of the probabilities, and differ where those all round to 1.
    """
    logits = np.asarray(logits, np.float64)
    rows = np.arange(len(labels))
    asked = logits[rows, labels]
    others = logits.copy()
    others[rows, labels] = -np.inf
    return asked - np.logaddexp.reduce(others, axis=1)


def kept(scores: np.ndarray, count: int) -> np.ndarray:
    """The numbers, in all G * n, of the `count` highest of each row [n]; ascending.

    Of equal ones the first stays.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    starts = np.arange(len(scores))[:, None] * scores.shape[1]
    return (np.sort(best, axis=1) + starts).reshape(-1)
