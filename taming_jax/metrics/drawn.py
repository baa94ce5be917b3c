"""Samples of a prior by several processes: drawn, measured, and gathered from all.

    asked for [N, ...] --draw--> pictures uint8 [b,H,W,C] --measure--> name -> [b, ...]
    those of all processes, in the order of what was asked for: name -> [N, ...]

No process holds more pictures than a batch of them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from taming_jax.metrics import shares
from taming_jax.pretrained import PretrainedPrior
from taming_jax.pretrained.drawing import draw

Row = tuple[tuple[int, ...], Any]  # shape and dtype of what is known of one sample


def measured(
    prior: PretrainedPrior,
    asked: np.ndarray | Mapping[str, Any],
    measure: Callable[[slice, np.ndarray], Mapping[str, np.ndarray]],
    rows: Mapping[str, Row],
    *,
    count: int,
    seed: int,
    batch_size: int,
) -> dict[str, np.ndarray]:
    """What is measured of samples: name -> [N, ...].

    Args:
      prior: that draws them, as its recipe says.
      asked: what for, as `draw` takes it.
      measure: which of the samples, and these as pictures uint8 [b,H,W,C] -> name ->
        [b, ...].
      rows: the same names; a process that draws nothing has to know them, too.
      count: N.
      seed: of the samples.
      batch_size: of one process.
    """
    mask = np.zeros((shares.rounds(count, batch_size), batch_size), bool)
    columns = {
        name: np.zeros((*mask.shape, *shape), dtype)
        for name, (shape, dtype) in rows.items()
    }
    starts = shares.batch_starts(count, batch_size)
    batches = draw(prior, asked, seed=seed, batch_size=batch_size, starts=starts)
    for n, (start, pictures) in enumerate(batches):
        found = measure(slice(start, start + len(pictures)), pictures)
        for name, values in found.items():
            columns[name][n, : len(pictures)] = values
        mask[n, : len(pictures)] = True
    return shares.all_rows(columns, mask)
