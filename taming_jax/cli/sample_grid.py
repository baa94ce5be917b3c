"""grid.png: what was asked for, row by row, as far as a picture of bearable size goes.

numbers of pictures --rows--> which stand in each row --write_grid--> grid.png
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from taming_jax import pictures

SIDE = 4096  # pixels at which the grid ends, unless a single picture is larger


def write_grid(
    path: Path,
    paths: Sequence[Path],
    count: int,
    names: Sequence[str],
    beside: Sequence[np.ndarray],
) -> int:
    """Writes the first pictures of each thing that was asked for, side by side.

    Args:
      path: of the grid.
      paths: of the N pictures, `count` of each thing after those of the one before.
      count: of each thing.
      names: of the N pictures, written below them; empty: nothing is.
      beside: what stands at the left of the rows, each uint8 [N / count,H',W',3].

    Returns:
      How many of the pictures it shows.
    """
    height, width = pictures.read_png(paths[0]).shape[:2]
    shown = rows(len(paths), count, (height, width), len(beside))
    drawn = [np.stack([pictures.read_png(paths[i]) for i in row]) for row in shown]
    left = [_as_large(part[: len(shown)], height, width) for part in beside]
    if names:
        drawn = [
            pictures.captioned(part, [names[i] for i in row])
            for part, row in zip(drawn, shown, strict=True)
        ]
        each = names[::count][: len(shown)]
        left = [pictures.captioned(part, each) for part in left]
    if left:
        left = np.stack(left, axis=1)  # [rows, conditions, H, W, 3]
        drawn = [np.concatenate(pair) for pair in zip(left, drawn, strict=True)]
    pictures.write_png(path, pictures.grid(drawn, len(drawn[0])))
    return sum(map(len, shown))


def _as_large(parts: np.ndarray, height: int, width: int) -> np.ndarray:
    """[n,H',W',3] -> [n,H,W,3]: what is drawn as a square is stretched over it all."""
    down = np.arange(height) * parts.shape[1] // height
    across = np.arange(width) * parts.shape[2] // width
    return parts[:, down][:, :, across]


def rows(
    total: int, count: int, size: tuple[int, int], beside: int = 0
) -> list[np.ndarray]:
    """The numbers of the pictures in each row.

    Each thing that was asked for has a row; a column, where there are more things than
    pictures of each; and if it is the only one, as many rows as it takes.

    Args:
      total: N pictures.
      count: of each thing.
      size: (H, W) of a picture.
      beside: how many others stand at the left of a row.
    """
    down, across = (max(1, SIDE // (side + pictures.GAP)) for side in size)
    across = max(1, across - beside)
    numbers = np.arange(total).reshape(-1, count)
    if len(numbers) == 1 and not beside:
        starts = range(0, total, across)[:down]
        return [numbers[0, start : start + across] for start in starts]
    if len(numbers) > count and not beside:
        numbers = numbers.T
    return list(numbers[:down, :across])
