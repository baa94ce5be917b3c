"""One step of the first stage: images in, a better autoencoder and discriminator out.

Everything happens in one compiled function per phase. The autoencoder runs once and is
differentiated once: the two losses give two cotangents at the reconstruction, the
adaptive weight joins them, and one backward pass takes the sum through decoder and
encoder. The weight needs gradients at the decoder's last kernel only; these are
linear in the cotangents, so the same pull-back gives them and the compiler removes
the rest of it (Esser et al. 2021, equation 7).

Legend: x images, x_hat reconstructions, both float32 [B,H,W,C] in [-1,1]. In a
tokenizer of class maps, what goes in is int32 [B,H,W], x its one-hot, x_hat logits.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from taming_jax import losses
from taming_jax.models.discriminator import Discriminator
from taming_jax.models.vqgan import LAST_KERNEL, VQGAN
from taming_jax.training import adversary as adversaries
from taming_jax.training.accumulation import accumulate
from taming_jax.training.loss_weights import VQGANLoss
from taming_jax.training.nll import (
    CLASS_TERMS,
    IMAGE_TERMS,
    nll_of_classes,
    nll_of_images,
)
from taming_jax.training.optimizer import apply_gradients, make_optimizer
from taming_jax.training.phases import Phase
from taming_jax.training.recipe import VQGANRecipe
from taming_jax.training.state import Adversary, TrainState, advance, ema_update

# What a key is for: keys are fold_in(fold_in(key(seed), step), PURPOSE).
QUANTIZE, DROPOUT, REVIVE, SECOND_LOOK, PERCEPTUAL = range(5)

# What still learns once the codes are frozen.
DECODER_SIDE = ("decoder", "post_quant_conv")


def terms_of(model: VQGAN) -> tuple[str, ...]:
    """What is watched for NaN and infinity, in the order of its making."""
    return (
        *(CLASS_TERMS if model.classes else IMAGE_TERMS),
        "codebook_loss", "adversarial", "adaptive_weight", "disc_loss", "lecam", "r1",
        "grad_norm", "disc_grad_norm",
    )  # fmt: skip


class Means(NamedTuple):
    """What is averaged over the micro-batches of a step."""

    grads: Any
    disc_grads: Any
    metrics: dict[str, jax.Array]


class Samples(NamedTuple):
    """What is kept of all of them: codes [B,h,w] and latents [B,h,w,D]."""

    codes: jax.Array
    latents: jax.Array


def make_train_step(
    recipe: VQGANRecipe,
    model: VQGAN,
    discriminator: Discriminator | None,
    seed: int,
    phase: Phase,
) -> Callable[[TrainState, dict, Any], tuple[TrainState, dict]]:
    """Builds `step(state, batch, perceptual_params) -> (state, metrics)`, to be jitted.

    It serves the steps of `phase`; the state has the same form in every one.
    `batch` has the entry that `recipe.input` names, as `maps` lists them; an image may
    be float32 in [-1,1], too. A step whose losses or gradients are not finite leaves
    the state as it was, but for `step` and `nonfinite`; its metrics name the first bad
    term as `nonfinite_term`, an index into `terms_of(model)` (-1: none).
    """
    loss, run, watched = recipe.loss, recipe.run, terms_of(model)
    optimizer = make_optimizer(recipe.optimizer, run.steps)
    disc_optimizer = make_optimizer(recipe.disc_optimizer, run.steps)

    def step(state: TrainState, batch: dict, perceptual: Any):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        inputs = recipe.input.read(batch[recipe.input.kind])
        adversary = state.adversary

        # Reconstruct, judge and weigh.
        (codebook, stats), means, samples = accumulate(
            lambda carry, inputs, part: _differentiate(
                loss, model, discriminator, phase, state, carry, inputs, perceptual,
                _rngs(key, part),
            ),
            (state.codebook, adversary.stats if adversary else {}),
            inputs, run.accumulate,
        )  # fmt: skip
        metrics = dict(means.metrics)

        # Update the generator, then what its quantizer sets by hand.
        learning = _learning(state.params) if phase.frozen else None
        params, opt_state, metrics["grad_norm"] = apply_gradients(
            optimizer, means.grads, state.opt_state, state.params, learning
        )
        if not phase.frozen:
            params, codebook = model.after_update(
                params, codebook, samples.latents,
                step=state.step, key=jax.random.fold_in(key, REVIVE),
            )  # fmt: skip

        # Update the discriminator; in the original's order it sees the new generator.
        metrics["disc_grad_norm"] = jnp.zeros(())
        if phase.judged:
            disc_grads = means.disc_grads
            if loss.alternating:
                rngs = _rngs(jax.random.fold_in(key, SECOND_LOOK), 0)
                says = _look_again(
                    loss, model, discriminator, state, params, codebook, stats, inputs,
                    rngs,
                )  # fmt: skip
                disc_grads, stats = says.grads, says.stats
                metrics |= says.report
            stats = adversaries.remember(loss, stats, metrics)
            disc_params, disc_opt_state, metrics["disc_grad_norm"] = apply_gradients(
                disc_optimizer, disc_grads, adversary.opt_state, adversary.params
            )
            adversary = Adversary(disc_params, stats, disc_opt_state)

        # Average, and report.
        renewed = state.replace(
            params=params,
            codebook=codebook,
            opt_state=opt_state,
            ema=ema_update(state.ema, params, run.ema_decay, state.step),
            adversary=adversary,
            usage=state.usage.add(samples.codes),
        )
        terms = [metrics[name] for name in watched]
        state, metrics["nonfinite_term"] = advance(state, renewed, terms)
        return state, metrics | state.usage.metrics()

    return step


def _differentiate(
    loss, model, discriminator, phase, state, carry, inputs, perceptual, rngs
):
    """One forward and one backward pass of the autoencoder, for `accumulate`."""
    codebook, stats = carry
    x = model.target(inputs)

    def generate(params):
        if phase.frozen:  # no gradient goes where nothing learns
            params = _freeze(params)
        x_hat, quantized, moved = _reconstruct(
            model, params, codebook, inputs, state.step, rngs
        )
        return (x_hat, quantized.loss), (quantized, moved)

    (x_hat, codebook_loss), pull, (quantized, codebook) = jax.vjp(
        generate, state.params, has_aux=True
    )
    nll = nll_of_classes if model.classes else nll_of_images
    (_, terms), nll_cotangent = jax.value_and_grad(nll, argnums=1, has_aux=True)(
        x, x_hat, loss, perceptual, rngs["perceptual"]
    )
    says = _ask(loss, model, discriminator, phase, state, stats, x, x_hat)
    weights = _weigh(loss, phase, pull, codebook_loss, nll_cotangent, says, state)

    cotangent = nll_cotangent + weights["adversarial_weight"] * says.cotangent
    codebook_weight = jnp.full_like(codebook_loss, loss.codebook_weight)
    (grads,) = pull((cotangent, codebook_weight))
    metrics = terms | {
        "codebook_loss": codebook_loss,
        "adversarial": says.adversarial,
        **weights,
        **says.report,
        **{f"quantizer_{name}": stat for name, stat in quantized.stats.items()},
    }
    samples = Samples(quantized.codes, quantized.latents)
    return (codebook, says.stats), Means(grads, says.grads, metrics), samples


def _reconstruct(model: VQGAN, params, codebook, inputs, step, rngs):
    (x_hat, quantized), moved = model.apply(
        {"params": params, "codebook": codebook},
        inputs, train=True, step=step, rngs=rngs, mutable=["codebook"],
    )  # fmt: skip
    return x_hat, quantized, moved["codebook"]


def _ask(loss: VQGANLoss, model, discriminator, phase, state, stats, x, x_hat):
    """The discriminator's judgement, if there is one and its time has come."""
    if not phase.judged:
        return adversaries.abstain({}, stats, x_hat)
    params = state.adversary.params
    seen, pull = jax.vjp(model.estimate, x_hat)
    if loss.alternating:
        says = adversaries.judge_generator(discriminator, loss, params, stats, seen)
    else:
        says = adversaries.judge(
            discriminator, loss, params, stats, x, seen, penalised=phase.penalised
        )
    return says._replace(cotangent=pull(says.cotangent)[0])


def _weigh(loss: VQGANLoss, phase, pull, codebook_loss, nll_cotangent, says, state):
    """What the adversarial cotangent is multiplied with, and why: for the logs."""

    def at_last_kernel(cotangent):
        (grads,) = pull((cotangent, jnp.zeros_like(codebook_loss)))
        for name in LAST_KERNEL:
            grads = grads[name]
        return grads

    adaptive, nll_norm, adversarial_norm = jnp.ones(()), jnp.zeros(()), jnp.zeros(())
    if phase.judged:
        nll = at_last_kernel(nll_cotangent)
        adversarial = at_last_kernel(says.cotangent)
        nll_norm, adversarial_norm = optax.tree.norm(nll), optax.tree.norm(adversarial)
    if phase.judged and loss.adaptive_weight:
        adaptive = losses.adaptive_weight(
            nll_gradient=nll, adversarial_gradient=adversarial
        )
    counts = losses.ramp(
        state.step, start=loss.adversarial_start, length=loss.adversarial_ramp
    )
    return {
        "nll_grad_norm": nll_norm,
        "adversarial_grad_norm": adversarial_norm,
        "adaptive_weight": adaptive,
        "adversarial_weight": loss.adversarial_weight * counts * adaptive,
    }


def _look_again(
    loss, model, discriminator, state, params, codebook, stats, inputs, rngs
):
    """The original's second half: the discriminator's loss on the updated generator.

    Before `disc_start` the loss counts zero, but Adam counts the step: as there.
    """
    x_hat, _, _ = _reconstruct(model, params, codebook, inputs, state.step, rngs)
    says = adversaries.judge_discriminator(
        discriminator, loss, state.adversary.params, stats,
        model.target(inputs), model.estimate(x_hat),
    )  # fmt: skip
    counts = jnp.where(state.step >= loss.disc_start, 1.0, 0.0)
    grads = jax.tree.map(lambda g: g * counts, says.grads)
    report = says.report | {"disc_loss": says.report["disc_loss"] * counts}
    return says._replace(grads=grads, report=report)


def _freeze(params):
    """The same, with no gradient by what is not the decoder's."""
    return {
        part: tree if part in DECODER_SIDE else jax.lax.stop_gradient(tree)
        for part, tree in params.items()
    }


def _learning(params):
    """1.0 for each parameter of the decoder's side, 0.0 for a frozen one."""
    return {
        part: jax.tree.map(lambda _, part=part: float(part in DECODER_SIDE), tree)
        for part, tree in params.items()
    }


def _rngs(key, part):
    """Keys of one micro-batch by purpose, as linen's named streams; one is not its."""
    purposes = {"quantizer": QUANTIZE, "dropout": DROPOUT, "perceptual": PERCEPTUAL}
    return {
        name: jax.random.fold_in(jax.random.fold_in(key, purpose), part)
        for name, purpose in purposes.items()
    }
