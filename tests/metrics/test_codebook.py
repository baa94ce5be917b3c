"""Usage and perplexity by hand-made counts."""

import numpy as np

from taming_jax.metrics import codebook


def test_codes_are_counted_over_the_whole_codebook():
    counts = codebook.count_codes(np.array([[[0, 2], [2, 2]]], np.int32), 4)
    assert counts.tolist() == [1, 0, 3, 0]


def test_usage_is_the_share_of_codes_that_occur():
    assert codebook.usage(np.array([1, 0, 3, 0])) == 0.5


def test_perplexity_of_equally_frequent_codes_is_their_number():
    np.testing.assert_allclose(codebook.perplexity(np.array([7, 7, 0, 7])), 3.0)


def test_perplexity_of_a_collapsed_codebook_is_one():
    assert codebook.perplexity(np.array([0, 9, 0])) == 1.0
