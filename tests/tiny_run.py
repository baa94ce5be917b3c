"""A run's directory as training leaves it, with models of random weights.

    write_run(W) -> W/vqgan/{config.json, checkpoints/}
    write_prior(W) -> W/prior/{config.json, checkpoints/} beside it

Pixels 4 x 4 to a code, 16 codes, data `shapes` at 16 pixels: everything compiles in
a second or two.
"""

import functools
import json
import math
from pathlib import Path

import jax
import numpy as np

from taming_jax import stored
from taming_jax.conditions import Vocabulary
from taming_jax.data.shapes import CLASSES
from taming_jax.models.vqgan import VQGAN
from taming_jax.training.checkpoints import Checkpoints
from taming_jax.training.prior import make_init, make_transformer
from taming_jax.training.recipe import PriorRecipe

STRIDE, CODEBOOK_SIZE, IMAGE_SIZE = 4, 16, 16

_HALF = {
    "channels": 8,
    "multipliers": [1, 1],
    "patch_size": 2,
    "blocks": 0,
    "attention_resolutions": [],
    "middle_attention": False,
    "norm_groups": 4,
    "latent_channels": 4,
}
MODEL = {
    "encoder": _HALF,
    "decoder": _HALF,
    "quantizer": {"name": "vq", "codebook_size": CODEBOOK_SIZE, "dim": 4},
}
CONFIG = {
    "seed": 0,
    "data": {"name": "shapes", "train": 24, "val": 11, "image_size": IMAGE_SIZE},
    "vqgan": {"model": MODEL, "perceptual_weights": None},
}
PRIOR = {
    "label_dropout": 0.1,
    "model": {"width": 16, "layers": 2, "heads": 2, "norm": "rms", "mlp": "relu2"},
    "sampling": {"temperature": 0.9, "top_p": 0.95, "guidance": 2.0},
    "learning_rate": 1e-3,
    "steps": 4,
    "batch_size": 4,
}


def write_run(workdir: Path, config: dict = CONFIG, psnr: dict | None = None) -> Path:
    """Writes checkpoints of the steps in `psnr`, each of other weights; returns W."""
    psnr = psnr or {3: 20.0}
    stage_dir = workdir / "vqgan"
    stage_dir.mkdir(parents=True)
    (stage_dir / "config.json").write_text(json.dumps({"config": config}))
    with Checkpoints(
        stage_dir / "checkpoints", keep=len(psnr), best=("psnr", "max")
    ) as checkpoints:
        for step, value in psnr.items():
            state = {"ema": random_params(step), "codebook": {}}
            checkpoints.save(step, state, {"psnr": value})
        checkpoints.wait()
    return workdir


def write_prior(
    workdir: Path, section: dict = PRIOR, class_names=CLASSES, seed: int = 0
) -> Path:
    """Writes a prior for the tokenizer of the run in W, which is there; returns W."""
    tokenizer = stored.read(workdir, "vqgan")
    stage_dir = workdir / "prior"
    stage_dir.mkdir()
    grid = IMAGE_SIZE // STRIDE, IMAGE_SIZE // STRIDE
    config = CONFIG | {"prior": section}
    facts = {
        "tokenizer": {"fingerprint": tokenizer.fingerprint},
        "grid": list(grid),
        "codes": CODEBOOK_SIZE,
        "class_names": list(class_names),
    }
    record = {"config": config, "facts": facts}
    (stage_dir / "config.json").write_text(json.dumps(record))
    recipe = PriorRecipe.from_config(section)
    vocabulary = Vocabulary(CODEBOOK_SIZE, len(class_names), recipe.shared_vocabulary)
    model = make_transformer(recipe.model, vocabulary, grid)
    init = jax.jit(make_init(recipe, model))
    with Checkpoints(
        stage_dir / "checkpoints", keep=1, best=("loss", "min")
    ) as checkpoints:
        checkpoints.save(recipe.run.steps, init(jax.random.key(seed)), {"loss": 2.0})
        checkpoints.wait()
    return workdir


def maps_model(channels: int) -> dict:
    """MODEL for class maps of so many classes."""
    half = {**_HALF, "image_channels": channels}
    return {**MODEL, "encoder": half, "decoder": half, "classes": True}


def random_params(seed: int, model: dict = MODEL) -> dict:
    """Weights of VQGAN(**model), by numpy: nothing has to be compiled for them."""
    shape, dtype = (1, IMAGE_SIZE, IMAGE_SIZE), "int32"
    if not model.get("classes"):
        shape, dtype = (*shape, 3), "float32"
    images = jax.ShapeDtypeStruct(shape, dtype)
    init = functools.partial(VQGAN(**model).init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), images)["params"]
    draw = np.random.default_rng(seed).normal

    def weights(path, shape):
        if path[-1].key in ("scale", "bias"):
            return np.full(shape.shape, path[-1].key == "scale", shape.dtype)
        fan_in = math.prod(shape.shape[:-1]) if path[-1].key == "kernel" else 4
        return draw(0, fan_in**-0.5, shape.shape).astype(shape.dtype)

    return jax.tree.map_with_path(weights, shapes)
