"""The losses of the first stage, as equations over arrays; float32 scalars.

    x      images [B,H,W,C] in [-1,1]          real, fake   logits of the
    x_hat  their reconstructions               discriminator [B,h',w',1]

Nothing here knows of networks or steps. Arguments of one type go by name.
"""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from taming_jax.models.schedules import ramp

__all__ = [
    "DISCRIMINATOR_LOSSES",
    "adaptive_weight",
    "cross_entropy_loss",
    "difference_loss",
    "generator_loss",
    "hinge_loss",
    "l1_loss",
    "l2_loss",
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
    """-mean D(x_hat), for either loss of the discriminator."""
    return -jnp.mean(fake)


def hinge_loss(*, real, fake) -> jax.Array:
    """(mean relu(1 - D(x)) + mean relu(1 + D(x_hat))) / 2."""
    return 0.5 * (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake)))


def vanilla_loss(*, real, fake) -> jax.Array:
    """(mean softplus(-D(x)) + mean softplus(D(x_hat))) / 2."""
    return 0.5 * (jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake)))


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


DISCRIMINATOR_LOSSES = {"hinge": hinge_loss, "vanilla": vanilla_loss}
