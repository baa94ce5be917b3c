"""The loop of both stages: batches in, checkpoints, figures and pictures out.

At every step, in this order: evaluate, save, take the next batch, dispatch, read the
metrics of the step before. The order matters: the batch travels and the metrics are
read while the device works, and a run that is killed anywhere is continued from its
last checkpoint with the same batches and the same keys.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from taming_jax.training.checkpoints import Checkpoints
from taming_jax.training.interrupts import Interrupts
from taming_jax.training.mesh import batch_sharding
from taming_jax.training.progress import Progress
from taming_jax.training.stage import Stage
from taming_jax.training.state import TrainState
from taming_jax.training.writer import Writer

Batches = Iterator[dict[str, np.ndarray]]


def train(
    stage: Stage,
    stage_dir: Path,
    mesh: jax.sharding.Mesh,
    train_batches: Callable[[int], Batches],
    eval_batches: Callable[[], Batches],
) -> TrainState:
    """Runs a stage to its last step, from its newest checkpoint if it has one.

    Args:
      stage: what is trained.
      stage_dir: where checkpoints, metrics and pictures go.
      mesh: where the state and the batches live.
      train_batches: start step -> endless batches, this process's share of each.
      eval_batches: () -> the held-out batches, with `mask`.

    Raises:
      FloatingPointError: at a step that is not finite, if the recipe says stop.
      SystemExit: after SIGTERM or Ctrl-C, when the state is saved; code 128 + signal.
    """
    run = stage.run
    sharding = batch_sharding(mesh)

    def put(batch):
        return {
            name: jax.make_array_from_process_local_data(sharding, value)
            for name, value in batch.items()
        }

    def evaluate(state):
        sums = [jax.device_get(stage.evaluate(state, put(b))) for b in eval_batches()]
        totals = {name: sum(s[name] for s in sums) for name in sums[0]}
        count = totals.pop("count")
        return {name: float(total / count) for name, total in totals.items()}

    checkpoints = Checkpoints(
        stage_dir / "checkpoints", keep=run.keep_checkpoints, best=stage.best
    )
    with checkpoints, Interrupts() as interrupts, jax.set_mesh(mesh):
        state = begin_or_continue(stage, checkpoints)
        start = int(state.step)
        writer, progress = Writer(stage_dir, start), Progress(stage, start)
        batches = train_batches(start)
        shown = put(next(eval_batches()))
        previous = None
        for step in range(start, run.steps + 1):
            last, new = step == run.steps, step > start
            validation = None
            if new and (last or step % run.eval_every == 0):
                validation = evaluate(state)
                writer.scalars(step, {f"val_{k}": v for k, v in validation.items()})
                progress.validated(step, validation)
            if new and (last or step % run.image_every == 0):
                for name, picture in stage.show(state, shown).items():
                    writer.picture(step, name, picture)
            improved = validation is not None and checkpoints.is_best(validation)
            due = last or improved or step % run.checkpoint_every == 0
            if new and (due or interrupts.signal):
                checkpoints.save(step, state, validation)
            if last or interrupts.signal:
                break

            batch = next(batches)
            indices = batch.pop("index")
            state, metrics = stage.step(state, put(batch))
            if previous:
                _read(stage, writer, progress, *previous)
            previous = (step, metrics, indices)
        if previous:
            _read(stage, writer, progress, *previous)
        checkpoints.wait()
        writer.close()
    if interrupts.signal:
        print(f"saved at step {step}; the same command continues", file=sys.stderr)
        raise SystemExit(128 + interrupts.signal)
    return state


def begin_or_continue(stage: Stage, checkpoints: Checkpoints) -> TrainState:
    """The state of the newest checkpoint, or a first one."""
    step = checkpoints.latest_step()
    if step is None:
        return stage.init()
    print(f"continuing from step {step}")
    return checkpoints.restore(step, stage.abstract)


def _read(stage: Stage, writer, progress, step: int, metrics: dict, indices) -> None:
    """Looks at a step that has been dispatched before the one now running."""
    run = stage.run
    bad = int(metrics["nonfinite_term"])
    if bad >= 0:
        what = (
            f"step {step}: {stage.terms[bad]} is not finite; the state was left as it "
            f"was; pictures {indices.tolist()}"
        )
        if run.on_nonfinite == "stop":
            raise FloatingPointError(
                f"{what}. The last checkpoint is sound; lower the learning rate, clip, "
                "or set on_nonfinite='skip' to leave such steps out"
            )
        print(what, file=sys.stderr)
    if (step + 1) % run.log_every == 0:
        values = {name: float(value) for name, value in metrics.items()}
        values.pop("nonfinite_term")
        values |= progress.logged(step + 1, values)
        writer.scalars(step + 1, values)
