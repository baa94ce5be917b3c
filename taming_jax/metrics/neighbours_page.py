"""A page for people: pictures, and the training pictures that are nearest to them.

    looked-at pictures, what was found, the source -> one picture uint8 [H', W', 3]

A row is a picture, then its K nearest by each space in turn, with their distances below
them. Samples come first, held-out pictures below them for comparison.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from taming_jax import pictures
from taming_jax.metrics.neighbours import Looked

ROWS = 8  # of samples, and of held-out pictures
TITLES = {"samples": "sample", "held out": "held out"}


def neighbours_page(looked: Mapping[str, Looked], source) -> np.ndarray:
    """The first `ROWS` of each.

    Args:
      looked: what `evaluate_neighbours` gives.
      source: that the neighbours are in.
    """
    parts = [_part(TITLES[name], what, source) for name, what in looked.items()]
    gap = np.full((pictures.LINE, *parts[0].shape[1:]), 255, np.uint8)
    return np.concatenate([parts[0], gap, *parts[1:]])


def _part(title: str, looked: Looked, source) -> np.ndarray:
    shown, names = looked.pictures[:ROWS], list(looked.nearest)
    columns = [[shown, [title] * len(shown)]]
    for found in looked.nearest.values():
        for k in range(found.indices.shape[1]):
            indices = found.indices[: len(shown), k].astype(np.int64)
            read = source.read(indices, None, ("image",))["image"]
            read = read[:, : shown.shape[1], : shown.shape[2]]
            distances = found.distances[: len(shown), k]
            columns.append([read, [f"{distance:.3g}" for distance in distances]])
    drawn = [pictures.captioned(_coloured(part), below) for part, below in columns]
    page = pictures.grid(list(np.stack(drawn, axis=1)), len(drawn))
    return np.concatenate([_heading(page.shape[1], len(drawn), names), page])


def _heading(width: int, columns: int, names: Sequence[str]) -> np.ndarray:
    """A white line that says above which pictures what is."""
    each = (columns - 1) // len(names)
    cell = (width + pictures.GAP) // columns
    widths = [cell, *[each * cell] * (len(names) - 1)]
    widths.append(width - sum(widths))
    said = ["", *(f"nearest by {name}" for name in names)]
    lines = [
        pictures.captioned(np.zeros((1, 0, wide, 3), np.uint8), [text])[0]
        for wide, text in zip(widths, said, strict=True)
    ]
    return np.concatenate(lines, axis=1)


def _coloured(drawn: np.ndarray) -> np.ndarray:
    """[N, H, W, 1 or 3] -> [N, H, W, 3]."""
    return np.broadcast_to(drawn, (*drawn.shape[:3], 3))
