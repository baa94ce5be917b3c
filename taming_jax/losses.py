"""The losses of the first stage, as equations over arrays; float32 scalars.

    x      images [B,H,W,C] in [-1,1]          real, fake   logits of the
    x_hat  their reconstructions               discriminator [B,h',w',1]

Nothing here knows of networks or steps. Arguments of one type go by name.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from taming_jax.models.schedules import ramp

__all__ = [
    "ADVERSARIAL_LOSSES",
    "adaptive_weight",
    "cross_entropy_loss",
    "difference_loss",
    "generator_loss",
    "hinge_loss",
    "l1_loss",
    "l2_loss",
    "lecam_loss",
    "non_saturating_loss",
    "r1_penalty",
    "ramp",
    "sharpness_loss",
    "vanilla_loss",
]


def l1_loss(*, x, x_hat) -> jax.Array:
    """mean |x - x_hat|."""
    return jnp.mean(jnp.abs(x - x_hat))


def l2_loss(*, x, x_hat) -> jax.Array:
    """mean (x - x_hat)^2."""
    return jnp.mean(jnp.square(x - x_hat))


def difference_loss(*, x, x_hat) -> jax.Array:
    """L1 between neighbouring pixels' differences, down and across: sharper edges."""
    error = x - x_hat
    return sum(jnp.mean(jnp.abs(jnp.diff(error, axis=axis))) for axis in (1, 2))


def sharpness_loss(*, x, x_hat) -> jax.Array:
    """mean |s(x) - s(x_hat)|, s the root mean square of differences in 4 x 4 pixels.

    Where an edge may lie here or there, every loss between pixels is least for a blur.
    A blur rises as high as an edge, in smaller steps: the sum of its differences is the
    same, that of their squares is not. This one asks for as much of them as there is,
    and leaves open where (after the variances of Abrahamyan et al. 2022).
    """
    return jnp.mean(jnp.abs(_sharpness(x) - _sharpness(x_hat)))


def cross_entropy_loss(*, one_hot, logits) -> jax.Array:
    """mean of -t log s(l) - (1 - t) log s(-l), s the logistic function.

    Of class maps, t one-hot and l logits [B,H,W,C]: whether a pixel is of a class is
    asked for each class by itself, as in the original.
    """
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, one_hot))


def generator_loss(fake) -> jax.Array:
    """-mean D(x_hat): it pulls as hard at a patch that passes for real as at any."""
    return -jnp.mean(fake)


def non_saturating_loss(fake) -> jax.Array:
    """mean softplus(-D(x_hat)): little is asked of what passes for real already.

    With the vanilla loss this is the game of Goodfellow et al. 2014, in the form that
    does not saturate.
    """
    return jnp.mean(jax.nn.softplus(-fake))


def hinge_loss(*, real, fake) -> jax.Array:
    """(mean relu(1 - D(x)) + mean relu(1 + D(x_hat))) / 2."""
    return 0.5 * (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake)))


def vanilla_loss(*, real, fake) -> jax.Array:
    """(mean softplus(-D(x)) + mean softplus(D(x_hat))) / 2."""
    return 0.5 * (jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake)))


def lecam_loss(*, real, fake, past_real, past_fake) -> jax.Array:
    """mean relu(D(x) - a_fake)^2 + mean relu(a_real - D(x_hat))^2.

    The a are what the discriminator used to say of the other side's pictures, moving
    averages of its logits' means: it may not run away from them (Tseng et al. 2021,
    with the relu of its authors' code).
    """
    apart_real = jax.nn.relu(real - past_fake)
    apart_fake = jax.nn.relu(past_real - fake)
    return jnp.mean(jnp.square(apart_real)) + jnp.mean(jnp.square(apart_fake))


def r1_penalty(*, gradient, patches: int) -> jax.Array:
    """mean |g|^2 / patches, g the gradient of the sum of D(x) by x, for each picture.

    Of one logit per picture it is R1 of Mescheder et al. 2018, without their gamma / 2.
    Of several it is each one's share, which does not grow with the pictures.
    """
    return jnp.mean(jnp.square(gradient).sum((1, 2, 3))) / patches


def adaptive_weight(*, nll_gradient, adversarial_gradient) -> jax.Array:
    """|d nll| / (|d g| + 1e-4), at most 1e4; gradients at the last kernel.

    The weight at which both terms pull equally hard at the decoder's last layer
    (Esser et al. 2021, equation 7). Trees of arrays are taken as one vector.
    """
    nll = optax.tree.norm(nll_gradient)
    adversarial = optax.tree.norm(adversarial_gradient)
    weight = jnp.clip(nll / (adversarial + 1e-4), 0.0, 1e4)
    return jax.lax.stop_gradient(weight)


def _sharpness(images):
    """In windows that overlap by half: [B,H,W,C] -> [B,H/2,W/2,1]."""
    down, across = (jnp.square(jnp.diff(images, axis=axis)) for axis in (1, 2))
    squares = (down[:, :, :-1] + across[:, :-1]).mean(-1, keepdims=True)
    # Within the root 1e-5, below one grey level: a flat window has a gradient, too.
    return jnp.sqrt(nn.avg_pool(squares, (4, 4), (2, 2), "SAME") + 1e-5)


class Players(NamedTuple):
    """What each of the two minimises."""

    discriminator: Callable[..., jax.Array]  # of real and fake, by name
    generator: Callable[[jax.Array], jax.Array]  # of fake


ADVERSARIAL_LOSSES = {
    "hinge": Players(hinge_loss, generator_loss),
    "vanilla": Players(vanilla_loss, generator_loss),
    "non_saturating": Players(vanilla_loss, non_saturating_loss),
}
