"""The loop's own share of the wall time: what is lost between the steps.

    python -m benchmarks.loop [--config shapes] [--steps 200] [--rounds 3] [--free-data]

    share = (wall of N steps in the loop - N x step on a resident batch) / wall

Both are measured in one process, the resident batch before and after the loop, so that
a drift of the machine shows, and several times over; what is printed is the round of
the median share. With --free-data the batches have been read before: what remains is
the loop without the drawing or decoding, which on CPUs takes its time from the step.
Logging, validation, pictures and saving are switched off: their intervals are the
recipe's choice, not the loop's cost.
"""

import argparse
import importlib
import itertools
import json
import tempfile
import time
from pathlib import Path

import jax

from taming_jax import data
from taming_jax.training import loop
from taming_jax.training.mesh import batch_sharding, create_mesh
from taming_jax.training.recipe import Mesh
from taming_jax.training.run import SPLITS
from taming_jax.training.sections import plain
from taming_jax.training.vqgan import make_vqgan_stage

WARM_UP = 5  # steps that compile and fill the queues


def main() -> None:
    """Runs the loop and the bare step and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="shapes")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--free-data", action="store_true")
    arguments = parser.parse_args()
    config = plain(importlib.import_module(f"configs.{arguments.config}").get_config())
    never = 10**9
    config["vqgan"] |= {"log_every": never, "image_every": never, "eval_every": never}
    config["vqgan"] |= {"checkpoint_every": never, "eval_examples": 1}
    config["vqgan"]["steps"] = WARM_UP + arguments.steps
    mesh = create_mesh(Mesh())
    stage = make_vqgan_stage(config, mesh)

    rounds = [
        one_round(stage, config, mesh, arguments) for _ in range(arguments.rounds)
    ]
    rounds.sort(key=lambda figures: figures["share"])
    figures = {
        "config": arguments.config,
        "free_data": arguments.free_data,
        "steps": arguments.steps,
        **rounds[len(rounds) // 2],
        "shares": [figures["share"] for figures in rounds],
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }
    print(json.dumps(figures))


def one_round(stage, config, mesh, arguments) -> dict:
    """The bare step, the loop, and the bare step again."""
    before = bare_step(stage, config, mesh, arguments.steps // 2)
    in_loop, waiting = loop_step(stage, config, mesh, arguments.free_data)
    after = bare_step(stage, config, mesh, arguments.steps // 2)
    return {
        "bare_ms": [round(1e3 * before, 2), round(1e3 * after, 2)],
        "loop_ms": round(1e3 * in_loop, 2),
        "share": round(1 - (before + after) / 2 / in_loop, 4),
        "of_which_waiting_for_data": round(waiting / in_loop, 4),
    }


def bare_step(stage, config, mesh, steps: int) -> float:
    """Seconds per step on one batch that lies on the device already."""
    source = data.open_source(config["data"], "train")
    size = config["vqgan"]["batch_size"]
    batch = next(data.train_batches(source, batch_size=size, seed=0, keep=("image",)))
    batch = jax.device_put(batch, batch_sharding(mesh))
    state = stage.init()
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            jax.block_until_ready(state)
            began = time.monotonic()
        state, _ = stage.step(state, batch)
    jax.block_until_ready(state)
    return (time.monotonic() - began) / steps


def loop_step(stage, config, mesh, free_data: bool) -> tuple[float, float]:
    """Seconds per step in the loop, and those of them spent waiting for a batch."""
    sources = {split: data.open_source(config["data"], split) for split in SPLITS}
    batching = {"batch_size": stage.run.batch_size, "keep": stage.keep}
    dispatched, waited = [], []

    def step(state, batch):
        dispatched.append(time.monotonic())
        return stage.step(state, batch)

    def train_batches(start_step):
        batches = data.train_batches(
            sources["train"], seed=0, start_step=start_step, **batching
        )
        if free_data:
            read = list(itertools.islice(batches, 16))
            del batches  # and its threads
            batches = (dict(batch) for batch in itertools.cycle(read))
        while True:
            began = time.monotonic()
            batch = next(batches)
            waited.append(time.monotonic() - began)
            yield batch

    def eval_batches():
        return data.eval_batches(sources["val"], count=1, **batching)

    with tempfile.TemporaryDirectory() as folder:
        watched = stage._replace(step=step)
        loop.train(watched, Path(folder), mesh, train_batches, eval_batches)
    steps = len(dispatched) - WARM_UP
    seconds = dispatched[-1] - dispatched[WARM_UP - 1]
    return seconds / steps, sum(waited[WARM_UP:]) / steps


if __name__ == "__main__":
    main()
