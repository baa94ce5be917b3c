"""Sound checkpoints, small, of every kind that is read; each is about to be damaged.

Sample(kind, bytes, checked)   `checked`: the format would notice other numbers
"""

from collections import Counter, OrderedDict
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
import torch_like

from taming_jax.interop.checkpoint import (
    open_checkpoint,
    write_safetensors,
    write_torch,
)


class Sample(NamedTuple):
    """A file.

    Attributes:
      kind: which is a row of the table.
      content: its bytes.
      checked: whether the format has checksums, so that numbers cannot change unseen.
    """

    kind: str
    content: bytes
    checked: bool


class Hook:
    """What frameworks leave in checkpoints; unpickled by Python it would write."""

    def __reduce__(self):
        return open, ("canary", "w")


def samples(directory: Path) -> list[Sample]:
    """One of each kind; `directory` is where they are written meanwhile."""
    path = directory / "sample"
    made = []
    for protocol in (2, 4):
        torch_like.save_zip(path, _content(), protocol=protocol)
        made.append(Sample("zip", path.read_bytes(), True))
        torch_like.save_legacy(path, _content(), protocol=protocol)
        made.append(Sample("legacy", path.read_bytes(), False))
    write_torch(
        path, {"state_dict": _tensors(), "epoch": 7, "names": ["a", ("b", 2.5)]}
    )
    made.append(Sample("zip, ours", path.read_bytes(), True))
    write_safetensors(path, _tensors(), {"format": "pt"})
    made.append(Sample("safetensors", path.read_bytes(), False))
    return made


def canonical(path: Path) -> str:
    """All that a checkpoint holds, every number of every tensor, as a text."""
    return _told(open_checkpoint(path))


def _told(value) -> str:
    if isinstance(value, dict):
        return f"dict({','.join(f'{_told(k)}:{_told(v)}' for k, v in value.items())})"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({','.join(map(_told, value))})"
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}({','.join(sorted(map(_told, value)))})"
    if hasattr(value, "read"):
        array = value.read()
        assert (array.dtype, array.shape) == (value.dtype, value.shape)
        return f"{array.dtype}{array.shape}{array.tobytes()}"
    return repr(value)


def _tensors() -> dict[str, np.ndarray]:
    grid = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    return {
        "encoder.weight": grid,
        "encoder.bias": np.array([0.5, -1, 2], np.float16),
        "quantize.embedding": np.eye(3, dtype=ml_dtypes.bfloat16),
        "steps": np.array(12345),
        "mask": np.array([True, False]),
        "none": grid[:0],
    }


def _content() -> dict:
    """As Lightning's, with tensors that share a storage."""
    tensors = _tensors()
    grid = tensors["encoder.weight"]
    weights = OrderedDict(tensors, transposed=grid.T, row=grid[1, 2])
    weights["trained"] = torch_like.Parameter(np.arange(3.0))
    weights.metadata = {"version": 1}
    return {
        "epoch": 7,
        "global_step": 2**40,
        "pytorch-lightning_version": "1.0.8",
        "state_dict": weights,
        "optimizer_states": [{"state": {0: {"exp_avg": grid[0]}}, "lr": [1e-4, None]}],
        "callbacks": {
            "counted": Counter("aab"),
            "hook": Hook(),
            "sets": {1, "é", b"b"},
        },
        "hyper_parameters": {"flags": (True, False), "size": (1, 2, 3, 4), "-": -5},
    }
