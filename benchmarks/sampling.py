"""What drawing costs: tokens per second as the batch grows, with and without a cache.

    python -m benchmarks.sampling [--config shapes] [--batches 1,4,16,64] [--rounds 3]

Three ways, in one process and by turns, all at temperature 1 and top-p .95:

    cached      `sample_tokens`
    uncached    the same compiled loop, with the whole sequence anew for every token
    torch       PyTorch eager with a cache that grows; where torch is installed

All three have the same weights, drawn at random: what a token costs does not depend on
them. The first and the last are also compared by their greedy tokens. Every figure is
the best of the rounds; compile time is what the first call took more.
"""

import argparse
import importlib
import json
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax.compilation import jit
from taming_jax.conditions import Vocabulary
from taming_jax.models.transformer import Transformer
from taming_jax.models.vqgan import VQGAN
from taming_jax.sampling import filter_logits, sample_tokens
from taming_jax.training.prior import code_grid, make_transformer
from taming_jax.training.recipe import PriorRecipe, plain

CLASSES = 10
TOP_P = 0.95


def main() -> None:
    """Measures, and prints one JSON line for each batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="shapes")
    parser.add_argument("--batches", default="1,4,16,64")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    model, vocabulary = prior_of(arguments.config)
    params = random_params(model)
    ways = {"cached": cached(model, params, vocabulary)}
    ways["uncached"] = uncached(model, params, vocabulary)
    about = {
        "config": arguments.config,
        "parameters": sum(array.size for array in jax.tree.leaves(params)),
        "cache_bytes_per_sequence": cache_bytes(model, model.length),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }
    try:
        ways["torch"] = in_torch(model, params, vocabulary)
    except ImportError:
        about["torch"] = "not installed"
    else:
        same = ways["cached"](4, greedy=True) == ways["torch"](4, greedy=True)
        about |= {"torch": version("torch"), "same_greedy_tokens": float(same.mean())}
    print(json.dumps(about), flush=True)
    for batch in map(int, arguments.batches.split(",")):
        print(json.dumps(measure(ways, batch, arguments.rounds)), flush=True)


def measure(ways: dict[str, Callable], batch: int, rounds: int) -> dict:
    """Tokens per second of every way, by turns, and what compiling took."""
    first = {name: seconds(draw, batch) for name, draw in ways.items()}
    best = dict.fromkeys(ways, np.inf)
    for _ in range(rounds):
        for name, draw in ways.items():
            best[name] = min(best[name], seconds(draw, batch))
    count = batch * ways["cached"](batch).shape[1]
    line = {
        "batch": batch,
        "ms_per_place": round(1e3 * best["cached"] / count * batch, 3),
    }
    line |= {f"{name}_per_s": round(count / best[name]) for name in ways}
    others = [name for name in ways if name != "cached"]
    line |= {f"times_{name}": round(best[name] / best["cached"], 2) for name in others}
    compiled = [name for name in ways if name != "torch"]
    line |= {f"{n}_compile_s": round(first[n] - best[n], 1) for n in compiled}
    return line


def seconds(draw: Callable, batch: int) -> float:
    """Wall time of one call; its result is on the host when it returns."""
    began = time.perf_counter()
    draw(batch)
    return time.perf_counter() - began


def prior_of(config: str) -> tuple[Transformer, Vocabulary]:
    """The prior of a recipe card, for its tokenizer and ten classes."""
    card = plain(importlib.import_module(f"configs.{config}").get_config())
    tokenizer = VQGAN(**card["vqgan"]["model"])
    grid = code_grid(card["data"]["image_size"], tokenizer.stride)
    vocabulary = Vocabulary(tokenizer.codebook_size, CLASSES)
    recipe = PriorRecipe.from_config(card["prior"])
    return make_transformer(recipe.model, vocabulary, grid), vocabulary


def random_params(model: Transformer):
    """Weights that leave few choices undecided."""
    tokens = jnp.zeros((1, 2), jnp.int32)
    params = jax.jit(model.init)(jax.random.key(0), tokens)["params"]
    return jax.tree.map(lambda array: 5 * array, params)


def cache_bytes(model: Transformer, places: int) -> int:
    """Bytes of the keys and values of one sequence."""
    cache = jax.eval_shape(partial(model.empty_cache, 1, places))
    return sum(a.size * a.dtype.itemsize for a in (cache.keys, cache.values))


def cached(model, params, vocabulary) -> Callable:
    """`draw(batch)`: int32 [batch,T] by the sampler."""

    def draw(batch, **settings):
        keys = jax.random.split(jax.random.key(1), batch)
        settings = settings or {"top_p": TOP_P}
        tokens = sample_tokens(
            model,
            params,
            keys,
            prefix(vocabulary, batch),
            count=model.grid[0] * model.grid[1],
            codes=vocabulary.codes,
            **settings,
        )
        return np.asarray(tokens)

    return draw


def uncached(model, params, vocabulary) -> Callable:
    """The same without a cache: at every place the whole sequence goes through."""
    count = model.grid[0] * model.grid[1]

    @jit
    def run(params, keys, condition):
        def step(t, tokens):  # [B,T+1]
            logits = model.apply({"params": params}, tokens[:, :-1])
            logits = jax.lax.dynamic_index_in_dim(logits, t, axis=1, keepdims=False)
            logits = filter_logits(logits[:, : vocabulary.codes], top_p=TOP_P)
            place_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
            drawn = jax.vmap(jax.random.categorical)(place_keys, logits)
            return tokens.at[:, t + 1].set(drawn.astype(jnp.int32))

        tokens = jnp.pad(condition, ((0, 0), (0, count)))
        return jax.lax.fori_loop(0, count, step, tokens)[:, 1:]

    def draw(batch):
        keys = jax.random.split(jax.random.key(1), batch)
        return np.asarray(run(params, keys, prefix(vocabulary, batch)))

    return draw


def prefix(vocabulary, batch):
    """Classes in turn, as condition tokens int32 [batch,1]."""
    return vocabulary.label_tokens(np.arange(batch) % CLASSES)


def in_torch(model, params, vocabulary) -> Callable:
    """`draw(batch)` by PyTorch.

    Raises:
      ImportError: where it is not installed.
    """
    from benchmarks.torch_prior import TorchPrior

    twin = TorchPrior(model, params, codes=vocabulary.codes, top_p=TOP_P)
    return lambda batch, **settings: twin.draw(prefix(vocabulary, batch), **settings)


if __name__ == "__main__":
    main()
