"""What checkpoints cost: to the steps around a save, and when they are restored.

    python -m benchmarks.checkpoints [--config shapes] [--steps 60] [--rounds 5]

    cost  = wall of N steps with one save before them - wall of N steps without
    share = cost / (the recipe's checkpoint_every x step)

N steps are more than a save needs to reach the disk, so that the part which is done
beside training counts as far as it slows it down. Both are measured in turn in one
process; what is printed is the median round. The digests are timed by themselves too:
they are part of every save.
"""

import argparse
import importlib
import json
import statistics
import tempfile
import time
from pathlib import Path

import jax

from taming_jax import data, soundness
from taming_jax.training.checkpoints import Checkpoints
from taming_jax.training.mesh import batch_sharding, create_mesh
from taming_jax.training.recipe import Mesh
from taming_jax.training.sections import plain
from taming_jax.training.vqgan import make_vqgan_stage


def main() -> None:
    """Steps, saves and restores a stage of full size and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="shapes")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    config = plain(importlib.import_module(f"configs.{arguments.config}").get_config())
    mesh = create_mesh(Mesh())
    stage = make_vqgan_stage(config, mesh)
    source = data.open_source(config["data"], "train")
    size = stage.run.batch_size
    batch = next(data.train_batches(source, batch_size=size, seed=0, keep=("image",)))
    batch = jax.device_put(batch, batch_sharding(mesh))

    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "checkpoints"
        with Checkpoints(directory, keep=2, best=stage.best) as checkpoints:
            figures = measure(stage, batch, checkpoints, arguments)
            began = time.monotonic()
            checkpoints.restore(stage.abstract)
            figures["restore_s"] = round(time.monotonic() - began, 2)
    arrays = jax.tree.leaves(stage.abstract)
    state_bytes = sum(array.size * array.dtype.itemsize for array in arrays)
    every = stage.run.checkpoint_every
    share = figures["save_costs_s"] / (every * figures["step_ms"] / 1e3)
    print(
        json.dumps(
            {
                "config": arguments.config,
                "state_mb": round(state_bytes / 1e6, 1),
                "checkpoint_every": every,
                **figures,
                "share_of_wall": round(share, 4),
                "device": jax.devices()[0].device_kind,
                "jax": jax.__version__,
            }
        )
    )


def measure(stage, batch, checkpoints, arguments) -> dict:
    """Seconds of steps with and without a save, and of the parts of a save."""
    state = stage.init()
    state, _ = steps(stage, state, batch, 3)  # which compiles
    checkpoints.save(0, state)  # likewise
    checkpoints.wait()
    costs, blocking, plain_steps, digests = [], [], [], []
    for number in range(1, arguments.rounds + 1):
        state, without = steps(stage, state, batch, arguments.steps)
        began = time.monotonic()
        checkpoints.save(number, state)
        blocked = time.monotonic() - began
        state, beside = steps(stage, state, batch, arguments.steps)
        checkpoints.wait()
        costs.append(blocked + beside - without)
        blocking.append(blocked)
        plain_steps.append(without / arguments.steps)
        began = time.monotonic()
        soundness.record_of(state)
        digests.append(time.monotonic() - began)
    began = time.monotonic()
    checkpoints.save(arguments.rounds + 1, state)
    checkpoints.wait()
    return {
        "step_ms": round(1e3 * statistics.median(plain_steps), 2),
        "save_costs_s": round(statistics.median(costs), 3),
        "of_which_blocking_s": round(statistics.median(blocking), 3),
        "of_which_digests_s": round(statistics.median(digests), 3),
        "save_and_wait_s": round(time.monotonic() - began, 2),
    }


def steps(stage, state, batch, count: int):
    """(the state after so many steps, the seconds they took)."""
    began = time.monotonic()
    for _ in range(count):
        state, _ = stage.step(state, batch)
    jax.block_until_ready(state)
    return state, time.monotonic() - began


if __name__ == "__main__":
    main()
