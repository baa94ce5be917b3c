"""Checkpoints of a train state: saved beside training, rotated, the best one kept.

    directory/STEP/state    the whole TrainState, every array with its sharding
    directory/STEP/record   what it should hold, see `soundness`
    directory/STEP/metrics  validation metrics of that step, where there were any
    directory/../damaged/   checkpoints that are no longer what was saved

Saving is asynchronous: the arrays are copied, training goes on, and a checkpoint
carries its final name only once it is whole. Nothing here needs TensorFlow.
"""

import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from taming_jax import files, soundness
from taming_jax.ranking import Best, score
from taming_jax.soundness import DamagedError

PORTION = 2**30  # bytes that a process reads at a time, to look whether they are sound


class Checkpoints:
    """The checkpoints of one stage, for writing. Use as a context manager.

    Args:
      directory: where they are, or will be.
      keep: how many of the newest stay; the best one stays besides.
      best: which metric ranks them, and whether the highest or lowest wins.
    """

    def __init__(self, directory: epath.PathLike, *, keep: int, best: Best):
        self.best = best
        self._directory = files.located(directory)  # Orbax wants it absolute
        self._set_aside_unreadable()  # Orbax could not open the directory
        policies = [
            checkpoint_managers.LatestN(keep),
            checkpoint_managers.BestN(
                get_metric_fn=lambda metrics: score(metrics, best),
                n=1,
                keep_checkpoints_without_metrics=False,
            ),
        ]
        self._manager = ocp.CheckpointManager(
            self._directory,
            item_names=("state", "record"),
            options=ocp.CheckpointManagerOptions(
                best_fn=lambda metrics: score(metrics, best),  # else they are not kept
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                cleanup_tmp_directories=True,
            ),
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._manager.close()

    def latest_step(self) -> int | None:
        """The newest step that is saved whole, None if there is none."""
        return self._manager.latest_step()

    def is_best(self, metrics: Mapping[str, float]) -> bool:
        """Whether these are better than the metrics of every checkpoint kept."""
        self.wait()  # or the newest ones might not be on the disk yet
        kept = [self._manager.metrics(step) for step in self._manager.all_steps()]
        best_kept = max((score(m, self.best) for m in kept if m), default=-math.inf)
        return score(metrics, self.best) > best_kept

    def save(self, step: int, state: Any, metrics: Mapping | None = None) -> None:
        """Starts to save; waits only for a save that is still under way."""
        metrics = dict(metrics or {})  # Orbax warns where there are none
        record = soundness.to_json(soundness.record_of(state, metrics))
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(state), record=ocp.args.JsonSave(record)
            ),
            metrics=metrics,
        )

    def wait(self) -> None:
        """Returns when everything that was saved lies on the disk."""
        self._manager.wait_until_finished()

    def restore(self, abstract_state: Any) -> tuple[int, Any] | None:
        """The newest state that is what was saved, laid out as `abstract_state` says.

        Those that are damaged are named and set aside, and the one before is tried.

        Args:
          abstract_state: `jax.ShapeDtypeStruct`s with shardings, which may belong to
            other devices than those that the checkpoint was written from.

        Returns:
          (step, state), or None if there is no checkpoint left: then the run begins.

        Raises:
          ValueError: if a checkpoint is sound but another model's.
        """
        while (step := self.latest_step()) is not None:
            checkpoint = self._directory / str(step)
            record = soundness.read_record(checkpoint)
            soundness.check_form(record, abstract_state, checkpoint)
            if self._is_sound(step, record):
                try:
                    with soundness.damage_named(checkpoint):
                        return step, self._restore(step, abstract_state)
                except DamagedError as error:  # in a file that all processes read
                    self._agreed(step, error)
            self._manager.reload()
        return None

    def _restore(self, step: int, abstract_state: Any) -> Any:
        restore_args = ocp.checkpoint_utils.construct_restore_args(abstract_state)
        arguments = ocp.args.PyTreeRestore(
            item=abstract_state, restore_args=restore_args
        )
        restored = self._manager.restore(step, args=ocp.args.Composite(state=arguments))
        return restored["state"]

    def _is_sound(self, step: int, record: soundness.Record) -> bool:
        """Reads all of it once, every process its share; sets it aside if damaged.

        Reading alone comes first, because where one of several processes fails in the
        middle of reading together, the others wait for it.
        """
        mine = list(record.arrays)[jax.process_index() :: jax.process_count()]
        try:
            for paths in _portions(record, mine):
                soundness.read_arrays(self._directory / str(step), record, paths)
            damage = None
        except DamagedError as error:
            damage = error
        return self._agreed(step, damage)

    def _agreed(self, step: int, damage: DamagedError | None) -> bool:
        """Whether no process found damage; else the checkpoint is out of the way."""
        if damage:
            print(f"damaged: {damage}", file=sys.stderr)
        everyone = multihost_utils.process_allgather(np.array(damage is not None))
        if not everyone.any():
            return True
        if jax.process_index() == 0:
            self._set_aside(step)
        multihost_utils.sync_global_devices(f"checkpoint {step} is set aside")
        return False

    def _set_aside_unreadable(self) -> None:
        """Moves those away whose record or metrics cannot be read."""
        if jax.process_index() == 0:
            for step in soundness.steps_in(self._directory):
                try:
                    soundness.read_record(self._directory / str(step))
                except DamagedError as error:
                    print(f"damaged: {error}", file=sys.stderr)
                    self._set_aside(step)
        multihost_utils.sync_global_devices("checkpoints have been looked at")

    def _set_aside(self, step: int) -> None:
        """STEP -> ../damaged/STEP, or STEP-1, ... where there is one already."""
        aside = self._directory.parent / "damaged"
        aside.mkdir(exist_ok=True)
        names = (f"{step}-{i}" if i else f"{step}" for i in itertools.count())
        target = next(aside / name for name in names if not (aside / name).exists())
        (self._directory / str(step)).rename(target)
        print(f"checkpoint {step} was set aside in {target}", file=sys.stderr)


def _portions(record: soundness.Record, paths: Iterable[str]) -> Iterator[list[str]]:
    """Paths in parts that take about a gigabyte to read."""
    portion, size = [], 0
    for path in paths:
        portion.append(path)
        size += record.arrays[path].nbytes
        if size > PORTION:
            yield portion
            portion, size = [], 0
    yield portion
