"""The losses of the first stage, as equations over arrays; float32 scalars.

    x      images [B,H,W,C] in [-1,1]          real, fake   logits of the
    x_hat  their reconstructions               discriminator [B,h',w',1]

Nothing here knows of networks or steps. Arguments of one type go by name.
"""

import jax
import jax.numpy as jnp
import optax

from taming_jax.models.schedules import ramp

__all__ = [
    "DISCRIMINATOR_LOSSES",
    "adaptive_weight",
    "difference_loss",
    "generator_loss",
    "hinge_loss",
    "l1_loss",
    "l2_loss",
    "ramp",
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


DISCRIMINATOR_LOSSES = {"hinge": hinge_loss, "vanilla": vanilla_loss}
