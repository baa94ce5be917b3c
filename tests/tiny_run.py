"""A run's directory as training leaves it, with a tokenizer of random weights.

    write_run(W) -> W/vqgan/{config.json, checkpoints/}

Pixels 4 x 4 to a code, 16 codes, data `shapes` at 16 pixels: everything compiles in
a second or two.
"""

import functools
import json
import math
from pathlib import Path

import jax
import numpy as np

from taming_jax.models.vqgan import VQGAN
from taming_jax.training.checkpoints import Checkpoints

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


def random_params(seed: int) -> dict:
    """Weights of VQGAN(**MODEL), by numpy: nothing has to be compiled for them."""
    images = jax.ShapeDtypeStruct((1, IMAGE_SIZE, IMAGE_SIZE, 3), "float32")
    init = functools.partial(VQGAN(**MODEL).init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), images)["params"]
    draw = np.random.default_rng(seed).normal

    def weights(path, shape):
        if path[-1].key in ("scale", "bias"):
            return np.full(shape.shape, path[-1].key == "scale", shape.dtype)
        fan_in = math.prod(shape.shape[:-1]) if path[-1].key == "kernel" else 4
        return draw(0, fan_in**-0.5, shape.shape).astype(shape.dtype)

    return jax.tree.map_with_path(weights, shapes)
