"""What a run leaves for people to read: numbers, curves and pictures.

metrics.jsonl         one JSON object per logged step, flushed
events.out.tfevents.* the same for TensorBoard, where TensorFlow is at hand
images/*.png
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from taming_jax import processes
from taming_jax.pictures import write_png


def writer_here(stage_dir: Path, step: int) -> "Writer | NoWriter":
    """A `Writer` in the first of several processes; the others write nothing."""
    return Writer(stage_dir, step) if processes.is_first() else NoWriter()


class Writer:
    """Writes into a stage's directory from `step` on. Use as a context manager.

    A run that is continued from an earlier step than it was killed at writes those
    steps again: what the file holds of them is dropped first.
    """

    def __init__(self, stage_dir: Path, step: int):
        self._images = stage_dir / "images"
        path = stage_dir / "metrics.jsonl"
        _drop_after(path, step)
        path.touch()
        self._file = path.open("r+")
        self._step, self._line = None, {}
        self._start = self._file.seek(0, os.SEEK_END)  # where that line begins
        self._board = _tensorboard(stage_dir)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._file.close()
        if self._board:
            self._board.close()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Into the line of `step`, and a point of every curve.

        What is not finite becomes null. What is written twice for a step stands in one
        line: it grows at its end, so that a kill in between loses nothing.
        """
        if step != self._step:
            self._step, self._line, self._start = step, {}, self._file.tell()
        self._line |= {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._file.seek(self._start)
        self._file.write(json.dumps({"step": step, **self._line}) + "\n")
        self._file.flush()
        if self._board:
            self._board.write_scalars(step, dict(values))

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """uint8 [H, W, C] -> images/NAME_STEP.png."""
        write_png(self._images / f"{name}_{step:07d}.png", picture)
        if self._board:
            self._board.write_images(step, {name: picture[None]})


class NoWriter:
    """Takes what a `Writer` takes, and leaves it."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """Nothing."""


def _drop_after(path: Path, step: int) -> None:
    """Keeps the whole lines up to and with `step`."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:
            break  # the line that was being written when the run was killed
    path.write_text("".join(f"{line}\n" for line in kept))


def _tensorboard(stage_dir: Path):
    try:
        from clu import metric_writers
    except ImportError:
        return None
    return metric_writers.SummaryWriter(str(stage_dir))
