import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax import losses


def test_the_difference_loss_is_blind_to_a_constant_error():
    x = jax.random.normal(jax.random.key(0), (1, 4, 5, 3))
    assert_allclose(losses.difference_loss(x=x, x_hat=x + 0.5), 0, atol=1e-6)


def test_the_difference_loss_sums_edges_across_and_down():
    x = np.zeros((1, 3, 3, 1))
    x_hat = x.copy()
    x_hat[0, 1, 1, 0] = 1.0  # a dot has two edges in each direction
    assert_allclose(losses.difference_loss(x=x, x_hat=x_hat), 2 * 2 / 6)


def edge(*columns):
    """float32 [1,16,16,1]: from 0 to 1 in equal steps after each of the columns."""
    steps = np.zeros(16, np.float32)
    steps[np.array(columns) + 1] = 1 / len(columns)
    return np.broadcast_to(steps.cumsum()[None, None, :, None], (1, 16, 16, 1))


def test_sharpness_is_blind_to_where_in_its_windows_an_edge_is():
    """Windows of differences begin at -1, 1, 3, ...: 7 and 8 lie in the same two."""
    assert_allclose(losses.sharpness_loss(x=edge(7), x_hat=edge(8)), 0, atol=1e-7)


def test_sharpness_minds_the_blur_of_an_edge():
    """Half a step twice is half of the squares: 1 - sqrt(1/2) of the root is lost."""
    blurred = losses.sharpness_loss(x=edge(7), x_hat=edge(7, 8))
    gone = losses.sharpness_loss(x=edge(7), x_hat=0 * edge(7))
    assert_allclose(blurred / gone, 1 - np.sqrt(0.5), rtol=0.01)  # 1e-5 in the root


def test_sharpness_is_that_of_its_windows():
    x, x_hat = np.random.default_rng(0).uniform(-1, 1, (2, 1, 8, 8, 3))

    def windows(images):
        down, across = np.diff(images, axis=1), np.diff(images, axis=2)
        squares = (down[:, :, :7] ** 2 + across[:, :7] ** 2).mean(-1)
        squares = np.pad(squares, [(0, 0), (1, 2), (1, 2)])
        corners = [(i, j) for i in (0, 2, 4, 6) for j in (0, 2, 4, 6)]
        means = [squares[:, i : i + 4, j : j + 4].mean((1, 2)) for i, j in corners]
        return np.sqrt(np.array(means) + 1e-5)

    expected = np.abs(windows(x) - windows(x_hat)).mean()
    assert_allclose(losses.sharpness_loss(x=x, x_hat=x_hat), expected, rtol=1e-5)


def test_the_squared_loss_is_a_mean_of_squares():
    x, x_hat = jnp.zeros((1, 2, 2, 1)), jnp.full((1, 2, 2, 1), 3.0)
    assert losses.l2_loss(x=x, x_hat=x_hat) == 9.0


def test_the_generators_loss_is_the_surprise_that_it_was_taken_for_real():
    """-log 1/2, -log 3/4 and -log 1/4 for logits of 0, log 3 and -log 3."""
    fake = jnp.log(jnp.array([1.0, 3.0, 1 / 3]))
    expected = -np.log([1 / 2, 3 / 4, 1 / 4]).mean()
    assert_allclose(losses.non_saturating_loss(fake), expected, rtol=1e-6)


def test_lecam_asks_nothing_within_what_was_said_of_the_other_side():
    said = {"past_real": 1.0, "past_fake": -1.0}
    within = losses.lecam_loss(real=jnp.full(3, -2.0), fake=jnp.full(3, 2.0), **said)
    beyond = losses.lecam_loss(real=jnp.full(3, 1.0), fake=jnp.full(3, -2.0), **said)
    assert (within, beyond) == (0, 2.0**2 + 3.0**2)


def test_the_adaptive_weight_is_capped_where_the_adversary_is_silent():
    weight = losses.adaptive_weight(
        nll_gradient=jnp.full(3, 7.0), adversarial_gradient=jnp.zeros(3)
    )
    assert weight == 1e4


def test_the_adaptive_weight_of_no_gradients_is_zero():
    zeros = jnp.zeros(3)
    assert losses.adaptive_weight(nll_gradient=zeros, adversarial_gradient=zeros) == 0


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (2, 0, [0, 0, 1, 1, 1, 1]),
        (2, 2, [0, 0, 0.5, 1, 1, 1]),
        (0, 4, [0.25, 0.5, 0.75, 1, 1, 1]),
    ],
)
def test_the_ramp_rises_from_its_first_step_on(start, length, expected):
    steps = jnp.arange(6)
    assert_array_equal(losses.ramp(steps, start=start, length=length), expected)
