"""Rectangles around objects, so that a scene is drawn only where something is.

Legend: canvases [B,...,H,W] with H = W = size, n windows of h x w pixels in them.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from taming_jax.data.rendering import centres


class Window(NamedTuple):
    """n rectangles of one shape, each in one of B canvases."""

    canvas: np.ndarray  # int [n], which
    top: np.ndarray  # int [n]
    left: np.ndarray  # int [n]
    shape: tuple[int, int]  # (h, w)

    def grid(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the pixels' centres are: x [n,1,w] and y [n,h,1], float32."""
        h, w = self.shape
        x, y = centres(self.left, w, size), centres(self.top, h, size)
        return x[:, None, :], y[:, :, None]

    def cut(self, sheets: np.ndarray, which: np.ndarray) -> np.ndarray:
        """What sheets [S,H,W] show there, sheet `which` [n] for each: [n,h,w]."""
        return sliding_window_view(sheets, self.shape, (1, 2))[
            which, self.top, self.left
        ]

    def lay(
        self,
        canvases: np.ndarray,
        layers: Iterable[np.ndarray],
        blend: Callable[..., np.ndarray],
        *values: np.ndarray,
    ) -> None:
        """Draws on the canvases: what is there becomes blend(what is there, *values).

        Args:
          canvases: [B,...,H,W], changed in place.
          layers: rows of windows, one layer after the other; no two windows of one
            canvas are in the same layer.
          blend: takes [rows,...,h,w] of the canvas, and the rows of each value.
          *values: [n,...], what is drawn.
        """
        view = sliding_window_view(canvases, self.shape, (-2, -1), writeable=True)
        for rows in layers:
            corner = self.canvas[rows], ..., self.top[rows], self.left[rows]
            here = (*corner, slice(None), slice(None))
            view[here] = blend(view[here], *(value[rows] for value in values))


def window(
    canvas: np.ndarray,
    x: tuple[np.ndarray, np.ndarray],
    y: tuple[np.ndarray, np.ndarray],
    size: int,
) -> Window:
    """The smallest windows of one shape that hold what lies in (from, to), [n] each."""
    (left, w), (top, h) = _span(*x, size), _span(*y, size)
    return Window(canvas, top, left, (h, w))


def _span(low: np.ndarray, high: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """First pixels [n] and their count, with room for half the width of an outline."""
    spare = 1 + (size // 64 + 1) // 2
    first = np.floor((low + 1) * (size / 2)).astype(np.int64) - spare
    last = np.floor((high + 1) * (size / 2)).astype(np.int64) + spare
    count = min(size, int((last - first).max()) + 1)
    return np.clip(first, 0, size - count), count
