"""The loss of both players, as `original_loss` puts it together, against golden 08.

Each recorded block is the generator's half and then the discriminator's, by the same
weights, one step before the discriminator counts ("before") or at that step ("at").
"08_loss_variants" is the loss alone, on tanh(convolution) for a decoder, in three
variants; "08_vqlpips_training" is a whole model, in training, in evaluation ("val"),
and with the original's dropout in LPIPS.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import OF_NO_USE, golden, nhwc, vqgan_fields
from numpy.testing import assert_allclose
from original_loss import Game, discriminators_half, generators_half, play
from published import VQ_MODEL, actnorm_completed

from taming_jax.interop.actnorm import joined
from taming_jax.interop.names import (
    DISCRIMINATOR,
    DISCRIMINATOR_ACTNORM,
    PERCEPTUAL,
)
from taming_jax.interop.tables import to_theirs
from taming_jax.models.discriminator import Discriminator
from taming_jax.models.vqgan import LAST_KERNEL, VQGAN

ALONE, TRAINING = golden("08_loss_variants"), golden("08_vqlpips_training")
VARIANTS = ALONE.config["variants"]
DEFAULTS = {
    "codebook_weight": 1.0,
    "disc_factor": 1.0,
    "disc_weight": 1.0,
    "perceptual_weight": 1.0,
    "disc_loss": "hinge",
    "use_actnorm": False,
    "disc_conditional": False,
}


def assert_all_equal(case, start, ours):
    """Compare with what is recorded under this name, and miss nothing of it."""
    recorded = {
        name.removeprefix(start)
        for name in case.outputs
        if name.startswith(start) and not name.endswith(OF_NO_USE)
    }
    assert recorded <= ours.keys()
    for name in recorded:
        expected, full = case.outputs[start + name], start + name
        tolerance = case.tolerance(full) if full in case.deviations else {"atol": 0}
        assert_allclose(ours[name], expected, **tolerance, err_msg=full)


def under(prefix, named):
    return {f"{prefix}{name}": value for name, value in named.items()}


# The loss alone.


def alone(variant):
    fields = DEFAULTS | VARIANTS[variant]
    net = Discriminator(
        channels=fields["disc_ndf"],
        layers=fields["disc_num_layers"],
        norm="act" if fields["use_actnorm"] else "batch",
    )
    disc = ALONE.variables(table_of(variant), f"{variant}/discriminator.")
    if fields["use_actnorm"]:
        disc = actnorm_completed(disc)

    def generate(kernel):
        return tanh_of_convolution(kernel), ALONE.inputs["qloss"].mean()

    game = Game(
        fields=fields,
        x=nhwc(ALONE.inputs["x"]),
        generate=generate,
        last=lambda kernel: kernel,
        perceptual=ALONE.variables(PERCEPTUAL, "perceptual_loss/"),
        net=net,
        condition=nhwc(ALONE.inputs["cond"]) if fields["disc_conditional"] else None,
    )
    return game, ALONE.inputs["last_layer"].transpose(2, 3, 1, 0), disc


def table_of(variant):
    act = VARIANTS[variant].get("use_actnorm")
    return DISCRIMINATOR_ACTNORM if act else DISCRIMINATOR


def tanh_of_convolution(kernel):
    layout = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(
        nhwc(ALONE.inputs["features"]), kernel, (1, 1), "SAME", dimension_numbers=layout
    )
    return jnp.tanh(x)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("when", ["before", "at"])
def test_every_variant_of_the_loss_equals_the_originals(variant, when):
    first, (disc_logs, gradient, stats) = play(alone, variant, float(when == "at"))
    logs, by_kernel, by_disc, _ = first
    table, after = table_of(variant), alone(variant)[-1] | {"batch_stats": stats}
    if table is DISCRIMINATOR_ACTNORM:
        after = joined(after)
    ours = {
        "opt0/loss": logs["total_loss"],
        **under("opt0/log/train/", logs),
        "opt0/grad_last_layer": by_kernel.transpose(3, 2, 0, 1),
        **under("opt0/grad_disc/", to_theirs(table, {"params": by_disc})),
        "opt1/loss": disc_logs["disc_loss"],
        **under("opt1/log/train/", disc_logs),
        **under("opt1/grad_disc/", to_theirs(table, {"params": gradient})),
        **under("after/", to_theirs(table, after)),
    }
    assert_all_equal(ALONE, f"{variant}/{when}/", ours)


# A whole model.


def whole(mode):
    params = TRAINING.config["params"]
    fields = DEFAULTS | params["lossconfig"]["params"]
    weights = TRAINING.variables(VQ_MODEL)
    model, x = VQGAN(**vqgan_fields(params)), TRAINING.inputs["x"][0]  # NHWC already

    def generate(weights):
        x_hat, quantized = model.apply({"params": weights}, x, train=mode != "val")
        return x_hat, quantized.loss

    game = Game(
        fields=fields,
        x=x,
        generate=generate,
        last=lambda weights: weights[LAST_KERNEL[0]][LAST_KERNEL[1]][LAST_KERNEL[2]],
        perceptual=weights["perceptual"],
        net=Discriminator(
            channels=fields["disc_ndf"], layers=fields["disc_num_layers"]
        ),
        train=mode != "val",
        dropout=mode == "lpips_dropout",
    )
    return game, weights["generator"], weights["discriminator"]


def named(**parts):
    """Trees of ours under the names of a whole checkpoint there."""
    return to_theirs(VQ_MODEL, parts)


def lengths(gradients):
    """Of every gradient in the recorded order; -1 for what is not learned."""
    names = TRAINING.config["param_names"]
    return [np.linalg.norm(gradients[n]) if n in gradients else -1 for n in names]


@pytest.mark.parametrize("when", ["before", "at"])
def test_a_step_of_both_players_equals_the_originals(when):
    started = float(when == "at")
    first, (disc_logs, disc_grads, stats) = play(whole, "train", started)
    logs, grads, _, moved = first
    grads = named(generator=grads)
    disc_grads = named(discriminator={"params": disc_grads})
    total, disc_loss = logs["total_loss"], disc_logs["disc_loss"]
    ours = {
        "opt0/loss": total,
        **under("opt0/log/train/", logs | {"aeloss": total}),
        **under("opt0/grad/", grads),
        "opt0/grad_l2": lengths(grads),
        **under("opt0/after/", named(discriminator={"batch_stats": moved})),
        "opt1/loss": disc_loss,
        **under("opt1/log/train/", disc_logs | {"discloss": disc_loss}),
        **under("opt1/grad/", disc_grads),
        "opt1/grad_l2": lengths(disc_grads),
        **under("opt1/after/", named(discriminator={"batch_stats": stats})),
    }
    assert_all_equal(TRAINING, f"{when}/", ours)


def test_a_step_with_dropout_in_lpips_equals_the_originals(monkeypatch):
    masks = iter([nhwc(TRAINING.inputs[f"lpips_keep_mask_{i}"]) for i in range(5)])
    monkeypatch.setattr(jax.random, "bernoulli", lambda *_: jnp.ravel(next(masks)))
    game, weights, disc = whole("lpips_dropout")
    half = jax.jit(partial(generators_half, game))
    logs, grads, *_ = half(weights, disc, 1.0)
    grads = named(generator=grads)
    ours = {
        "loss": logs["total_loss"],
        **under("log/train/", logs | {"aeloss": logs["total_loss"]}),
        **under("grad/", grads),
        "grad_l2": lengths(grads),
    }
    assert_all_equal(TRAINING, "lpips_dropout/opt0/", ours)


@cache
def evaluated():
    """The logs alone, so that only their gradients are computed."""
    game, weights, disc = whole("val")

    @jax.jit
    def halves(weights, disc):
        logs, *_ = generators_half(game, weights, disc, 1.0)
        stats = disc["batch_stats"]
        return logs, discriminators_half(game, weights, disc, stats, 1.0)[0]

    return halves(weights, disc)


@pytest.mark.parametrize("start", ["val/log/val/", "val_nograd/log/val/"])
def test_the_losses_in_evaluation_equal_the_originals(start):
    logs, disc_logs = evaluated()
    if start.startswith("val_nograd"):  # without gradients: no weight
        logs = logs | {
            "d_weight": 0.0,
            "total_loss": logs["nll_loss"] + logs["quant_loss"],
        }
    ours = logs | disc_logs | {"aeloss": logs["total_loss"]}
    assert_all_equal(TRAINING, start, ours)
