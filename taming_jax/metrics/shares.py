"""One measurement by several processes: each takes its share, all get all figures.

Legend: P processes, b batches, L rows of a batch that one process reads.
"""

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from taming_jax import data


def eval_batches(source, *, batch_size: int, keep: Sequence[str], count: int | None):
    """This process's rows of `data.eval_batches`."""
    return data.eval_batches(
        source,
        batch_size=batch_size,
        keep=keep,
        count=count,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def batch_starts(count: int, batch_size: int) -> range:
    """Where this process's batches of `count` things begin: every P-th is its own."""
    step = batch_size * jax.process_count()
    return range(batch_size * jax.process_index(), count, step)


def rounds(count: int, batch_size: int) -> int:
    """How many batches the process has that has most of them."""
    return math.ceil(count / (batch_size * jax.process_count()))


def all_rows(
    columns: Mapping[str, np.ndarray], mask: np.ndarray
) -> dict[str, np.ndarray]:
    """What all processes have measured, in the order of the examples.

    Args:
      columns: name -> [b, L, ...] of this process.
      mask: bool [b, L], which rows count.

    Returns:
      name -> [N, ...], the rows that count.
    """
    counted = _everyones(mask)
    return {name: _everyones(column)[counted] for name, column in columns.items()}


def total(counts: np.ndarray) -> np.ndarray:
    """The sum over all processes."""
    return _from_all(counts).sum(0)


def _everyones(column: np.ndarray) -> np.ndarray:
    """[b, L, ...] of each process -> [b * P * L, ...]."""
    batches = np.moveaxis(_from_all(column), 0, 1)  # [b, P, L, ...]
    return batches.reshape(-1, *column.shape[2:])


def _from_all(array: np.ndarray) -> np.ndarray:
    """[...] -> [P, ...]; as bytes, since jax knows no float64 here."""
    array = np.ascontiguousarray(array)
    gathered = multihost_utils.process_allgather(array.reshape(-1).view(np.uint8))
    return np.asarray(gathered).view(array.dtype).reshape(-1, *array.shape)
