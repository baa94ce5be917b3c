"""What a run leaves for people to read: numbers, curves and pictures.

metrics.jsonl         one JSON object per logged step, at once (in a bucket, where a
                      file can but be written anew: now and then)
events.out.tfevents.* the same for TensorBoard, where TensorFlow is at hand
images/*.png
"""

import io
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import numpy as np
from etils import epath

from taming_jax import processes
from taming_jax.files import in_bucket, whole_file
from taming_jax.pictures import write_png

BUCKET_SECONDS = 30.0  # between two times that a file in a bucket is written anew


def writer_here(stage_dir: epath.Path, step: int) -> "Writer | NoWriter":
    """A `Writer` in the first of several processes; the others write nothing."""
    return Writer(stage_dir, step) if processes.is_first() else NoWriter()


class Writer:
    """Writes into a stage's directory from `step` on. Use as a context manager.

    A run that is continued from an earlier step than it was killed at writes those
    steps again: what the file holds of them is dropped first.
    """

    def __init__(self, stage_dir: epath.Path, step: int):
        self._images = stage_dir / "images"
        path = stage_dir / "metrics.jsonl"
        _drop_after(path, step)
        self._file = _open(path)
        self._every = BUCKET_SECONDS if in_bucket(path) else 0.0
        self._due = 0.0  # when the file has to be flushed
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
        if time.monotonic() >= self._due:
            self.flush()
        if self._board:
            self._board.write_scalars(step, dict(values))

    def flush(self) -> None:
        """Nothing that was logged will be lost from here on."""
        self._file.flush()
        self._due = time.monotonic() + self._every

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

    def flush(self) -> None:
        """Nothing."""

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """Nothing."""


def _drop_after(path: epath.Path, step: int) -> None:
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
    with whole_file(path) as file:
        file.write("".join(f"{line}\n" for line in kept).encode())


def _open(path: epath.Path) -> TextIO:
    """Text that grows, in a file that is there from now on."""
    if in_bucket(path):
        return _InBucket(path)
    path = Path(path)
    path.touch()
    return path.open("r+")


class _InBucket(io.StringIO):
    """A file of a bucket: kept here, and written anew whenever it is flushed."""

    def __init__(self, path: epath.Path):
        super().__init__(path.read_text() if path.exists() else "")
        self._path = path

    def flush(self):
        if not self.closed:
            self._path.write_text(self.getvalue())

    def close(self):
        self.flush()
        super().close()


def _tensorboard(stage_dir: epath.Path):
    try:
        from clu import metric_writers
    except ImportError:
        return None
    return metric_writers.SummaryWriter(str(stage_dir))
