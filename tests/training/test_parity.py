"""The first stage's step against the original: five Adam steps of both players."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import golden, nhwc, vqgan_fields
from published import VQ_MODEL

from taming_jax.interop.tables import to_theirs
from taming_jax.models.discriminator import Discriminator
from taming_jax.models.vqgan import VQGAN
from taming_jax.training.phases import phase_at
from taming_jax.training.recipe import VQGANRecipe
from taming_jax.training.vqgan import make_init
from taming_jax.training.vqgan_step import make_train_step

STEPS = 5


def nll(metrics):
    return metrics["l1"] + metrics["perceptual"]


def total(metrics):
    adversarial = metrics["adversarial_weight"] * metrics["adversarial"]
    return nll(metrics) + metrics["codebook_loss"] + adversarial


# Sums that the original logs and we do not.
TOTALS = {"nll": nll, "total": total}


@functools.cache
def trained():
    """The golden run, redone.

    The case; metrics and codes of each step, codes before and after the generator's
    update; first and final weights by name; what is made of a picture in the end.
    """
    case = golden("08_vqlpips_training")
    params, adam = case.config["params"], case.config["adam"]
    loss = params["lossconfig"]["params"]
    recipe = VQGANRecipe.from_config(
        {
            "model": vqgan_fields(params),
            "discriminator": {
                "channels": loss["disc_ndf"],
                "layers": loss["disc_num_layers"],
            },
            "perceptual_weight": loss["perceptual_weight"],
            "adversarial_weight": loss["disc_weight"],
            "disc_start": loss["disc_start"],
            "alternating": True,
            "learning_rate": case.config["learning_rate"],
            "optimizer": dict(zip(("b1", "b2"), adam["betas"], strict=True)),
            "steps": STEPS,
            "batch_size": 2,
        }
    )
    model = VQGAN(**recipe.model)
    discriminator = Discriminator(**recipe.discriminator)
    weights = case.variables(VQ_MODEL)
    state = make_init(recipe, model, discriminator)(jax.random.key(0))
    adversary = state.adversary.replace(
        params=weights["discriminator"]["params"],
        stats={"batch_stats": weights["discriminator"]["batch_stats"]},
    )
    state = state.replace(params=weights["generator"], adversary=adversary)
    phase = phase_at(recipe.loss, 0)  # the only one, in the original's order
    step = jax.jit(make_train_step(recipe, model, discriminator, 0, phase))
    first, metrics, codes = named(state), [], []
    encode = jax.jit(lambda params, x: model.apply({"params": params}, x, train=False))
    with jax.default_matmul_precision("highest"):
        for x in case.inputs["x"]:
            batch = {"image": jnp.asarray(x)}  # NHWC already, unlike other inputs
            before = encode(state.params, x)[1].codes
            state, measured = step(state, batch, weights["perceptual"])
            metrics.append(jax.device_get(measured))
            codes.append([before.ravel(), encode(state.params, x)[1].codes.ravel()])
        x_hat, _ = encode(state.params, case.inputs["x"][0])
    return case, metrics, np.array(codes), first, named(state), x_hat


def named(state):
    """The weights of both players under the original's names."""
    adversary = {"params": state.adversary.params, **state.adversary.stats}
    return to_theirs(VQ_MODEL, {"generator": state.params, "discriminator": adversary})


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("codebook_loss", "quant_loss"),
        ("perceptual", "p_loss"),
        ("adversarial", "g_loss"),
        ("disc_loss", "disc_loss"),
        ("disc_loss", "discloss"),
        ("logits_real", "logits_real"),
        ("logits_fake", "logits_fake"),
        ("nll", "nll_loss"),
        ("nll", "rec_loss"),
        ("total", "total_loss"),
        ("total", "aeloss"),
    ],
)
def test_losses_of_every_step_are_the_originals(ours, theirs):
    case, metrics, *_ = trained()
    name = f"steps/train/{theirs}"
    measured = [TOTALS[ours](m) if ours in TOTALS else m[ours] for m in metrics]
    np.testing.assert_allclose(measured, case.outputs[name], **case.tolerance(name))


def test_the_adaptive_weight_is_the_originals():
    case, metrics, *_ = trained()
    name = "steps/train/d_weight"
    weight = case.config["params"]["lossconfig"]["params"]["disc_weight"]
    measured = [m["adaptive_weight"] * weight for m in metrics]
    np.testing.assert_allclose(measured, case.outputs[name], **case.tolerance(name))


def test_the_adversary_counts_from_its_start():
    case, metrics, *_ = trained()
    factor = case.outputs["steps/train/disc_factor"]
    counted = [m["adversarial_weight"] > 0 for m in metrics]
    np.testing.assert_array_equal(counted, factor > 0)


def final_names():
    case = golden("08_vqlpips_training")
    names = [n.removeprefix("final/") for n in case.outputs if n.startswith("final/")]
    # Where the true gradient is zero Adam makes noise of rounding: nothing to compare.
    noise = case.config["noise_dominated_params"]
    return [n for n in names if n not in noise and "num_batches_tracked" not in n]


@pytest.mark.parametrize("name", final_names())
def test_weights_after_five_steps_are_the_originals(name):
    case, *_, final, _ = trained()
    expected = case.outputs[f"final/{name}"]
    np.testing.assert_allclose(final[name], expected, **case.tolerance(f"final/{name}"))


def test_codes_of_every_step_are_the_originals():
    case, _, codes, *_ = trained()
    np.testing.assert_array_equal(codes, case.outputs["steps/indices"])


@pytest.mark.parametrize(
    ("name", "measure"), [("delta_l2", np.linalg.norm), ("delta_sum", np.sum)]
)
def test_every_weight_has_moved_as_far_as_the_originals(name, measure):
    case, _, _, first, final, _ = trained()
    noise = case.config["noise_dominated_params"]  # recorded as 0
    names = case.config["param_names"]
    moved = [0 if n in noise else measure(final[n] - first[n]) for n in names]
    name = f"final_{name}"
    np.testing.assert_allclose(moved, case.outputs[name], **case.tolerance(name))


def test_reconstructions_after_five_steps_are_the_originals():
    case, *_, x_hat = trained()
    name = "final_reconstruction"
    expected = nhwc(case.outputs[name])
    np.testing.assert_allclose(x_hat[:1], expected, **case.tolerance(name))
