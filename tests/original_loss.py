"""The original's loss of both players, put together from our parts.

    Game, weights --generators_half--> logs, gradients, the discriminator's statistics
    those, and Game --discriminators_half--> logs, gradient, statistics

What is logged has the original's names.
"""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from taming_jax import losses
from taming_jax.models.discriminator import Discriminator
from taming_jax.models.perceptual import lpips


class Game(NamedTuple):
    """What the players' losses are taken of."""

    fields: dict  # the original's settings
    x: jax.Array
    generate: object  # weights -> (x_hat, codebook's loss)
    last: object  # a tree like the weights -> its part at the last kernel
    perceptual: dict
    net: Discriminator
    condition: jax.Array | None = None
    train: bool = True
    dropout: bool = False

    def look(self, params, stats, images):
        return self.net.apply(
            {"params": params, "batch_stats": stats}, images, train=self.train,
            condition=self.condition, mutable=["batch_stats"],
        )  # fmt: skip


def generators_half(game, weights, disc, started):
    """Its logs, and the gradients of the total loss by both players' weights."""
    fields, dropout = game.fields, {"dropout": 0.5, "key": jax.random.key(0)}

    def terms(weights, params):
        x_hat, codebook_loss = game.generate(weights)
        fake, moved = game.look(params, disc["batch_stats"], x_hat)
        options = dropout if game.dropout else {}
        p_loss = lpips(game.perceptual, game.x, x_hat, **options).mean()
        nll = losses.l1_loss(x=game.x, x_hat=x_hat)
        nll += fields["perceptual_weight"] * p_loss
        return (nll, losses.generator_loss(fake), codebook_loss), (p_loss, moved)

    (nll, g_loss, codebook_loss), pull, (p_loss, moved) = jax.vjp(
        terms, weights, disc["params"], has_aux=True
    )
    one, zero = jnp.ones(()), jnp.zeros(())
    d_weight = fields["disc_weight"] * losses.adaptive_weight(
        nll_gradient=game.last(pull((one, zero, zero))[0]),
        adversarial_gradient=game.last(pull((zero, one, zero))[0]),
    )
    factor = fields["disc_factor"] * started
    share, codebook_weight = d_weight * factor, one * fields["codebook_weight"]
    logs = {
        "total_loss": nll + share * g_loss + codebook_weight * codebook_loss,
        "quant_loss": codebook_loss,
        "nll_loss": nll,
        "rec_loss": nll,  # there, too, with the perceptual part
        "p_loss": fields["perceptual_weight"] and p_loss,
        "d_weight": d_weight,
        "disc_factor": factor,
        "g_loss": g_loss,
    }
    return logs, *pull((one, share, codebook_weight)), moved["batch_stats"]


def discriminators_half(game, weights, disc, stats, started):
    """Its logs, the gradient of its loss, and its statistics afterwards."""
    x_hat, _ = game.generate(weights)
    kind = losses.ADVERSARIAL_LOSSES[game.fields["disc_loss"]].discriminator

    def loss(params):
        real, moved = game.look(params, stats, game.x)
        fake, moved = game.look(params, moved["batch_stats"], x_hat)
        value = game.fields["disc_factor"] * started * kind(real=real, fake=fake)
        logs = {"logits_real": real.mean(), "logits_fake": fake.mean()}
        return value, (logs | {"disc_loss": value}, moved["batch_stats"])

    gradient, (logs, stats) = jax.grad(loss, has_aux=True)(disc["params"])
    return logs, gradient, stats


@cache
def compiled(make, name):
    """Both halves of the game `make(name)`, one after the other, by its weights."""
    game, weights, disc = make(name)

    def halves(weights, disc, started):
        first = generators_half(game, weights, disc, started)
        return first, discriminators_half(game, weights, disc, first[-1], started)

    return partial(jax.jit(halves), weights, disc)


def play(make, name, started):
    """What both halves give where the discriminator counts (1.0) or not yet (0.0)."""
    return compiled(make, name)(started)
