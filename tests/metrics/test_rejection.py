"""Rejection sampling: how many are drawn, how they are ranked, which of them stay."""

import numpy as np
import pytest

from taming_jax.metrics.rejection import candidates, kept, log_odds


@pytest.mark.parametrize(
    ("count", "share", "drawn"),
    [(10, 0.1, 100), (7, 0.07, 100), (5, 0.3, 17), (3, 1, 3)],
)
def test_so_many_are_drawn_that_the_wanted_ones_are_the_share(count, share, drawn):
    assert candidates(count, share) == drawn


@pytest.mark.parametrize("share", [0, -0.5, 1.01, float("nan")])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(ValueError, match=r"accept=.* above 0 and at most 1"):
        candidates(10, share)


def test_log_odds_are_those_of_the_probabilities():
    logits = np.random.default_rng(0).normal(0, 2, (6, 5)).astype(np.float32)
    labels = np.array([0, 4, 2, 2, 1, 3])
    p = np.exp(logits.astype(np.float64))
    p = p[np.arange(6), labels] / p.sum(axis=1)
    np.testing.assert_allclose(log_odds(logits, labels), np.log(p / (1 - p)), rtol=1e-9)


def test_probabilities_that_round_to_one_are_still_told_apart():
    sure, surer = log_odds(np.float32([[50, 0], [60, 0]]), np.array([0, 0]))
    assert 1 / (1 + np.exp(-sure)) == 1
    assert surer > sure


def test_the_best_of_each_stay_in_their_order():
    scores = np.array([[0.1, 0.9, 0.5, 0.7], [3.0, -1.0, 2.0, 2.5]])
    assert kept(scores, 2).tolist() == [1, 3, 4, 7]


def test_of_equal_ones_the_first_stay():
    assert kept(np.zeros((2, 5)), 3).tolist() == [0, 1, 2, 5, 6, 7]
