"""Both players' losses of discriminators so simple that their gradients are known."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models.discriminator import Discriminator
from taming_jax.training.adversary import begin_memory, judge, remember
from taming_jax.training.loss_weights import VQGANLoss

RNG = np.random.default_rng(0)
X, X_HAT = (RNG.normal(size=(4, 2, 3, 1)).astype(np.float32) for _ in range(2))
R1 = VQGANLoss(r1_weight=10.0, r1_every=4)


class Linear(NamedTuple):
    """Logit p of a picture: <params[..., p], image^power> / power."""

    power: int = 1

    def apply(self, variables, images, *, train, mutable):
        assert (train, mutable) == (True, [])
        weights = variables["params"]
        seen = images**self.power / self.power
        return jnp.einsum("bhwc,hwcp->bp", seen, weights)[:, None, :, None], {}


def weights(patches: int):
    shape = (*X.shape[1:], patches)
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def penalised(net, params, loss=R1):
    """What R1 is, and what it alone adds to the gradients."""
    stats = begin_memory(loss)
    with_, without = (
        judge(net, loss, params, stats, X, X_HAT, penalised=turn)
        for turn in (True, False)
    )
    assert_array_equal(with_.cotangent, without.cotangent)
    added = jax.tree.map(jnp.subtract, with_.grads, without.grads)
    return with_.report["r1"], added


def test_r1_of_a_linear_discriminator_is_the_square_of_its_weights():
    """gamma/2 |w|^2, four times as heavy at every fourth step: 20 w^2, by w 40 w."""
    params = weights(patches=1)
    value, added = penalised(Linear(), params)
    assert_allclose(value, np.square(params).sum(), rtol=1e-5)
    assert_allclose(added, 10 / 2 * 4 * 2 * params, rtol=1e-4)


def test_r1_is_the_mean_over_pictures():
    """Of sum w x^2 / 2 the gradient by x is w x."""
    params = weights(patches=1)
    value, added = penalised(Linear(power=2), params)
    slopes = (np.square(params[..., 0]) * np.square(X)).sum((1, 2, 3))
    assert_allclose(value, slopes.mean(), rtol=1e-5)
    expected = 20 * 2 * params * np.square(X).mean(0)[..., None]
    assert_allclose(added, expected, rtol=1e-4, atol=1e-4)


def test_a_discriminator_said_twice_is_as_steep_for_each_of_its_patches():
    """Two patches that see the same and say the same: (2 g)^2 / 2, each has its g^2."""
    one = weights(patches=1)
    value, _ = penalised(Linear(), jnp.concatenate([one, one], axis=-1))
    assert_allclose(value, 2 * np.square(one).sum(), rtol=1e-5)


def test_r1_is_the_derivative_of_a_derivative():
    """Said so, of the form that takes all options."""
    net = Discriminator(channels=4, layers=1, norm="none", blur=3, spectral_norm=True)
    x = RNG.normal(size=(2, 12, 12, 3)).astype(np.float32)
    variables = jax.jit(lambda key: net.init(key, x, train=True))(jax.random.key(0))
    stats, params = {"batch_stats": variables["batch_stats"]}, variables["params"]
    look = jax.jit(
        lambda turn: judge(
            net, R1, params, begin_memory(R1) | stats, x, x, penalised=turn
        ),
        static_argnums=0,
    )

    @jax.jit
    @jax.value_and_grad
    def said(params):
        moved = stats
        for _ in range(2):  # reconstructions, then pictures

            def total(images, moved=moved):
                seen = {"params": params, **moved}
                logits, after = net.apply(
                    seen, images, train=True, mutable=["batch_stats"]
                )
                return logits.sum(), (after, logits[0].size)

            slope, (moved, patches) = jax.grad(total, has_aux=True)(x)
        return 10 / 2 * 4 * jnp.square(slope).sum() / len(x) / patches

    value, expected = said(params)
    with_, without = look(True), look(False)
    assert_allclose(20 * with_.report["r1"], value, rtol=1e-5)
    added = jax.tree.map(jnp.subtract, with_.grads, without.grads)
    jax.tree.map(
        lambda ours, theirs: assert_allclose(
            ours, theirs, rtol=0, atol=1e-4 * abs(theirs).max() + 1e-7
        ),
        added,
        expected,
    )


def test_the_last_r1_is_reported_until_it_is_taken_again():
    params = weights(patches=1)
    first = judge(Linear(), R1, params, begin_memory(R1), X, X_HAT, penalised=True)
    stats = remember(R1, first.stats, first.report)
    second = judge(Linear(), R1, params, stats, X, X_HAT)
    assert second.report["r1"] == first.report["r1"] > 0


def logits(*values):
    """Pictures of one pixel, of which `Linear` with weight w says w * value."""
    return np.array(values, np.float32).reshape(-1, 1, 1, 1)


def test_lecam_is_that_of_a_loop_over_the_steps():
    """Anchors are means over the steps before, of weights 0.9^age that sum to one."""
    loss = VQGANLoss(lecam_weight=0.5, lecam_decay=0.9)
    plain = VQGANLoss()
    stats, history = begin_memory(loss), []
    for step in range(4):
        w = 1.5 - 0.4 * step
        real, fake = np.random.default_rng(step).normal(0.2, 1.0, (2, 3))
        params = jnp.full((1, 1, 1, 1), w)
        pair = logits(*real), logits(*fake)
        says = judge(Linear(), loss, params, stats, *pair)
        stats = remember(loss, says.stats, says.report)

        lecam = slope = 0.0
        if history:
            ages = 0.9 ** np.arange(len(history))[::-1]
            past_real, past_fake = ages @ np.array(history) / ages.sum()
            for r, f in zip(real, fake, strict=True):
                apart = max(0, w * r - past_fake), max(0, past_real - w * f)
                lecam += (apart[0] ** 2 + apart[1] ** 2) / 3
                slope += (2 * apart[0] * r - 2 * apart[1] * f) / 3
        history.append([w * real.mean(), w * fake.mean()])

        without = judge(Linear(), plain, params, {}, *pair)
        assert_allclose(says.report["lecam"], lecam, rtol=1e-5, atol=1e-7)
        added = (says.grads - without.grads).item()
        assert_allclose(added, 0.5 * slope, rtol=1e-4, atol=1e-6)
        assert says.report["disc_loss"] == without.report["disc_loss"]
        assert_array_equal(says.cotangent, without.cotangent)


def test_without_regularisation_nothing_is_remembered():
    assert begin_memory(VQGANLoss()) == {}
    assert remember(VQGANLoss(), {"batch_stats": 1}, {}) == {"batch_stats": 1}


def test_the_share_of_right_answers_is_of_signs():
    """A logit of 0 is right for neither."""
    pair = logits(3, -1, 0, 1), logits(-1, -2, -3, 0)
    says = judge(Linear(), VQGANLoss(), jnp.ones((1, 1, 1, 1)), {}, *pair)
    assert (says.report["right_real"], says.report["right_fake"]) == (0.5, 0.75)


@pytest.mark.parametrize(
    ("kind", "slopes"),
    [
        ("hinge", [-1 / 3, -1 / 3, -1 / 3]),
        ("vanilla", [-1 / 3, -1 / 3, -1 / 3]),
        ("non_saturating", [-1 / 6, -1 / 12, -1 / 4]),
    ],
)
def test_the_generator_is_pulled_as_its_loss_says(kind, slopes):
    """D = 0, log 3, -log 3, with chances of 1/2, 3/4 and 1/4 to be real."""
    fake = logits(0, np.log(3), -np.log(3))
    loss = VQGANLoss(adversarial_loss=kind)
    says = judge(Linear(), loss, jnp.ones((1, 1, 1, 1)), {}, fake, fake)
    assert_allclose(says.cotangent.ravel(), slopes, rtol=1e-6)
