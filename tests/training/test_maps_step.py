"""The step of class maps, and what only some recipes ask of the losses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import golden, vqgan_fields
from numpy.testing import assert_allclose, assert_array_equal
from tiny_stage import (
    CONFIG,
    gradients,
    map_section,
    random_perceptual,
    random_state,
)

from taming_jax.interop.names import GENERATOR
from taming_jax.interop.tables import to_ours, to_theirs
from taming_jax.models.vqgan import VQGAN
from taming_jax.training.mesh import batch_sharding, create_mesh
from taming_jax.training.phases import phase_at
from taming_jax.training.recipe import Mesh, VQGANRecipe
from taming_jax.training.reconstructions import conclude, make_evaluate
from taming_jax.training.vqgan import (
    make_discriminator,
    make_init,
    make_vqgan_stage,
)
from taming_jax.training.vqgan_step import make_train_step, terms_of


def parts(section):
    recipe = VQGANRecipe.from_config(section)
    return recipe, VQGAN(**recipe.model), make_discriminator(recipe)


def taken(section, batch, state=None, perceptual=None, steps=1):
    """(state, metrics) after so many steps of the recipe, from random weights."""
    recipe, model, discriminator = parts(section)
    state = state or random_state((recipe, model, discriminator), step=0)
    phase = phase_at(recipe.loss, 0)
    step = jax.jit(make_train_step(recipe, model, discriminator, 0, phase))
    for _ in range(steps):
        state, metrics = step(state, batch, perceptual or {})
    return state, metrics


@functools.cache
def original_step():
    """A step of Adam from golden 05's weights: (case, gradients by name, metrics)."""
    case = golden("05_vqsegmentation")
    model = vqgan_fields(case.config["params"]) | {"classes": True}
    b1, b2 = case.config["optimizer"]["betas"]
    section = {
        "model": model,
        "adversarial_weight": 0.0,
        "learning_rate": 1e-4,
        "optimizer": {"b1": b1, "b2": b2},
        "steps": 1,
        "batch_size": 2,
    }
    weights = {k: v for k, v in case.weights.items() if k != "colorize"}
    state = make_init(*parts(section))(jax.random.key(0))
    state = state.replace(params=to_ours(GENERATOR, weights))
    maps = case.inputs["segmentation"].argmax(-1).astype(np.int32)
    with jax.default_matmul_precision("highest"):
        state, metrics = taken(section, {"segmentation": jnp.asarray(maps)}, state)
    return case, to_theirs(GENERATOR, gradients(state.opt_state, b1)), metrics


@pytest.mark.parametrize(
    ("ours", "theirs"), [("cross_entropy", "bce_loss"), ("codebook_loss", "quant_loss")]
)
def test_the_steps_losses_are_the_originals(ours, theirs):
    case, _, metrics = original_step()
    name = f"log/train/{theirs}"
    assert_allclose(metrics[ours], case.outputs[name], **case.tolerance(name))


def test_the_optimizer_is_given_the_originals_gradients():
    case, grads, _ = original_step()
    for name in (name for name in case.outputs if name.startswith("grad/")):
        ours = grads[name.removeprefix("grad/")]
        assert_allclose(ours, case.outputs[name], **case.tolerance(name))


CLASSES = np.random.default_rng(0).integers(0, 5, (4, 8, 8)).astype(np.int32)


@functools.cache
def judged(weight):
    section = map_section(
        "segmentation", 5, adversarial_weight=weight, disc_start=0, adversarial_start=0,
        adversarial_ramp=0, optimizer={"b1": 0.5},
    )  # fmt: skip
    return taken(section, {"segmentation": CLASSES})


def test_an_adversary_may_judge_class_maps():
    """It sees one-hot maps and probabilities, and both players learn from it."""
    (alone, _), (beside, metrics) = judged(0.0), judged(0.8)
    assert metrics["disc_grad_norm"] > 0
    assert metrics["nonfinite_term"] == -1
    moved = [
        np.abs(gradients(state.opt_state)["decoder"]["conv_out"]["kernel"])
        for state in (alone, beside)
    ]
    assert not np.allclose(*moved)


def test_class_maps_have_their_own_terms():
    _, model, _ = parts(map_section("segmentation", 5))
    assert terms_of(model)[:2] == ("cross_entropy", "codebook_loss")


def test_iou_is_of_all_maps_and_padding_is_left_out():
    recipe, model, _ = parts(map_section("segmentation", 5))
    state = random_state((recipe, model, None), step=0)
    evaluate = jax.jit(make_evaluate(recipe, model))
    mask = np.array([True, True, True, False])
    sums = evaluate(state, {"segmentation": CLASSES, "mask": mask}, {})
    sums = jax.device_get(sums)
    count = sums.pop("count")
    figures = conclude({name: total / count for name, total in sums.items()})
    (logits, _) = model.apply({"params": state.ema}, CLASSES, train=False)
    truth, found = CLASSES[:3], np.asarray(logits).argmax(-1)[:3]
    pairs = [((truth == k), (found == k)) for k in range(5)]
    ious = [(t & f).sum() / (t | f).sum() for t, f in pairs if (t | f).any()]
    assert_allclose(figures["mean_iou"], np.mean(ious), rtol=1e-6)
    assert_allclose(figures["pixel_accuracy"], (truth == found).mean(), rtol=1e-6)


@functools.cache
def on_mesh(sizes, accumulate=1):
    """A step of class maps: (gradients, metrics, what evaluating the maps sums up)."""
    section = map_section("segmentation", 5, batch_size=8, optimizer={"b1": 0.5})
    section["accumulate"] = accumulate
    mesh = create_mesh(Mesh(*sizes), jax.devices()[: np.prod(sizes)])
    stage = make_vqgan_stage(CONFIG | {"vqgan": section}, mesh)
    maps = np.concatenate([CLASSES, (CLASSES + 1) % 5])
    batch = {"segmentation": maps, "mask": np.arange(8) < 7}
    with jax.set_mesh(mesh):
        shardings = jax.tree.map(lambda leaf: leaf.sharding, stage.abstract)
        state = jax.device_put(random_state(parts(section), step=0), shardings)
        batch = jax.device_put(batch, batch_sharding(mesh))
        sums = stage.evaluate(state, batch)
        state, metrics = stage.step(state, {"segmentation": batch["segmentation"]})
    moved = gradients(jax.device_get(state.opt_state))
    return moved, jax.device_get(metrics), jax.device_get(sums)


@pytest.mark.devices(4)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_class_maps_on_several_devices_and_in_parts_are_those_of_one(accumulate):
    """Sums of a few hundred float32 in another order, and no other difference."""
    whole, split = on_mesh((1, 1, 1)), on_mesh((2, 2, 1), accumulate)
    assert_array_equal(*(sums["count"] for _, _, sums in (whole, split)))
    jax.tree.map(functools.partial(assert_allclose, rtol=1e-4, atol=1e-5), split, whole)


def test_lpips_of_five_channels_is_refused():
    section = map_section("depth", 5, input="image", perceptual_weight=1.0)
    with pytest.raises(ValueError, match=r"image_channels=5: LPIPS looks at 1 or 3 ch"):
        make_vqgan_stage(
            CONFIG | {"vqgan": section}, create_mesh(Mesh(), jax.devices()[:1])
        )


def test_any_number_of_channels_learns():
    images = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 5)).astype(np.float32)
    section = map_section("depth", 5, input="image")
    state, metrics = taken(section, {"image": images})
    assert metrics["nonfinite_term"] == -1
    assert state.params["decoder"]["conv_out"]["kernel"].shape[-1] == 5


@pytest.mark.parametrize(("dropout", "same"), [(0.0, True), (0.5, False)])
def test_dropout_of_lpips_draws_anew_in_each_step(dropout, same):
    """With a rate of almost nothing the model is the same in both."""
    depth = np.random.default_rng(0).uniform(0, 1, (2, 16, 16)).astype(np.float32)
    section = map_section(
        "depth", 1, perceptual_weight=1.0, perceptual_dropout=dropout,
        learning_rate=1e-12, optimizer={}, batch_size=2,
    )  # fmt: skip
    run = functools.partial(taken, section, {"depth": depth})
    first, second = (
        run(perceptual=random_perceptual(), steps=steps)[1]["perceptual"]
        for steps in (1, 2)
    )
    assert_array_equal(np.isclose(first, second, rtol=1e-3), same)
