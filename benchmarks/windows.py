"""What a picture larger than its prior costs, by each way to slide a window over it.

    python -m benchmarks.windows [--side 64] [--strides 2,4,8] [--layers 4] [--width 64]
                                 [--condition label|map]

A transformer with random weights (what a pass costs does not depend on them), windows
of 16 x 16 of 512 codes, told one label, or a map of as many codes. The ways:

    script      as the original: one place after the other, each a full pass over the
                condition and the window with all its logits
    one by one  one place after the other, what follows it left out
    exact       the same, and together what does not wait for one another
    stride s    a window, with its keys and values, for each block of s x s places

Passes are those that wait for one another. Operations are counted by the compiler, pass
by pass. Seconds are of one picture, compiled before; the script's are those of its
first 64 places, so many times as there are.
"""

import argparse
import json
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax.compilation import jit
from taming_jax.conditions.windows import Part, Same
from taming_jax.models.passes import feed, next_logits
from taming_jax.models.transformer import Transformer
from taming_jax.windows import Windows, drawing, sample_windows
from taming_jax.windows.places import lengths, rounded_up, schedule
from taming_jax.windows.steps import extension

WINDOW, CODES, MEASURED = (16, 16), 512, 64
COLUMNS = ("way", "passes", "GFLOP", "script / way", "seconds", "script / way")


def main() -> None:
    """Prints the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=64, help="of the picture, in codes")
    parser.add_argument("--strides", default="2,4,8")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--condition", default="label", choices=["label", "map"])
    arguments = parser.parse_args()
    prefix = 1 if arguments.condition == "label" else WINDOW[0] * WINDOW[1]
    model = Transformer(
        vocab_size=CODES + 10,
        length=prefix + WINDOW[0] * WINDOW[1] - 1,
        grid=WINDOW,
        prefix=prefix,
        width=arguments.width,
        layers=arguments.layers,
        heads=arguments.width // 32,
    )
    tokens = jnp.zeros((1, 2), jnp.int32)
    params = jax.jit(model.init)(jax.random.key(0), tokens)["params"]
    about = vars(arguments) | {"jax": jax.__version__}
    print(json.dumps(about | {"device": jax.devices()[0].device_kind}))
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    shape = (arguments.side,) * 2
    script = of_script(model, params, shape)
    row("script", *script, script)
    for name, stride, at_once in [
        ("one by one", 1, 1),
        ("exact", 1, 16),
        *((f"stride {s}", int(s), 16) for s in arguments.strides.split(",")),
    ]:
        windows = Windows(shape, WINDOW, stride)
        steps = schedule(windows, at_once=at_once)
        count = exact_costs if stride == 1 else block_costs
        passes, operations = count(model, params, windows, steps)
        spent = seconds(partial(picture, model, params, windows, at_once))
        row(name, passes, operations, spent, script)


def row(name: str, passes: int, operations: float, spent: float, script) -> None:
    """One line of the table."""
    times = f"{script[1] / operations:.1f}", f"{script[2] / spent:.1f}"
    cells = name, f"{passes:,}", f"{operations / 1e9:,.0f}", times[0], f"{spent:.1f}"
    print(f"| {' | '.join((*cells, times[1]))} |", flush=True)


def of_script(model, params, shape) -> tuple[int, float, float]:
    """Passes, operations and seconds of the original's way."""
    count = shape[0] * shape[1]
    whole = jit(lambda params, tokens: model.apply({"params": params}, tokens))
    tokens = jnp.zeros((1, model.length), jnp.int32)
    whole(params, tokens).block_until_ready()
    began = time.perf_counter()
    for _ in range(MEASURED):
        np.asarray(whole(params, tokens))
    spent = (time.perf_counter() - began) / MEASURED
    return count, count * flops(whole, params, tokens), count * spent


def exact_costs(model, params, windows, steps) -> tuple[int, float]:
    """Passes, and operations of all of them."""
    longest = rounded_up(lengths(windows, steps).max(1), drawing.programs(windows))
    rows = steps.rows.shape[1]
    last = jnp.zeros((rows,), jnp.int32)
    total = 0.0
    for length, times in zip(*np.unique(longest, return_counts=True), strict=True):
        tokens = jnp.zeros((rows, model.prefix + int(length)), jnp.int32)
        total += times * pass_flops(model, params, tokens, last, method=next_logits)
    return len(longest), total


def block_costs(model, params, windows, steps) -> tuple[int, float]:
    """The same of blocks: what begins them, what extends them, and single codes."""
    found, begun = drawing.beginnings(windows, steps)
    known = drawing.known_beginnings(windows, steps, partly=False)
    some = known[np.searchsorted(known, found[found >= 0])]
    total = 0.0
    for length, times in zip(*np.unique(some, return_counts=True), strict=True):
        tokens = jnp.zeros((begun.rows.shape[1], model.prefix + int(length)), jnp.int32)
        cache = model.empty_cache(*tokens.shape)

        def begin(model, tokens, cache):
            return model.extend(tokens, cache)[1]

        total += times * pass_flops(model, params, tokens, cache, method=begin)
    rows = steps.rows.shape[1]
    cache = model.empty_cache(rows, model.length)
    for fed, times in ((extension(windows), 1), (1, windows.stride - 1)):
        tokens = jnp.zeros((rows, fed), jnp.int32)
        state = tokens, cache.keys, cache.values, cache.tokens
        one = pass_flops(model, params, tokens, *state, method=feed)
        total += times * len(steps.rows) * one
    return len(some) + windows.stride * len(steps.rows), total


def picture(model, params, windows, at_once):
    """One picture, on the host."""
    told = Same(jnp.full((1, 1), CODES, jnp.int32))
    if model.prefix > 1:
        told = Part(jnp.zeros((1, 1, 1, *windows.shape), jnp.int32), WINDOW, WINDOW)
    keys = jax.random.split(jax.random.key(1), 1)
    codes = sample_windows(
        model, params, keys, told, windows=windows, codes=CODES, at_once=at_once
    )
    return np.asarray(codes)


def pass_flops(model, params, *arguments, method) -> float:
    """Floating-point operations of one pass, as compiled."""

    def one_pass(params, *arguments):
        return model.apply({"params": params}, *arguments, method=method)

    return flops(jit(one_pass), params, *arguments)


def flops(function, *arguments) -> float:
    """Floating-point operations of a compiled function."""
    return function.lower(*arguments).compile().cost_analysis()["flops"]


def seconds(draw) -> float:
    """Wall time of the second call."""
    draw()
    began = time.perf_counter()
    draw()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
