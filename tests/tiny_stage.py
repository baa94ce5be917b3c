"""A first stage that compiles in seconds: 8 x 8 pixels, 2 x 2 to a code, 16 codes.

    parts = build(adversarial_weight=0.5)      recipe, model, discriminator
    state = random_state(parts, step=7)        no initialiser is compiled for it
    state, metrics = stepping()(state, {"image": pictures(4)})
    section = map_section("depth", 1)          one for maps
    params = random_perceptual()               LPIPS of two features a stage

By default the discriminator learns from step 2, counts from step 3 with full weight
from step 6 on, and the codes are frozen from step 9 on.
"""

import functools
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax.models.discriminator import Discriminator
from taming_jax.models.perceptual import shapes_of
from taming_jax.models.vqgan import VQGAN
from taming_jax.training.mesh import create_mesh
from taming_jax.training.phases import by_phase
from taming_jax.training.recipe import Mesh, VQGANRecipe
from taming_jax.training.stage import Stage
from taming_jax.training.vqgan import make_discriminator, make_init, make_vqgan_stage
from taming_jax.training.vqgan_step import make_train_step

DISC_START, COUNTS, FULL, FROZEN = 2, 3, 6, 9
IMAGE_SIZE, CODEBOOK_SIZE = 8, 16

_HALF = {
    "channels": 4,
    "multipliers": [1, 1],
    "blocks": 0,  # besides the two in the middle
    "attention_resolutions": [],
    "middle_attention": False,
    "norm_groups": 2,
    "latent_channels": 4,
}
SECTION = {
    "model": {
        "encoder": _HALF,
        "decoder": _HALF,
        "quantizer": {"name": "vq", "codebook_size": CODEBOOK_SIZE, "dim": 4},
    },
    "discriminator": {"channels": 4, "layers": 1, "norm": "none"},
    "l2_weight": 0.5,
    "difference_weight": 0.25,
    "sharpness_weight": 0.5,
    "perceptual_weight": 0.0,
    "perceptual_weights": None,
    "adversarial_weight": 0.8,
    "disc_start": DISC_START,
    "adversarial_start": COUNTS,
    "adversarial_ramp": FULL - COUNTS + 1,
    "decoder_only_start": FROZEN,
    "learning_rate": 1e-2,
    "optimizer": {"b1": 0.5, "b2": 0.9, "weight_decay": 0.1},
    "steps": 6,
    "batch_size": 4,
    "log_every": 1,
    "image_every": 3,
    "eval_every": 3,
    "checkpoint_every": 3,
    "keep_checkpoints": 2,
    "init_from": None,
}
_IMAGE_LOSSES = ("l2_weight", "difference_weight", "sharpness_weight")


def map_section(kind: str, channels: int, **changes) -> dict:
    """SECTION for class maps, depth or edges; without an adversary or other phases."""
    half = _HALF | {"image_channels": channels}
    classes = kind == "segmentation"
    section = SECTION | {
        "input": kind,
        "model": SECTION["model"]
        | {"encoder": half, "decoder": half, "classes": classes},
        "adversarial_weight": 0.0,
        "decoder_only_start": None,
    }
    if classes:
        section |= dict.fromkeys(_IMAGE_LOSSES, 0.0)
    return section | changes


CONFIG = {
    "seed": 0,
    "data": {"name": "shapes", "train": 24, "val": 6, "image_size": IMAGE_SIZE},
    "vqgan": SECTION,
    "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
}


class Parts(NamedTuple):
    """What a step is made of."""

    recipe: VQGANRecipe
    model: VQGAN
    discriminator: Discriminator | None


def build(model: dict | None = None, **changes) -> Parts:
    """The parts of SECTION with `changes`; `model`: changes of the model's fields."""
    section = SECTION | {"model": SECTION["model"] | (model or {})} | changes
    recipe = VQGANRecipe.from_config(section)
    return Parts(recipe, VQGAN(**recipe.model), make_discriminator(recipe))


def stepping(**changes):
    """SECTION's step(state, batch) with `changes`, compiled once in a session."""
    return _stepping(json.dumps(changes))


@functools.cache
def _stepping(changes: str):
    parts = build(**json.loads(changes))

    def program(phase):
        step = make_train_step(*parts, seed=0, phase=phase)
        step = jax.jit(step)
        return lambda state, batch: step(state, batch, {})

    return by_phase(parts.recipe.loss, program)


@functools.cache
def stage() -> Stage:
    """CONFIG's stage on one device."""
    return make_vqgan_stage(CONFIG, create_mesh(Mesh(), jax.devices()[:1]))


def random_state(parts: Parts, step: int = FULL) -> Any:
    """A TrainState at `step` with random weights; optimizers and counters at zero."""
    shapes = jax.eval_shape(make_init(*parts), jax.random.key(0))
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    params = _random(shapes.params)
    if state.adversary:
        adversary = state.adversary.replace(params=_random(shapes.adversary.params))
        state = state.replace(adversary=adversary)
    ema = jax.tree.map(jnp.copy, params)
    return state.replace(step=jnp.int32(step), params=params, ema=ema)


def pictures(count: int, seed: int = 0) -> jax.Array:
    """float32 [count, 8, 8, 3] in [-1, 1]."""
    shape = (count, IMAGE_SIZE, IMAGE_SIZE, 3)
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, shape), jnp.float32)


def random_perceptual(seed: int = 0) -> dict:
    """Weights of LPIPS whose five stages have two features each, no biases."""
    draw = np.random.default_rng(seed).standard_normal
    shapes = shapes_of(widths=(2,) * 5)
    vgg = jax.tree.map(lambda leaf: draw(leaf.shape, leaf.dtype), shapes["vgg"])
    for layer in vgg.values():
        layer["bias"] = np.zeros_like(layer["bias"])
    return {"vgg": vgg, "heads": {i: np.ones(2, np.float32) for i in shapes["heads"]}}


def gradients(opt_state: Any, b1: float = 0.5) -> Any:
    """What Adam was given in its first step: its first moment holds (1 - b1) g."""
    moments = [part.mu for part in opt_state if hasattr(part, "mu")]
    return jax.tree.map(lambda mu: np.asarray(mu) / (1 - b1), moments[0])


def _random(shapes: Any) -> Any:
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        match path[-1].key:
            case "kernel":
                return jnp.asarray(noise / np.sqrt(np.prod(leaf.shape[:-1])))
            case "scale":
                return jnp.asarray(1 + 0.1 * noise)
            case _:
                return jnp.asarray(0.3 * noise)

    return jax.tree_util.tree_map_with_path(draw, shapes)
