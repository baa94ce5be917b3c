import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from taming_jax.training.usage import DRAWS_PER_CODE, CodeWindow

K, BATCH = 32, 7


@pytest.fixture(scope="module")
def drawn():
    """200 batches of codes, the later ones from half of the table, and what was said.

    [200, 7] int32, and after each batch the metrics.
    """
    rng = np.random.default_rng(0)
    codes = np.concatenate(
        [rng.integers(0, K, (100, BATCH)), rng.integers(0, K // 2, (100, BATCH))]
    ).astype(np.int32)
    window, said, add = CodeWindow.empty(K), [], jax.jit(CodeWindow.add)
    for batch in codes:
        window = add(window, batch)
        said.append({name: float(v) for name, v in window.metrics().items()})
    return codes, said


def last(codes, n, said):
    """The draws that the n-th figures are said to stand on."""
    return codes[: n + 1].ravel()[-round(said[n]["codebook_draws"]) :]


def test_usage_is_the_share_of_distinct_codes_among_the_last_draws(drawn):
    codes, said = drawn
    by_hand = [len(set(last(codes, n, said).tolist())) / K for n in range(len(codes))]
    assert_allclose([s["codebook_usage"] for s in said], by_hand, rtol=1e-6)


def test_perplexity_is_the_exponential_of_their_entropy(drawn):
    codes, said = drawn

    def perplexity(draws):
        _, counts = np.unique(draws, return_counts=True)
        shares = counts / counts.sum()
        return np.exp(-(shares * np.log(shares)).sum())

    by_hand = [perplexity(last(codes, n, said)) for n in range(len(codes))]
    assert_allclose([s["codebook_perplexity"] for s in said], by_hand, rtol=1e-5)


def test_figures_stand_on_everything_at_first(drawn):
    _, said = drawn
    drawn_so_far = BATCH * (1 + np.arange(len(said)))
    early = drawn_so_far <= DRAWS_PER_CODE * K
    draws = np.array([s["codebook_draws"] for s in said])
    assert_allclose(draws[early], drawn_so_far[early])


def test_figures_stand_on_ten_to_twenty_draws_per_code_later(drawn):
    _, said = drawn
    later = [s["codebook_draws"] for s in said[DRAWS_PER_CODE * K // BATCH + 1 :]]
    assert min(later) >= DRAWS_PER_CODE * K
    assert max(later) < 2 * DRAWS_PER_CODE * K + 2 * BATCH


def test_a_collapse_is_seen(drawn):
    """Half of the table fell out of use 700 draws ago: more than the window holds."""
    _, said = drawn
    assert said[99]["codebook_usage"] == 1
    assert said[-1]["codebook_usage"] == 0.5
