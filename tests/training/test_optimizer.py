import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.training.optimizer import (
    apply_gradients,
    make_optimizer,
    make_schedule,
)
from taming_jax.training.prior_step import is_in_block, is_kernel
from taming_jax.training.recipe import Optimizer

STEPS = 100


def descend(grads, settings, learning=None):
    """Parameters [len(grads) + 1, 2] from (1, -2) on, by the gradients given."""
    optimizer = make_optimizer(settings, STEPS)
    params = jnp.array([1.0, -2.0])
    state, path, norms = optimizer.init(params), [params], []
    for g in grads:
        params, state, norm = apply_gradients(optimizer, g, state, params, learning)
        path.append(params)
        norms.append(norm)
    return np.array(path), np.array(norms)


GRADS = jnp.array([[0.1, -3.0], [0.2, 0.5], [-0.4, 2.0], [0.0, 1e-3]])


def test_updates_are_adamw():
    """Loshchilov and Hutter 2019, algorithm 2, in float64."""
    rate, b1, b2, decay, epsilon = 0.01, 0.6, 0.8, 0.1, 1e-8
    settings = Optimizer(rate, b1=b1, b2=b2, weight_decay=decay)
    theta, m, v, expected = np.array([1.0, -2.0]), 0, 0, [[1.0, -2.0]]
    for t, g in enumerate(np.float64(GRADS), start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        theta = theta - rate * (m_hat / (np.sqrt(v_hat) + epsilon) + decay * theta)
        expected.append(theta)
    path, _ = descend(GRADS, settings)
    assert_allclose(path, expected, rtol=1e-6)  # float32


def test_clipping_scales_the_gradient_to_the_norm():
    """As if a gradient of norm 5 had been one of norm 1, and a short one itself."""
    clipped, norms = descend([jnp.array([3.0, 4.0]), GRADS[1]], Optimizer(0.1, clip=1))
    plain, _ = descend([jnp.array([0.6, 0.8]), GRADS[1]], Optimizer(0.1))
    assert_allclose(clipped, plain, rtol=1e-6)
    assert_allclose(norms, [5, np.hypot(0.2, 0.5)], rtol=1e-6)  # before clipping


def test_what_does_not_learn_keeps_every_bit():
    settings = Optimizer(0.1, weight_decay=0.1)
    path, norms = descend(GRADS, settings, learning=jnp.array([0.0, 1.0]))
    assert_array_equal(path[:, 0], 1.0)
    assert_allclose(norms, np.abs(GRADS[:, 1]), rtol=1e-6)


def test_what_does_not_learn_is_not_moved_by_momentum():
    optimizer = make_optimizer(Optimizer(0.1), STEPS)
    params = jnp.array([1.0, -2.0])
    _, state, _ = apply_gradients(optimizer, GRADS[0], optimizer.init(params), params)
    frozen = jnp.zeros(2)
    moved, _, _ = apply_gradients(optimizer, GRADS[1], state, params, frozen)
    assert_array_equal(moved, params)


def rates(**settings):
    schedule = make_schedule(Optimizer(0.5, **settings), STEPS)
    return np.array([schedule(step) for step in range(STEPS + 1)])


def test_a_constant_rate_is_the_rate():
    assert_array_equal(rates(), 0.5)


def test_warm_up_is_a_line_to_the_rate():
    warming = 0.5 * (1 + 9 * np.arange(10) / 10) / 10
    assert_allclose(rates(warmup_steps=10)[:10], warming, rtol=1e-6)
    assert_allclose(rates(warmup_steps=10)[10:], 0.5, rtol=1e-6)


@pytest.mark.parametrize("warmup", [0, 20])
def test_cosine_falls_from_the_rate_to_its_final_share(warmup):
    done = np.arange(STEPS - warmup + 1) / (STEPS - warmup)
    falling = 0.5 * (0.1 + 0.9 * (1 + np.cos(np.pi * done)) / 2)
    measured = rates(schedule="cosine", warmup_steps=warmup, final_share=0.1)
    assert_allclose(measured[warmup:], falling, rtol=1e-5)


@pytest.mark.parametrize(
    "changed",
    [
        {"schedule": "cosine", "warmup_steps": 5},
        {"warmup_steps": 5},
        {"clip": 1.0},
        {"weight_decay": 0.1},
    ],
    ids=str,
)
def test_state_has_one_form_so_that_settings_may_change(changed):
    """Else a run could not be continued with another schedule."""
    for params, muon in ((jnp.zeros(2), 0.0), (PARAMS, 2.0)):
        usual, other = Optimizer(0.1, muon=muon), Optimizer(0.2, muon=muon, **changed)
        states = [
            make_optimizer(settings, STEPS, matrices=is_in_block).init(params)
            for settings in (usual, other)
        ]
        assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])


LAYERS, IN, OUT = 3, 24, 40
PARAMS = {
    "blocks": {"up": {"kernel": jax.random.normal(jax.random.key(0), (LAYERS, IN, OUT)),
                      "bias": jnp.ones((LAYERS, OUT))}},
    "embedding": jax.random.normal(jax.random.key(1), (50, IN)),
    "head": {"kernel": jax.random.normal(jax.random.key(2), (IN, 50))},
}  # fmt: skip


def stepped(grads, **settings):
    """What one step at a rate of 0.01 adds to PARAMS."""
    optimizer = make_optimizer(
        Optimizer(0.01, **settings), STEPS, decays=is_kernel, matrices=is_in_block
    )
    state = optimizer.init(PARAMS)
    after, _, _ = apply_gradients(optimizer, grads, state, PARAMS)
    return jax.tree.map(lambda a, b: np.asarray(a - b), after, PARAMS)


def some_gradients(seed=3):
    """Of very different sizes along different directions."""
    keys = iter(jax.random.split(jax.random.key(seed), 8))
    grads = jax.tree.map(lambda a: jax.random.normal(next(keys), a.shape), PARAMS)
    u, s, v = jnp.linalg.svd(grads["blocks"]["up"]["kernel"], full_matrices=False)
    grads["blocks"]["up"]["kernel"] = (u * s[:, None] ** 2) @ v
    return grads


def test_muon_goes_as_far_along_every_direction_of_each_layer_s_gradient():
    """U V' of U S V', but for what five iterations of Newton and Schulz leave.

    Its entries have the root mean square 0.2 (Liu et al. 2025), here times 2.
    """
    grads = some_gradients()
    step = stepped(grads, muon=2.0)["blocks"]["up"]["kernel"]
    u, _, v = np.linalg.svd(np.float64(grads["blocks"]["up"]["kernel"]), False)
    along = -np.einsum("lij,lik,lmk->ljm", u, step, v)  # [L, IN, IN]
    along /= 2 * 0.01 * 0.2 * np.sqrt(OUT)
    far = np.diagonal(along, axis1=1, axis2=2)
    assert far.min() > 0.65  # Jordan et al. 2024: 0.68 to 1.13
    assert far.max() < 1.2
    assert np.abs(along - far[..., None] * np.eye(IN)).max() < 1e-4


def test_muon_is_for_the_kernels_of_blocks_and_all_else_has_adamw():
    grads = some_gradients()
    settings = {"b1": 0.6, "b2": 0.8, "weight_decay": 0.1}
    ours, usual = stepped(grads, muon=2.0, **settings), stepped(grads, **settings)
    for name in ("embedding", "head"):
        jax.tree.map(assert_array_equal, ours[name], usual[name])
    ours, usual = ours["blocks"]["up"], usual["blocks"]["up"]
    assert_array_equal(ours["bias"], usual["bias"])
    assert np.abs(ours["kernel"] - usual["kernel"]).max() > 1e-3


def test_muon_decays_as_adamw_does():
    nothing = jax.tree.map(jnp.zeros_like, PARAMS)
    step = stepped(nothing, muon=2.0, weight_decay=0.1)
    decayed = -0.01 * 0.1 * PARAMS["blocks"]["up"]["kernel"]
    assert_allclose(step["blocks"]["up"]["kernel"], decayed, rtol=1e-3, atol=1e-6)
    assert_array_equal(step["blocks"]["up"]["bias"], 0.0)
    assert_array_equal(step["embedding"], 0.0)


def test_muon_where_nothing_is_a_matrix_is_refused():
    with pytest.raises(ValueError, match=r"optimizer\.muon=2, and only priors have it"):
        make_optimizer(Optimizer(0.1, muon=2.0), STEPS)


def test_a_rate_of_matrices_below_0_is_refused():
    with pytest.raises(ValueError, match=r"muon=-1 is not allowed.*at least 0"):
        Optimizer(0.1, muon=-1)
