"""What the adversary costs: GFLOP per image of the compiled f16 step at 256 pixels.

    python -m benchmarks.step_flops [--batch 1] [--small]

Three steps of configs/imagenet.py are compiled: with a fixed adversarial weight, with
the adaptive weight (ours), and in the original's order (adaptive, and a second forward
pass). Counts are XLA's own (`cost_analysis`), from abstract arguments: nothing runs.
Perceptual weights are as large as VGG16's, with no values.
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp

from configs import imagenet
from taming_jax.models.perceptual import shapes_of
from taming_jax.models.vqgan import VQGAN
from taming_jax.training.phases import Phase
from taming_jax.training.recipe import VQGANRecipe
from taming_jax.training.sections import plain
from taming_jax.training.vqgan import make_discriminator, make_init
from taming_jax.training.vqgan_step import make_train_step

ORDERS = {
    "fixed": {"adaptive_weight": False},
    "adaptive": {"adaptive_weight": True},
    "original": {"adaptive_weight": True, "alternating": True},
}


def main() -> None:
    """Compiles, counts and prints one JSON line per order and one with ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="32 channels, 64 pixels")
    arguments = parser.parse_args()
    config = plain(imagenet.get_config())
    size = 256
    if arguments.small:
        size = 64
        for half in ("encoder", "decoder"):
            config["vqgan"]["model"][half] |= {"channels": 32, "resolution": 64}
    gflop = {}
    for order, settings in ORDERS.items():
        began = time.monotonic()
        flops = step_flops(config["vqgan"] | settings, arguments.batch, size)
        gflop[order] = flops / arguments.batch / 1e9
        seconds = round(time.monotonic() - began, 1)
        print(json.dumps({"order": order, "gflop_per_image": round(gflop[order], 1),
                          "compile_seconds": seconds}))  # fmt: skip
    ratios = {order: round(value / gflop["fixed"], 4) for order, value in gflop.items()}
    print(json.dumps({"ratio_to_fixed": ratios, "jax": jax.__version__}))


def step_flops(section: dict, batch: int, size: int) -> float:
    """Floating-point operations of one compiled step, by XLA's count."""
    recipe = VQGANRecipe.from_config(section)
    model, discriminator = VQGAN(**recipe.model), make_discriminator(recipe)
    state = jax.eval_shape(make_init(recipe, model, discriminator), jax.random.key(0))
    pictures = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)
    phase = Phase(judged=True, frozen=False)
    step = jax.jit(make_train_step(recipe, model, discriminator, 0, phase))
    lowered = step.lower(state, {"image": pictures}, shapes_of())
    return lowered.compile().cost_analysis()["flops"]


if __name__ == "__main__":
    main()
