"""Where windows lie on a grid of codes, and which places are drawn together.

    picture [h,w], window [H,W] --origins--> the window of each place
    --waves--> places whose windows wait for one another, one after the other
    --schedule--> steps: units that are drawn at once

A window that slides over a picture shows a prior as many codes as it was trained on
(Esser et al. 2021, section 3.3). A place is drawn after what its window shows before
it, by rows, and of nothing else; so places far enough apart may be drawn at once, and
each sees what it would see if all were drawn one by one.

With a stride s a window serves a block of s x s places. The places of a block in one
row are a unit, drawn one after the other; with stride 1 each place is one.

Numbers only: numpy in, numpy out, before anything is compiled.
"""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np

Sides = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows over a picture.

    Attributes:
      shape: (h, w) of the picture, in codes.
      window: (H, W), neither larger than the picture.
      stride: s, how many codes a window moves by.
      center: how many rows and columns of a window come before its place, where the
        edges of the picture leave room; of a block, before its middle. None: half of
        them, H // 2, as in the paper's sampling script; its script for scenes has
        (H - 1) // 2.
    """

    shape: Sides
    window: Sides
    stride: int = 1
    center: Sides | None = None

    @property
    def before(self) -> Sides:
        """How many rows and columns come before a place; the center, said or not."""
        return self.center or tuple(side // 2 for side in self.window)

    @property
    def blocks(self) -> Sides:
        """How many blocks there are, down and across."""
        return tuple(-(-size // self.stride) for size in self.shape)

    @property
    def origins(self) -> tuple[np.ndarray, np.ndarray]:
        """The first rows of the windows of each row of blocks, and their columns."""
        sides = zip(self.shape, self.window, self.before, strict=True)
        return tuple(_origins(*side, self.stride) for side in sides)


class Steps(NamedTuple):
    """What is drawn, in turn; -1 fills up steps of fewer units.

    rows, blocks: int32 [steps, P], the row and the block across of each unit.
    begins: bool [steps, P], whether it is the first of its block.
    """

    rows: np.ndarray
    blocks: np.ndarray
    begins: np.ndarray


def waves(windows: Windows, drawn: np.ndarray | None = None) -> np.ndarray:
    """The wave of each unit, int32 [h, blocks across]; -1 where nothing is to be drawn.

    A unit waits for all units that its window shows before it; its wave is the length
    of the longest chain of these. Units of a block also wait for each other, and, with
    a stride, for those of the block above, whose cache they take over.

    Args:
      windows: where they are.
      drawn: bool [h,w], which places are drawn in any picture of a batch; None: all.
    """
    height, stride, across = windows.shape[0], windows.stride, windows.blocks[1]
    tops, lefts = windows.origins
    firsts = lefts // stride  # blocks that a window reaches, [blocks across]
    lasts = np.minimum((lefts + windows.window[1] - 1) // stride, across - 1)
    needed = _needed(windows, drawn)
    found = np.full((height, across), -1, np.int32)
    latest = np.full(across, -1, np.int32)  # of each column of blocks
    for row in range(height):
        above = found[tops[row // stride] : row].max(0, initial=-1)
        for block in np.flatnonzero(needed[row]):
            first, last = firsts[block], lasts[block] + 1
            before = max(
                above[first:last].max(), found[row, first:block].max(initial=-1)
            )
            if stride > 1:
                before = max(before, latest[block])
            found[row, block] = latest[block] = before + 1
    return found


def schedule(
    windows: Windows, drawn: np.ndarray | None = None, at_once: int = 16
) -> Steps:
    """Units in the order in which they are drawn, no more than `at_once` in a step.

    Args:
      windows: where they are.
      drawn: as in `waves`.
      at_once: the most units of a step; 1: all one by one.
    """
    found = waves(windows, drawn)
    rows, blocks = np.nonzero(found >= 0)
    order = np.lexsort((blocks, rows, found[rows, blocks]))
    rows, blocks = rows[order], blocks[order]
    counts = np.bincount(found[rows, blocks]) if len(rows) else np.zeros(0, int)
    number = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    parts = -(-counts // at_once)  # steps of each wave
    step = np.repeat(np.cumsum(parts) - parts, counts) + number // at_once
    shape = parts.sum(), min(at_once, counts.max(initial=1))
    table = np.full((2, *shape), -1, np.int32)
    table[:, step, number % at_once] = rows, blocks
    down = np.where(table[0] >= 0, table[0] // windows.stride, windows.blocks[0])
    begins = _first_rows(windows, drawn)[down, table[1]] == table[0]
    return Steps(*table, begins & (table[0] >= 0))


def lengths(windows: Windows, steps: Steps) -> np.ndarray:
    """How many codes of its window come before each unit, int32 [steps, P]; -1: none.

    Counted by rows, from the window's first code.
    """
    tops, lefts = windows.origins
    local_rows = steps.rows - tops[steps.rows // windows.stride]
    local_columns = steps.blocks * windows.stride - lefts[steps.blocks]
    count = local_rows * windows.window[1] + local_columns
    return np.where(steps.rows < 0, -1, count).astype(np.int32)


def rounded_up(numbers: np.ndarray, few: int) -> np.ndarray:
    """Numbers [n], each raised to one of at most `few`, so that they grow least.

    A program is compiled for each that is left, and works as if all were that long.
    """
    values, counts = np.unique(numbers, return_counts=True)
    total = np.concatenate([[0], np.cumsum(counts)])
    cost = np.full(len(values) + 1, np.inf)  # of the first so many values
    cost[0], chosen = 0, []
    for _ in range(min(few, len(values))):
        # From `low` on all values become the last one.
        ways = cost[:-1] + (total[1:, None] - total[:-1]) * values[:, None]
        ways = np.where(np.tri(len(values), dtype=bool), ways, np.inf)
        chosen.append(ways.argmin(1))
        cost = np.concatenate([[0], ways.min(1)])
    kept, end = [], len(values)
    for low in reversed(chosen):
        if end:
            kept.append(values[end - 1])
            end = low[end - 1]
    kept = np.sort(kept).astype(values.dtype)
    return kept[np.searchsorted(kept, numbers)]


def runs(numbers: np.ndarray) -> list[tuple[int, int, int]]:
    """(number, start, stop) of the stretches of equal numbers."""
    edges = np.flatnonzero(np.diff(numbers)) + 1
    ends = [0, *edges.tolist(), len(numbers)]
    return [(int(numbers[a]), a, b) for a, b in itertools.pairwise(ends) if a < b]


def _origins(size: int, window: int, center: int, stride: int) -> np.ndarray:
    """Where the window of each block begins along a side, int32 [blocks]."""
    first = np.arange(0, size, stride)
    last = np.minimum(first + stride, size) - 1
    start = first + (stride - 1) // 2 - center
    start = np.clip(start, last - window + 1, first)  # all of the block is inside
    return np.clip(start, 0, size - window).astype(np.int32)


def _needed(windows: Windows, drawn: np.ndarray | None) -> np.ndarray:
    """Which units there are: bool [h, blocks across].

    Of a block all from the first to the last with something to draw, for its cache
    goes on from row to row.
    """
    (height, width), stride = windows.shape, windows.stride
    if drawn is None:
        return np.ones((height, windows.blocks[1]), bool)
    some = np.zeros((windows.blocks[0] * stride, windows.blocks[1] * stride), bool)
    some[:height, :width] = drawn
    some = some.reshape(-1, stride, windows.blocks[1], stride).any(3)
    begun = np.logical_or.accumulate(some, axis=1)
    unfinished = np.logical_or.accumulate(some[:, ::-1], axis=1)[:, ::-1]
    return (begun & unfinished).reshape(-1, windows.blocks[1])[:height]


def _first_rows(windows: Windows, drawn: np.ndarray | None) -> np.ndarray:
    """The first row of each block with a unit, int32 [blocks down + 1, across].

    Of a block without one, and in the row that stands for no block, -1.
    """
    down, across = windows.blocks
    needed = np.zeros((down * windows.stride, across), bool)
    needed[: windows.shape[0]] = _needed(windows, drawn)
    needed = needed.reshape(down, windows.stride, across)
    rows = np.arange(down)[:, None] * windows.stride + needed.argmax(1)
    rows = np.where(needed.any(1), rows, -1)
    return np.concatenate([rows, np.full((1, across), -1)]).astype(np.int32)
