"""The discriminator's side of a step: what it thinks, and what it learns.

Real and generated pictures pass through it apart, as in the original, because its
batch normalisation must not mix them. Legend: x images, x_hat reconstructions, both
float32 [B,H,W,C] in [-1,1]; logits float32 [B,h',w',1], high where real; stats the
collections that its modules keep, {} where they keep none, and beside them what its
regularisation remembers from step to step, as the collection "memory".
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from taming_jax import losses
from taming_jax.models.discriminator import Discriminator
from taming_jax.training.loss_weights import VQGANLoss
from taming_jax.training.state import MEMORY


class Judgement(NamedTuple):
    """The discriminator's say on one batch; zero where it was not asked."""

    adversarial: jax.Array  # the generator's loss
    cotangent: jax.Array  # its gradient by x_hat
    grads: Any  # of all its losses, by the discriminator's parameters
    stats: Any  # afterwards
    report: dict[str, jax.Array]  # for the logs: REPORTED


# The discriminator's loss, and what regularises it, without weights; means of its
# logits; the share of them that has the right sign.
REPORTED = ("disc_loss", "lecam", "r1", "logits_real", "logits_fake", "right_real",
            "right_fake")  # fmt: skip


def judge(
    net: Discriminator,
    loss: VQGANLoss,
    params,
    stats,
    x,
    x_hat,
    *,
    penalised: bool = False,
) -> Judgement:
    """Both players' losses; one pass over the reconstructions serves both.

    penalised: whether R1 is taken, by a derivative of the pass over the real pictures.
    """
    players = losses.ADVERSARIAL_LOSSES[loss.adversarial_loss]
    see = _see_and_feel if penalised else _see
    fake, pull_fake, stats = jax.vjp(
        lambda p, images: _logits(net, p, stats, images), params, x_hat, has_aux=True
    )
    (real, penalty), pull_real, stats = jax.vjp(
        lambda p: see(net, p, stats, x), params, has_aux=True
    )
    adversarial, appeal = jax.value_and_grad(players.generator)(fake)
    (_, report), on = jax.value_and_grad(_disc_loss, has_aux=True)(
        {"real": real, "fake": fake}, loss, stats.get(MEMORY)
    )
    r1_weight = jnp.full_like(penalty, loss.r1_weight / 2 * loss.r1_every)
    (grads_real,) = pull_real((on["real"], r1_weight))
    grads_fake, _ = pull_fake(on["fake"])
    if loss.r1_weight:
        report["r1"] = penalty if penalised else stats[MEMORY]["r1"]
    return Judgement(
        adversarial=adversarial,
        cotangent=pull_fake(appeal)[1],
        grads=jax.tree.map(jnp.add, grads_real, grads_fake),
        stats=stats,
        report=report,
    )


def judge_generator(
    net: Discriminator, loss: VQGANLoss, params, stats, x_hat
) -> Judgement:
    """The generator's half alone."""
    players = losses.ADVERSARIAL_LOSSES[loss.adversarial_loss]

    def adversarial(x_hat):
        fake, moved = _logits(net, params, stats, x_hat)
        return players.generator(fake), moved

    (value, moved), cotangent = jax.value_and_grad(adversarial, has_aux=True)(x_hat)
    silent = abstain(params, moved, x_hat)
    return silent._replace(adversarial=value, cotangent=cotangent)


def judge_discriminator(
    net: Discriminator, loss: VQGANLoss, params, stats, x, x_hat
) -> Judgement:
    """The discriminator's half alone: reals first, as in the original."""

    def disc_loss(params):
        real, moved = _logits(net, params, stats, x)
        fake, moved = _logits(net, params, moved, x_hat)
        value, report = _disc_loss({"real": real, "fake": fake}, loss, None)
        return value, (moved, report)

    (_, (moved, report)), grads = jax.value_and_grad(disc_loss, has_aux=True)(params)
    return abstain(params, moved, x_hat)._replace(grads=grads, report=report)


def abstain(params, stats, x_hat) -> Judgement:
    """No judgement, as before `disc_start`: zeros, and statistics as they were."""
    zero, grads = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
    report = dict.fromkeys(REPORTED, zero)
    return Judgement(zero, jnp.zeros_like(x_hat), grads, stats, report)


def begin_memory(loss: VQGANLoss) -> dict[str, dict[str, jax.Array]]:
    """What is remembered at first: {"memory": float32 scalars}, {} if nothing is.

    real, fake: sums of the logits' means, each step's weight lecam_decay times that of
    the next; weight: the sum of these. So real / weight is a mean from the first step
    on. r1: the last that was taken, for the logs.
    """
    names = ("real", "fake", "weight") if loss.lecam_weight else ()
    names += ("r1",) if loss.r1_weight else ()
    return {MEMORY: {name: jnp.zeros(()) for name in names}} if names else {}


def remember(loss: VQGANLoss, stats, report: dict[str, jax.Array]) -> Any:
    """The statistics, with a memory of one step more, which has reported this."""
    if MEMORY not in stats:
        return stats
    memory, decay = dict(stats[MEMORY]), loss.lecam_decay
    if loss.lecam_weight:
        now = {"real": report["logits_real"], "fake": report["logits_fake"]}
        for name, value in (now | {"weight": 1.0}).items():
            memory[name] = decay * memory[name] + (1 - decay) * value
    if loss.r1_weight:
        memory["r1"] = report["r1"]
    return {**stats, MEMORY: memory}


def _logits(net: Discriminator, params, stats, images):
    """Logits, and the statistics afterwards."""
    kept = {name: stats[name] for name in stats if name != MEMORY}
    logits, moved = net.apply(
        {"params": params, **kept}, images, train=True, mutable=list(kept)
    )
    return logits, {**stats, **moved}


def _see(net: Discriminator, params, stats, x):
    """Logits and no penalty; statistics afterwards."""
    real, moved = _logits(net, params, stats, x)
    return (real, jnp.zeros(())), moved


def _see_and_feel(net: Discriminator, params, stats, x):
    """Logits, and how steep they are at the pictures; statistics afterwards.

    With g the slope, |g|^2 is how fast the logits rise along g, and its gradient by the
    parameters that of twice this rise along a g that is held. A rise takes convolutions
    like any other; g's own derivative takes others, ten times slower on CPUs.
    """

    def look(params):
        return lambda images: _logits(net, params, stats, images)

    hold = jax.lax.stop_gradient
    real, pull, _ = jax.vjp(look(hold(params)), x, has_aux=True)
    (slope,) = pull(jnp.ones_like(real))
    real, rise, moved = jax.jvp(look(params), (x,), (slope,), has_aux=True)
    patches = real[0].size
    rise = 2 * rise.sum() / len(x) / patches
    penalty = losses.r1_penalty(gradient=slope, patches=patches)
    return (real, penalty + rise - hold(rise)), moved


def _disc_loss(logits: dict[str, jax.Array], loss: VQGANLoss, memory):
    """The discriminator's losses of logits, weighted; and its report."""
    real, fake = logits["real"], logits["fake"]
    players = losses.ADVERSARIAL_LOSSES[loss.adversarial_loss]
    disc_loss, lecam = players.discriminator(real=real, fake=fake), jnp.zeros(())
    if loss.lecam_weight:
        begun = memory["weight"] > 0
        weight = jnp.where(begun, memory["weight"], 1.0)
        past = {f"past_{name}": memory[name] / weight for name in ("real", "fake")}
        lecam = jnp.where(begun, losses.lecam_loss(real=real, fake=fake, **past), 0.0)
    report = {
        "disc_loss": disc_loss,
        "lecam": lecam,
        "r1": jnp.zeros(()),
        "logits_real": real.mean(),
        "logits_fake": fake.mean(),
        "right_real": jnp.mean(real > 0),
        "right_fake": jnp.mean(fake < 0),
    }
    return disc_loss + loss.lecam_weight * lecam, report
