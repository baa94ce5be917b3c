"""The loop of both stages: batches in, checkpoints, figures and pictures out.

At every step, in this order: evaluate, save, take the next batch, dispatch, read the
metrics of the step before. The order matters: the batch travels and the metrics are
read while the device works, and a run that is killed anywhere is continued from its
last checkpoint with the same batches and the same keys.

Several processes run it in step: each reads its rows of every batch, all compute, save
and stop together, and the first one writes.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from taming_jax.training.checkpoints import Checkpoints
from taming_jax.training.interrupts import Interrupts
from taming_jax.training.mesh import batch_sharding, replicated
from taming_jax.training.progress import Progress
from taming_jax.training.stage import Stage
from taming_jax.training.state import TrainState
from taming_jax.training.watchdog import Watchdog
from taming_jax.training.writer import Writer, writer_here

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

    A run in which nothing happens for `stall_seconds` is ended by `Watchdog`.
    """
    run, stage = stage.run, _on_mesh(stage, mesh)
    with (
        Checkpoints(
            stage_dir / "checkpoints", keep=run.keep_checkpoints, best=stage.best
        ) as checkpoints,
        Interrupts() as interrupts,
        Watchdog(run.stall_seconds) as watchdog,
    ):
        state = _begin_or_continue(stage, checkpoints)
        start = int(state.step)
        with writer_here(stage_dir, start) as writer:
            progress = Progress(stage, start)
            batches = train_batches(start)
            shown = _put(next(eval_batches()), mesh)
            unread = None  # the step that was dispatched last, and its metrics
            for step in range(start, run.steps + 1):
                watchdog.progress()
                new, last = step > start, step == run.steps
                validation = None
                if new and (last or step % run.eval_every == 0):
                    unread = _read(stage, writer, progress, unread)
                    validation = _evaluate(
                        stage, state, watchdog.watched(eval_batches()), mesh
                    )
                    writer.scalars(step, {f"val_{k}": v for k, v in validation.items()})
                    progress.validated(step, validation)
                if new and (last or step % run.image_every == 0):
                    for name, picture in stage.show(state, shown).items():
                        writer.picture(step, name, picture)
                improved = validation is not None and checkpoints.is_best(validation)
                stop = bool(interrupts.asked()) or last
                due = stop or improved or step % run.checkpoint_every == 0
                if new and due:
                    # First its metrics: a run that goes on from here does not log them.
                    unread = _read(stage, writer, progress, unread)
                    writer.flush()
                    checkpoints.save(step, state, validation)
                if stop:
                    break

                batch = next(batches)
                indices = batch.pop("index")
                batch = _put(batch, mesh)
                if step == 0 and stage.preview:
                    everywhere = jax.device_put(batch, replicated(mesh))
                    for name, picture in stage.preview(state, everywhere).items():
                        writer.picture(step, name, picture)
                state, metrics = stage.step(state, batch)
                _read(stage, writer, progress, unread)
                unread = (step, metrics, indices)
            _read(stage, writer, progress, unread)
        checkpoints.wait()
    if interrupts.signal:
        how_far = f"saved at step {step}" if step else "stopped before the first step"
        print(f"{how_far}; the same command continues", file=sys.stderr)
        raise SystemExit(128 + interrupts.signal)
    return state


def _on_mesh(stage: Stage, mesh: jax.sharding.Mesh) -> Stage:
    """The stage, all of it computed on the mesh.

    What else is computed here, sums over checkpoints, concerns one device at a time.
    """

    def on_mesh(function):
        def call(*arguments):
            with jax.set_mesh(mesh):
                return function(*arguments)

        return function and call

    names = ("init", "step", "evaluate", "show", "preview")
    return stage._replace(**{name: on_mesh(getattr(stage, name)) for name in names})


def _begin_or_continue(stage: Stage, checkpoints: Checkpoints) -> TrainState:
    found = checkpoints.restore(stage.abstract)
    if found is None:
        return stage.init()
    step, state = found
    print(f"continuing from step {step}", flush=True)
    return state


def _put(batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict:
    """This process's share of a batch, as the global batch on the devices."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, value)
        for name, value in batch.items()
    }


def _evaluate(stage: Stage, state: TrainState, batches: Batches, mesh) -> dict:
    """Figures of the held-out examples, each counted once."""
    sums = [jax.device_get(stage.evaluate(state, _put(b, mesh))) for b in batches]
    totals = {name: sum(s[name] for s in sums) for name in sums[0]}
    count = totals.pop("count")
    means = {name: total / count for name, total in totals.items()}
    return {name: float(value) for name, value in stage.conclude(means).items()}


def _read(stage: Stage, writer: Writer, progress: Progress, unread) -> None:
    """Looks at the metrics of a step while the next one is under way."""
    if unread is None:
        return
    step, metrics, indices = unread
    bad = int(metrics["nonfinite_term"])
    if bad >= 0:
        what = (
            f"step {step}: {stage.terms[bad]} is not finite; the state was left as it "
            f"was; pictures {indices.tolist()}"
        )
        if stage.run.on_nonfinite == "stop":
            raise FloatingPointError(
                f"{what}. The last checkpoint is sound; lower the learning rate, clip, "
                "or set on_nonfinite='skip' to leave such steps out"
            )
        print(what, file=sys.stderr)
    if (step + 1) % stage.run.log_every == 0:
        values = {name: float(value) for name, value in metrics.items()}
        del values["nonfinite_term"]
        writer.scalars(step + 1, values | progress.logged(step + 1, values))
    progress.read(step + 1)
