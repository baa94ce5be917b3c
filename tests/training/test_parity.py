"""The first stage's step against the original: five Adam steps of both players."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import golden, vqgan_fields

from taming_jax.interop.names import VQ_MODEL
from taming_jax.interop.tables import to_theirs
from taming_jax.models.discriminator import Discriminator
from taming_jax.models.vqgan import VQGAN
from taming_jax.training.phases import phase_at
from taming_jax.training.recipe import VQGANRecipe
from taming_jax.training.vqgan import make_init
from taming_jax.training.vqgan_step import make_train_step

STEPS = 5


@functools.cache
def trained():
    """The golden run, redone: (case, metrics of each step, final weights by name)."""
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
    metrics = []
    with jax.default_matmul_precision("highest"):
        for x in case.inputs["x"]:
            batch = {"image": jnp.asarray(x)}  # NHWC already, unlike other inputs
            state, measured = step(state, batch, weights["perceptual"])
            metrics.append(jax.device_get(measured))
    final = to_theirs(
        VQ_MODEL,
        {
            "generator": state.params,
            "discriminator": {
                "params": state.adversary.params,
                **state.adversary.stats,
            },
        },
    )
    return case, metrics, final


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("codebook_loss", "quant_loss"),
        ("perceptual", "p_loss"),
        ("adversarial", "g_loss"),
        ("disc_loss", "disc_loss"),
    ],
)
def test_losses_of_every_step_are_the_originals(ours, theirs):
    case, metrics, _ = trained()
    name = f"steps/train/{theirs}"
    measured = [m[ours] for m in metrics]
    np.testing.assert_allclose(measured, case.outputs[name], **case.tolerance(name))


def test_the_adaptive_weight_is_the_originals():
    case, metrics, _ = trained()
    name = "steps/train/d_weight"
    weight = case.config["params"]["lossconfig"]["params"]["disc_weight"]
    measured = [m["adaptive_weight"] * weight for m in metrics]
    np.testing.assert_allclose(measured, case.outputs[name], **case.tolerance(name))


def test_the_adversary_counts_from_its_start():
    case, metrics, _ = trained()
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
    case, _, final = trained()
    expected = case.outputs[f"final/{name}"]
    np.testing.assert_allclose(final[name], expected, **case.tolerance(f"final/{name}"))
