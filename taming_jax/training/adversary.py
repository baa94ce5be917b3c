"""The discriminator's side of a step: what it thinks, and what it learns.

Real and generated pictures pass through it apart, as in the original, because its
batch normalisation must not mix them. Legend: x images, x_hat reconstructions, both
float32 [B,H,W,C] in [-1,1]; logits float32 [B,h',w',1], high where real; stats the
running statistics of its normalisation, {} where it has none.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from taming_jax import losses
from taming_jax.models.discriminator import Discriminator


class Judgement(NamedTuple):
    """The discriminator's say on one batch; zero where it was not asked."""

    adversarial: jax.Array  # the generator's loss
    cotangent: jax.Array  # its gradient by x_hat
    disc_loss: jax.Array
    grads: Any  # of disc_loss, by the discriminator's parameters
    stats: Any  # afterwards
    logits_real: jax.Array  # means over the batch
    logits_fake: jax.Array


def judge(net: Discriminator, kind: str, params, stats, x, x_hat) -> Judgement:
    """Both players' losses; one pass over the reconstructions serves both."""
    fake, pull_fake, stats = jax.vjp(
        lambda p, images: _logits(net, p, stats, images), params, x_hat, has_aux=True
    )
    real, pull_real, stats = jax.vjp(
        lambda p: _logits(net, p, stats, x), params, has_aux=True
    )
    adversarial, appeal = jax.value_and_grad(losses.generator_loss)(fake)
    disc_loss, on = jax.value_and_grad(_disc_loss)({"real": real, "fake": fake}, kind)
    (grads_real,), (grads_fake, _) = pull_real(on["real"]), pull_fake(on["fake"])
    return Judgement(
        adversarial=adversarial,
        cotangent=pull_fake(appeal)[1],
        disc_loss=disc_loss,
        grads=jax.tree.map(jnp.add, grads_real, grads_fake),
        stats=stats,
        logits_real=real.mean(),
        logits_fake=fake.mean(),
    )


def judge_generator(net: Discriminator, params, stats, x_hat) -> Judgement:
    """The generator's half alone."""

    def adversarial(x_hat):
        fake, moved = _logits(net, params, stats, x_hat)
        return losses.generator_loss(fake), (moved, fake.mean())

    (loss, (moved, fake)), cotangent = jax.value_and_grad(adversarial, has_aux=True)(
        x_hat
    )
    silent = abstain(params, moved, x_hat)
    return silent._replace(adversarial=loss, cotangent=cotangent, logits_fake=fake)


def judge_discriminator(
    net: Discriminator, kind: str, params, stats, x, x_hat
) -> Judgement:
    """The discriminator's half alone: reals first, as in the original."""

    def disc_loss(params):
        real, moved = _logits(net, params, stats, x)
        fake, moved = _logits(net, params, moved, x_hat)
        loss = _disc_loss({"real": real, "fake": fake}, kind)
        return loss, (moved, real.mean(), fake.mean())

    (loss, (moved, real, fake)), grads = jax.value_and_grad(disc_loss, has_aux=True)(
        params
    )
    return abstain(params, moved, x_hat)._replace(
        disc_loss=loss, grads=grads, logits_real=real, logits_fake=fake
    )


def abstain(params, stats, x_hat) -> Judgement:
    """No judgement, as before `disc_start`: zeros, and statistics as they were."""
    zero, grads = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
    return Judgement(zero, jnp.zeros_like(x_hat), zero, grads, stats, zero, zero)


def _logits(net: Discriminator, params, stats, images):
    return net.apply(
        {"params": params, **stats}, images, train=True, mutable=list(stats)
    )


def _disc_loss(logits: dict[str, jax.Array], kind: str) -> jax.Array:
    return losses.DISCRIMINATOR_LOSSES[kind](**logits)
