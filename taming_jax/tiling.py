"""Arrays that do not fit into memory, through a network tile by tile.

    given [B,H,W,...] --cut--> tiles --run--> results --join--> bands of rows, downwards

Along each side the picture is a row of places (a tokenizer's codes), and a tile is so
many of them. All tiles have one shape, so that `run` is compiled once. Where a tile was
cut out of the picture its result is not what the whole would give: `before` and `after`
places are left out there. What is kept of two neighbours overlaps by `ramp` places or
more, over which the one fades into the other.

Both ends are numpy arrays on the host. Besides them, one or two bands, each as high as
a tile and as wide as the picture, are in memory, and some tiles at a time.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np


class Margins(NamedTuple):
    """Places of a tile that are left out at its cut edges, and that fade."""

    before: int
    after: int
    ramp: int = 0


class Scale(NamedTuple):
    """How many entries of an array a place has, in each direction."""

    given: int
    result: int


def bands(
    run: Callable[[np.ndarray], np.ndarray],
    given: np.ndarray,
    *,
    tile: int,
    margins: Margins,
    scale: Scale,
    together: int = 1,
) -> Iterator[np.ndarray]:
    """What `run` would give of the whole: rows, as soon as nothing changes them more.

    Args:
      run: a network, [together,H',W',...] -> float32 [together,h',w',C]. Tiles are
        larger than whole places by as much as the picture is.
      given: [B,H,W,...]; a memory-mapped file will do.
      tile: its side, in places; where the picture has less, that. It must be larger
        than the sum of the margins.
      margins: of a tile.
      scale: of `given` and of the results.
      together: how many tiles are run at once.

    Yields:
      float32 [B,rows,W'',C]; one below the other they are the result.
    """
    down, across = (_tiles(size, tile, margins, scale) for size in given.shape[1:3])
    begun = None  # rows of the next band, what the last one has added to them
    for row, below in itertools.pairwise([*down, None]):
        band = _band(run, given[:, row.cut], across, row.kept, together)
        band *= row.fade[:, None, None]
        if begun is not None:
            band[:, : begun.shape[1]] += begun
        ready = below.into.start - row.into.start if below else len(row.fade)
        yield band[:, :ready]
        begun = band[:, ready:].copy()


def spans(places: int, tile: int, margins: Margins) -> list[tuple[int, int, int]]:
    """(start, low, high) of as few tiles as can be, at even distances, in places.

    A tile begins at `start`; what is kept of it goes from `low` to `high`.
    """
    last = max(places - tile, 0)
    more = -(-last // (tile - sum(margins)))  # tiles after the first
    found = []
    for start in [0, *(n * last // more for n in range(1, more + 1))]:
        low = start + margins.before if start > 0 else 0
        high = start + tile - margins.after if start < last else places
        found.append((start, low, high))
    return found


class _Tile(NamedTuple):
    """One tile along one side.

    cut: of what is given.
    kept: of the tile's result.
    into: where that goes in the whole.
    fade: float32 [kept], how much it counts there; of all tiles, the sum is one.
    """

    cut: slice
    kept: slice
    into: slice
    fade: np.ndarray


def _tiles(size: int, tile: int, margins: Margins, scale: Scale) -> list[_Tile]:
    """The tiles along a side of so many entries."""
    places, over = divmod(size, scale.given)
    width = min(tile, places) * scale.given + over
    total, tiles = np.zeros(places * scale.result), []
    for start, low, high in spans(places, tile, margins):
        cut = slice(start * scale.given, start * scale.given + width)
        into = slice(low * scale.result, high * scale.result)
        kept = slice((low - start) * scale.result, (high - start) * scale.result)
        fade = _fade(
            kept.stop - kept.start,
            margins.ramp * scale.result,
            rises=start > 0,
            falls=high < places,
        )
        total[into] += fade
        tiles.append(_Tile(cut, kept, into, fade))
    return [t._replace(fade=np.float32(t.fade / total[t.into])) for t in tiles]


def _fade(length: int, ramp: int, *, rises: bool, falls: bool) -> np.ndarray:
    """1, but rising from 0 over `ramp` entries at the edges that were cut: [length]."""
    fade = np.ones(length)
    rise = (np.arange(length) + 0.5) / max(ramp, 0.5)
    if rises:
        fade = np.minimum(fade, rise)
    if falls:
        fade = np.minimum(fade, rise[::-1])
    return fade


def _band(run, strip, across: list[_Tile], rows: slice, together: int) -> np.ndarray:
    """A row of tiles, joined, of all pictures: [B,rows,W'',C]."""
    band = None
    for picture, tile, result in _results(run, strip, across, together):
        if band is None:
            shape = len(strip), rows.stop - rows.start, across[-1].into.stop
            band = np.zeros((*shape, result.shape[-1]), np.float32)
        kept = result[rows, tile.kept]
        band[picture, :, tile.into] += kept * tile.fade[:, None]
    return band


def _results(run, strip, across: list[_Tile], together: int):
    """(picture, tile, its result); the last run is filled up."""
    jobs = list(itertools.product(range(len(strip)), across))
    for first in range(0, len(jobs), together):
        some = jobs[first : first + together]
        filled = some + some[-1:] * (together - len(some))
        cut = np.stack([strip[picture, :, tile.cut] for picture, tile in filled])
        for (picture, tile), result in zip(some, np.asarray(run(cut)), strict=False):
            yield picture, tile, result
