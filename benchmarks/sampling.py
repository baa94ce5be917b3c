"""What drawing costs as the batch grows: beside PyTorch, and beside the memory's speed.

    python -m benchmarks.sampling [--config shapes] [--batches 1,4,16,64] [--cpu]
    python -m benchmarks.sampling --rar

By turns in one process, at temperature 1 and top-p .95, with weights drawn at random:
what a token costs does not depend on them. `torch` is PyTorch eager with a cache that
grows, of the same weights, where it is installed; both are compared by their greedy
tokens first. Every figure is the best of the rounds.

    tokens_per_s      a batch's image tokens over the time to draw them
    pictures_per_s    the same with decoding by the card's tokenizer
    first_token_ms    from the condition to the first code of each picture
    cache_mb          keys and values of the batch
    peak_mb           of the device, where the backend tells it; it tells the process's
                      highest so far, so that lines which do not raise it have none
    floor_ms          what a step reads (`sampling_floor`) over the speed of a copy of
                      as many bytes in the same process; of_floor is its share of the
                      time that a step takes

--rar is the setting of the published speeds of RAR: batch 128, guided (2 x 128
sequences), once in bfloat16, which CPUs only imitate, and once in float32.
--cpu takes the processor's time instead of the clock's, for a machine that others use:
with `taskset -c 0`, so that no thread waits for another.
"""

import argparse
import json
import time
from collections.abc import Callable
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import sampling_floor as floor
from taming_jax.conditions import codes_of
from taming_jax.models.vqgan import decode_codes
from taming_jax.sampling import sample_tokens

CLASSES = 10
TOP_P = 0.95


def main() -> None:
    """Measures, and prints one JSON line for each dtype and batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="shapes")
    parser.add_argument("--batches", default="1,4,16,64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--rar", action="store_true")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu else time.perf_counter
    batches, guidance, dtypes = arguments.batches, 1.0, ["float32"]
    if arguments.rar:
        batches, guidance, dtypes = "128", 4.0, ["bfloat16", "float32"]
    about = {
        "config": arguments.config,
        "guidance": guidance,
        "clock": clock.__name__,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }
    for dtype in dtypes:
        case = Case(arguments.config, dtype, guidance)
        ways = {"ours": case.draw}
        if dtype == "float32" and (twin := in_torch(case)):
            ways["torch"] = twin
            same = case.draw(4, greedy=True) == twin(4, greedy=True)
            about |= {"torch": version("torch"), "same_greedy_tokens": same.mean()}
        print(json.dumps(about), flush=True)
        for batch in map(int, batches.split(",")):
            line = measure(case, ways, batch, arguments.rounds, clock)
            print(json.dumps({"dtype": dtype, "batch": batch, **line}), flush=True)


class Case:
    """A card's prior and tokenizer, with weights drawn at random."""

    def __init__(self, config: str, dtype: str, guidance: float):
        model, self.vocabulary, self.tokenizer = floor.prior_of(config, CLASSES)
        self.model, self.guidance = model.clone(dtype=dtype), guidance
        self.places = model.grid[0] * model.grid[1]
        tokens = jnp.zeros((1, 2), jnp.int32)
        params = jax.jit(model.init)(jax.random.key(0), tokens)["params"]
        # Five times as large: few choices are then undecided.
        self.params = jax.tree.map(lambda a: (5 * a).astype(dtype), params)
        codes = jnp.zeros((1, *model.grid), jnp.int32)
        side = model.grid[0] * self.tokenizer.stride
        images = jnp.zeros((1, side, side, 3))
        init = jax.jit(self.tokenizer.init, static_argnames="train")
        self.variables = init(jax.random.key(0), images, train=False)
        self._decode = jax.jit(lambda v, codes: decode_codes(self.tokenizer, v, codes))
        self._decode(self.variables, codes)

    def draw(self, batch: int, *, count: int | None = None, **settings) -> np.ndarray:
        """int32 [batch,T] by the sampler; the first `count` places only."""
        keys = jax.random.split(jax.random.key(1), batch)
        if self.guidance != 1:
            unguided = self.vocabulary.no_label(batch)
            settings |= {"guidance": self.guidance, "unguided_prefix": unguided}
        tokens = sample_tokens(
            self.model,
            self.params,
            keys,
            self.prefix(batch),
            count=count or self.places,
            codes=self.vocabulary.codes,
            **({} if settings.get("greedy") else {"top_p": TOP_P}),
            **settings,
        )
        return np.asarray(tokens)

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens [B,T] -> pictures [B,H,W,C]."""
        codes = codes_of(tokens, self.model.grid, self.model.order)
        return np.asarray(self._decode(self.variables, codes))

    def prefix(self, batch: int):
        """Classes in turn, as condition tokens int32 [batch,1]."""
        return self.vocabulary.label_tokens(np.arange(batch) % CLASSES)


def measure(
    case: Case, ways: dict[str, Callable], batch: int, rounds: int, clock: Callable
) -> dict:
    """Every figure of one batch; what is compared is timed by turns."""
    highest = peak_bytes()
    tokens = case.draw(batch)
    timed = {name: lambda draw=draw: draw(batch) for name, draw in ways.items()}
    timed["first"] = lambda: case.draw(batch, count=1)
    timed["decode"] = lambda: case.decode(tokens)
    best = dict.fromkeys(timed, np.inf)
    for number in range(rounds + 1):
        for name, run in timed.items():
            began = clock()
            run()
            if number:  # the first compiles
                best[name] = min(best[name], clock() - began)
    sequences = batch * (1 if case.guidance == 1 else 2)
    cache = floor.cache_bytes(case.model, floor.mean_places(case.model))
    read = floor.weight_bytes(case.model) + sequences * cache
    speed, per_place = floor.copy_speed(read, clock), best["ours"] / case.places
    whole = floor.cache_bytes(case.model, case.model.prefix + case.places - 1)
    line = {
        "tokens_per_s": round(tokens.size / best["ours"]),
        "pictures_per_s": round(batch / (best["ours"] + best["decode"]), 2),
        "first_token_ms": round(1e3 * best["first"], 2),
        "ms_per_place": round(1e3 * per_place, 3),
        "floor_ms": round(1e3 * read / speed, 3),
        "copy_gb_per_s": round(speed / 1e9, 1),
        "of_floor": round(read / speed / per_place, 2),
        "cache_mb": round(sequences * whole / 1e6, 2),
    }
    if peak_bytes() > highest:
        line["peak_mb"] = round(peak_bytes() / 1e6, 1)
    if "torch" in best:
        line["torch_tokens_per_s"] = round(tokens.size / best["torch"])
        line["times_torch"] = round(best["torch"] / best["ours"], 2)
    return line


def peak_bytes() -> int:
    """The most that was in use on the device since the process began; 0: not told."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


def in_torch(case: Case) -> Callable | None:
    """`draw(batch)` by PyTorch; None where it is not installed."""
    try:
        from benchmarks.torch_prior import TorchPrior
    except ImportError:
        return None
    twin = TorchPrior(case.model, case.params, codes=case.vocabulary.codes, top_p=TOP_P)

    def draw(batch: int, **settings):
        if case.guidance != 1:
            unguided = case.vocabulary.no_label(batch)
            settings |= {"guidance": case.guidance, "unguided": unguided}
        return twin.draw(case.prefix(batch), **settings)

    return draw


if __name__ == "__main__":
    main()
