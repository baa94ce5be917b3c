"""In which order a prior reads and writes the grid of codes.

    make_order("spiral_in", (h, w)) -> int32 [h * w]
    tokens[i] = codes.ravel()[order[i]]

An order is a permutation of the places of the grid, counted by rows. The seven of the
original (Esser et al. 2021) by name, on any grid that they can be walked on, or one of
your own: all places, each once.
"""

from collections.abc import Sequence

import numpy as np

from taming_jax.models.fields import choose

Grid = tuple[int, int]
Order = str | Sequence[int]  # a name out of ORDERS, or all places of the grid


def make_order(order: Order, grid: Grid) -> np.ndarray:
    """The order of a grid's places: int32 [h * w].

    Raises:
      ValueError: for a name that is not known, a grid that the order does not fit, and
        a list that is no permutation of the grid's places.
    """
    height, width = grid
    if isinstance(order, str):
        return choose("a prior", "order", order, ORDERS)(height, width).astype(np.int32)
    places = np.asarray(order)
    count = height * width
    whole = places.ndim == 1 and np.issubdtype(places.dtype, np.integer)
    if not whole or not np.array_equal(np.sort(places), np.arange(count)):
        raise ValueError(
            f"order of {places.size} places does not fit a grid of {height} x {width}: "
            f"name each of its places 0 to {count - 1} once, counted by rows, or give "
            f"one of {', '.join(ORDERS)}"
        )
    return places.astype(np.int32)


def is_raster(order: np.ndarray) -> bool:
    """Whether it is the order of the rows."""
    return np.array_equal(order, np.arange(len(order)))


def raster(height: int, width: int) -> np.ndarray:
    """Row by row, each from the left."""
    return np.arange(height * width)


def alternate(height: int, width: int) -> np.ndarray:
    """Row by row, from the left and from the right in turn."""
    places = raster(height, width).reshape(height, width)
    places[1::2] = places[1::2, ::-1].copy()
    return places.ravel()


def subsample(height: int, width: int) -> np.ndarray:
    """Every other row and column, down to single codes: from coarse to fine.

    Raises:
      ValueError: unless the grid is a square whose side is a power of two.
    """
    if height != width or height & (height - 1):
        raise ValueError(
            f"order='subsample' halves a grid until one code is left, and {height} x "
            f"{width} does not come out even: it takes squares of 1, 2, 4, 8, 16, ...; "
            "choose another order"
        )
    parts = raster(height, width).reshape(1, height, width)
    while parts.shape[1] > 1:
        half = parts.shape[1] // 2
        parts = parts.reshape(-1, half, 2, half, 2).transpose(0, 2, 4, 1, 3)
        parts = parts.reshape(-1, half, half)
    return parts.ravel()


def z_curve(height: int, width: int) -> np.ndarray:
    """By the bits of row and column in turn (Morton 1966): neighbours stay near."""
    rows, columns = np.divmod(raster(height, width), width)
    number = np.zeros(height * width, np.int64)
    for bit in range(max(height, width).bit_length()):
        number |= (columns >> bit & 1) << 2 * bit | (rows >> bit & 1) << 2 * bit + 1
    return np.argsort(number)


def spiral_in(height: int, width: int) -> np.ndarray:
    """From the bottom right corner up and around to the centre, to the left."""
    rest, walked = raster(height, width).reshape(height, width), []
    while rest.size:
        walked.append(rest[::-1, -1])
        rest = np.rot90(rest[:, :-1], -1)
    return np.concatenate(walked)


def spiral_out(height: int, width: int) -> np.ndarray:
    """From the centre to the bottom right corner: `spiral_in` backwards."""
    return spiral_in(height, width)[::-1]


def random(height: int, width: int) -> np.ndarray:
    """An arbitrary order, always the same, numpy's with seed 1 as the original's."""
    generator = np.random.RandomState(1)
    return generator.permutation(height * width)


ORDERS = {
    "raster": raster,
    "subsample": subsample,
    "z_curve": z_curve,
    "spiral_out": spiral_out,
    "spiral_in": spiral_in,
    "random": random,
    "alternate": alternate,
}
