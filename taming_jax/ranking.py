"""Which checkpoint of a run counts: the newest, or the best by its stage's metric.

    config, stage --best_by--> metric, direction
    W/STAGE, parts of the state --read_parts--> (step, arrays) of the first sound one

Training keeps checkpoints by the same score by which they are found again. What is
read are arrays, whatever model they belong to.
"""

import math
import warnings
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from etils import epath
from flax.traverse_util import unflatten_dict

from taming_jax import soundness
from taming_jax.files import located
from taming_jax.soundness import DamagedError

Best = tuple[str, str]  # a metric and 'max' or 'min'

# What a stage's best checkpoint is best by; class maps have an IoU in place of a PSNR.
BEST_BY: dict[str, Best] = {
    "vqgan": ("psnr", "max"),
    "condition_vqgan": ("psnr", "max"),
    "prior": ("loss", "min"),
}
BEST_OF_CLASSES: Best = ("mean_iou", "max")


def best_by(config: Mapping[str, Any], stage: str) -> Best:
    """The metric that ranks a stage's checkpoints, and 'max' or 'min'."""
    classes = config[stage]["model"].get("classes")
    return BEST_OF_CLASSES if classes else BEST_BY[stage]


def score(metrics: Mapping[str, float], best: Best) -> float:
    """Higher is better; the lowest of all where there is no such metric."""
    name, direction = best
    if name not in metrics:
        return -math.inf
    return metrics[name] if direction == "max" else -metrics[name]


def read_parts(
    stage_dir: str | PurePath, parts: tuple[str, ...], best: Best | None = None
) -> tuple[int, dict[str, Any]]:
    """Parts of the state in the newest checkpoint, or in the best by a metric.

    Returns:
      (step, trees of numpy arrays by the name of their part, {} where the state has
      none), whatever devices the checkpoint was written from. Only these parts of it
      are read, and checked; a damaged checkpoint is left out with a warning.

    Raises:
      ValueError: if there is no checkpoint, or none that is sound.
    """
    directory = located(stage_dir) / "checkpoints"
    if not directory.is_dir():
        raise ValueError(f"{stage_dir} has no checkpoints: is it a run's directory?")
    steps = soundness.steps_in(directory)
    if not steps:
        raise ValueError(f"{directory} holds no checkpoint yet: train first")
    prefixes = tuple(f"{part}/" for part in parts)
    for step, record in _ranked(directory, steps, best):
        wanted = [p for p in record.arrays if p.startswith(prefixes)]
        try:
            arrays = soundness.read_arrays(directory / str(step), record, wanted)
        except DamagedError as error:
            warnings.warn(f"left out a damaged checkpoint, {error}", stacklevel=3)
            continue
        return step, {part: {} for part in parts} | unflatten_dict(arrays, sep="/")
    raise ValueError(f"{directory}: every checkpoint is damaged; train again")


def _ranked(directory: epath.Path, steps: Iterable[int], best: Best | None):
    """(step, record), the newest first; with `best` the best first, then the newest."""
    records = {}
    for step in sorted(steps, reverse=True):
        try:
            records[step] = soundness.read_record(directory / str(step))
        except DamagedError as error:
            warnings.warn(f"left out a damaged checkpoint, {error}", stacklevel=4)
    if best is None:
        return records.items()
    return sorted(
        records.items(), key=lambda pair: score(pair[1].metrics, best), reverse=True
    )
