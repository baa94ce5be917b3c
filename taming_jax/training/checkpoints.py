"""Checkpoints of a train state: saved beside training, rotated, the best one kept.

    directory/STEP/state   the whole TrainState, every array with its sharding
    directory/STEP/metrics validation metrics of that step, where there were any

Saving is asynchronous: the arrays are copied, training goes on, and a checkpoint
carries its final name only once it is whole. Nothing here needs TensorFlow.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from taming_jax.stored import Best, score


class Checkpoints:
    """The checkpoints of one stage, for writing. Use as a context manager.

    Args:
      directory: where they are, or will be.
      keep: how many of the newest stay; the best one stays besides.
      best: which metric ranks them, and whether the highest or lowest wins.
    """

    def __init__(self, directory: Path, *, keep: int, best: Best):
        self.best = best
        policies = [
            checkpoint_managers.LatestN(keep),
            checkpoint_managers.BestN(
                get_metric_fn=lambda metrics: score(metrics, best),
                n=1,
                keep_checkpoints_without_metrics=False,
            ),
        ]
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            item_names=("state",),
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
        self._manager.save(
            step,
            args=ocp.args.Composite(state=ocp.args.PyTreeSave(state)),
            metrics=dict(metrics or {}),  # Orbax warns where there are none
        )

    def wait(self) -> None:
        """Returns when everything that was saved lies on the disk."""
        self._manager.wait_until_finished()

    def restore(self, step: int, abstract_state: Any) -> Any:
        """The state of `step`, laid out as `abstract_state` says.

        Its leaves are `jax.ShapeDtypeStruct`s with shardings, which may belong to
        other devices than those that the checkpoint was written from.
        """
        restore_args = ocp.checkpoint_utils.construct_restore_args(abstract_state)
        arguments = ocp.args.PyTreeRestore(
            item=abstract_state, restore_args=restore_args
        )
        restored = self._manager.restore(step, args=ocp.args.Composite(state=arguments))
        return restored["state"]
