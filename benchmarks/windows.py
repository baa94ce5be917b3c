"""What a picture larger than its prior costs, by each way to slide a window over it.

    python -m benchmarks.windows [--side 64] [--strides 2,4,8] [--layers 4] [--width 64]
                                 [--condition label|map|coarse] [--counted]

A transformer with random weights (what a pass costs does not depend on them), windows
of 16 x 16 of 512 codes, told one label, a map of as many codes, or a coarse one of 8 x
8. The ways:

    script      as the original: one place after the other, each a full pass over the
                condition and the window with all its logits
    one by one  one place after the other, what follows it left out
    exact       the same, and together what does not wait for one another
    stride s    a window, with its keys and values, for each block of s x s places

Passes are those that wait for one another. Operations are counted by the compiler, pass
by pass. Seconds are of one picture, compiled before; the script's are those of its
first 64 places, so many times as there are. --counted leaves seconds out, and counts
models of any depth by those of two and of three layers: nothing is allocated or run.
"""

import argparse
import json
import math
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
TOLD = {"label": 1, "map": 16, "coarse": 8}  # condition tokens, down and across
ONE_SEQUENCE = jax.ShapeDtypeStruct((1, 2), jnp.int32)
COLUMNS = ("way", "passes", "GFLOP", "script / way", "seconds", "script / way")


def main() -> None:
    """Prints the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=64, help="of the picture, in codes")
    parser.add_argument("--strides", default="2,4,8")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--condition", default="label", choices=TOLD)
    parser.add_argument("--counted", action="store_true")
    arguments = parser.parse_args()
    about = vars(arguments) | {"jax": jax.__version__}
    print(json.dumps(about | {"device": jax.devices()[0].device_kind}))
    columns = COLUMNS[:4] if arguments.counted else COLUMNS
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    shape = (arguments.side,) * 2
    ways = [
        ("one by one", 1, 1),
        ("exact", 1, 16),
        *((f"stride {s}", int(s), 16) for s in arguments.strides.split(",")),
    ]
    if arguments.counted:
        counted(arguments, shape, ways)
    else:
        measured(arguments, shape, ways)


def measured(arguments, shape, ways) -> None:
    """The rows with seconds."""
    model = model_of(arguments, arguments.layers)
    tokens = jnp.zeros(ONE_SEQUENCE.shape, jnp.int32)
    params = jax.jit(model.init)(jax.random.key(0), tokens)["params"]
    script = of_script(model, params, shape)
    row("script", *script, script)
    for name, stride, at_once in ways:
        windows = Windows(shape, WINDOW, stride)
        passes, operations = costs(model, params, windows, at_once)
        spent = seconds(partial(picture, model, params, windows, at_once))
        row(name, passes, operations, spent, script)


def model_of(arguments, layers: int) -> Transformer:
    """The transformer, with so many layers."""
    prefix = TOLD[arguments.condition] ** 2
    return Transformer(
        vocab_size=CODES + 10,
        length=prefix + WINDOW[0] * WINDOW[1] - 1,
        grid=WINDOW,
        prefix=prefix,
        width=arguments.width,
        layers=layers,
        heads=arguments.width // 32,
    )


def counted(arguments, shape, ways) -> None:
    """The rows without: each layer after the second costs what the third does."""
    few, more = (model_of(arguments, layers) for layers in (2, 3))
    params = [
        jax.eval_shape(model.init, jax.random.key(0), ONE_SEQUENCE)["params"]
        for model in (few, more)
    ]

    def in_all(two, three):
        return two + (arguments.layers - 2) * (three - two)

    tokens = jnp.zeros((1, few.length), jnp.int32)
    whole = [
        flops(whole_pass(model), own, tokens)
        for model, own in zip((few, more), params, strict=True)
    ]
    script = shape[0] * shape[1] * in_all(*whole)
    row("script", shape[0] * shape[1], script, None, (0, script))
    for name, stride, at_once in ways:
        windows = Windows(shape, WINDOW, stride)
        passes, two = costs(few, params[0], windows, at_once)
        _, three = costs(more, params[1], windows, at_once)
        row(name, passes, in_all(two, three), None, (0, script))


def row(name: str, passes: int, operations: float, spent: float | None, script):
    """One line of the table."""
    cells = [name, f"{passes:,}", f"{operations / 1e9:,.0f}"]
    cells.append(f"{script[1] / operations:.1f}")
    if spent is not None:
        cells += [f"{spent:.1f}", f"{script[2] / spent:.1f}"]
    print(f"| {' | '.join(cells)} |", flush=True)


def whole_pass(model):
    """All logits of sequences, compiled."""
    return jit(lambda params, tokens: model.apply({"params": params}, tokens))


def of_script(model, params, shape) -> tuple[int, float, float]:
    """Passes, operations and seconds of the original's way."""
    count = shape[0] * shape[1]
    whole = whole_pass(model)
    tokens = jnp.zeros((1, model.length), jnp.int32)
    whole(params, tokens).block_until_ready()
    began = time.perf_counter()
    for _ in range(MEASURED):
        np.asarray(whole(params, tokens))
    spent = (time.perf_counter() - began) / MEASURED
    return count, count * flops(whole, params, tokens), count * spent


def costs(model, params, windows, at_once: int) -> tuple[int, float]:
    """Passes, and operations of all of them."""
    steps = schedule(windows, at_once=at_once)
    count = exact_costs if windows.stride == 1 else block_costs
    return count(model, params, windows, steps)


def exact_costs(model, params, windows, steps) -> tuple[int, float]:
    """Of places with windows of their own."""
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
        side = math.isqrt(model.prefix)
        grid = (n * side // many for n, many in zip(windows.shape, WINDOW, strict=True))
        told = Part(jnp.zeros((1, 1, 1, *grid), jnp.int32), WINDOW, (side, side))
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
