"""The least that a step of sampling can take: what it reads, over the memory's speed.

    python -m benchmarks.sampling_floor --bandwidth GB/s [--config imagenet]

A step gives a token to every sequence, and reads all weights that products are made
with, and the keys and values of all places before. Nothing is run or allocated: every
line is a *prediction* for a memory of the speed that is assumed, of the floor and of a
share of it. `tflops` is what the arithmetic has to keep up with there; below it the
processor is the floor. Decoding is not counted.
"""

import argparse
import importlib
import json
import time
from functools import partial

import jax
import jax.numpy as jnp

from taming_jax.conditions import Vocabulary
from taming_jax.models.transformer import Transformer
from taming_jax.models.vqgan import VQGAN
from taming_jax.training.prior import code_grid, make_transformer
from taming_jax.training.recipe import PriorRecipe
from taming_jax.training.sections import plain

LOOKED_UP = ("embedding", "embedding_above", "positions", "target_positions")


def main() -> None:
    """Prints one JSON line for each dtype and batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="imagenet")
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--batches", default="1,16,64,128")
    parser.add_argument("--share", type=float, default=0.6)
    parser.add_argument("--bandwidth", type=float, required=True)
    arguments = parser.parse_args()
    assumed = {name: getattr(arguments, name) for name in ("bandwidth", "share")}
    for dtype in ("float32", "bfloat16"):
        model = prior_of(arguments.config, arguments.classes)[0].clone(dtype=dtype)
        for batch in map(int, arguments.batches.split(",")):
            line = {"prediction": arguments.config, "assumed": assumed, "dtype": dtype}
            line |= {"batch": batch, **predicted(model, batch, **assumed)}
            print(json.dumps(line), flush=True)


def predicted(
    model: Transformer, batch: int, *, bandwidth: float, share: float
) -> dict:
    """What `batch` sequences can reach at so many GB/s, and at a share of that."""
    weights, cache = weight_bytes(model), cache_bytes(model, mean_places(model))
    seconds = (weights + batch * cache) / bandwidth / 1e9
    tokens, places = batch / seconds, model.grid[0] * model.grid[1]
    itemsize = jnp.dtype(model.dtype).itemsize
    return {
        "weights_gb": round(weights / 1e9, 2),
        "cache_gb": round(batch * cache / 1e9, 2),
        "floor_ms": round(1e3 * seconds, 3),
        "tokens_per_s": round(tokens),
        "pictures_per_s": round(tokens / places, 2),
        "pictures_per_s_at_share": round(share * tokens / places, 2),
        "tflops": round(2 * weights / itemsize * tokens / 1e12, 1),
    }


def prior_of(config: str, classes: int) -> tuple[Transformer, Vocabulary, VQGAN]:
    """The prior of a recipe card, for its tokenizer and so many classes."""
    card = plain(importlib.import_module(f"configs.{config}").get_config())
    tokenizer = VQGAN(**card["vqgan"]["model"])
    grid = code_grid(card["data"]["image_size"], tokenizer.stride)
    vocabulary = Vocabulary(tokenizer.codebook_size, classes)
    recipe = PriorRecipe.from_config(card["prior"])
    return make_transformer(recipe.model, vocabulary, grid), vocabulary, tokenizer


def weight_bytes(model: Transformer) -> int:
    """Bytes of the weights that a step reads whole, in the model's dtype."""
    tokens = jnp.zeros((1, 2), jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]
    looked_up = [name for name in LOOKED_UP if name in shapes]
    if model.tied_head:
        looked_up.remove("embedding")
    read = {name: part for name, part in shapes.items() if name not in looked_up}
    count = sum(array.size for array in jax.tree.leaves(read))
    return count * jnp.dtype(model.dtype).itemsize


def cache_bytes(model: Transformer, places: float) -> float:
    """Bytes of the keys and values of so many places of one sequence."""
    cache = jax.eval_shape(partial(model.empty_cache, 1, 1))
    return places * sum(a.size * a.dtype.itemsize for a in (cache.keys, cache.values))


def mean_places(model: Transformer) -> float:
    """How many places are in the cache, on average over a picture's steps."""
    return model.prefix + (model.grid[0] * model.grid[1] - 1) / 2


def copy_speed(size: float, clock=time.perf_counter) -> float:
    """Bytes per second, read and written, of the best of ten copies of so many bytes.

    As many as a step reads: a small model may stay in the processor's own memory.
    """
    source = jnp.zeros(int(size) // 4, jnp.float32)
    copy = jax.jit(lambda array: array + 1.0)
    copy(source).block_until_ready()
    best = float("inf")
    for _ in range(10):
        began = clock()
        copy(source).block_until_ready()
        best = min(best, clock() - began)
    return 2 * source.nbytes / best


if __name__ == "__main__":
    main()
