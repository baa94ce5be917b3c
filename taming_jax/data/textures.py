"""Textures of the embedded data: which share of a pixel has a hue's second tone.

A texture is fixed to the picture, not to the object, and repeats in square tiles: what
is learnt of it at one place holds at all others.
"""

from functools import lru_cache

import numpy as np

from taming_jax.data.rendering import ONE

_PERIOD = 1 << 12  # steps of phase along the side of a tile


@lru_cache(maxsize=4)
def textures(size: int, tiles: int) -> np.ndarray:
    """The share of each pixel in the six of `TEXTURES`: int16 [6,size,size] to ONE.

    tiles: along each side; four of them at 64 pixels have a period of 16.
    """
    phase = (2 * np.arange(size) + 1) * (tiles * _PERIOD) // (2 * size)
    x, y = np.meshgrid(phase, phase)
    depths = np.stack([texture(x, y) for texture in TEXTURES.values()])
    share = depths * (ONE * size / (tiles * _PERIOD)) + ONE / 2
    return np.clip(share, 0, ONE).astype(np.int16)


# Each takes phases x, y and says how deep in the second tone they are, in steps too;
# negative is the first tone.


def _plain(x, y):
    return np.full_like(x, -_PERIOD)


def _stripes(x, y):
    return _wave(y)


def _slants(x, y):
    return _wave(x + y) * 3 // 4


def _checks(x, y):
    x, y = _wave(x), _wave(y)
    return np.where(x * y > 0, 1, -1) * np.minimum(abs(x), abs(y))


def _dots(x, y):
    half = _PERIOD // 2
    return _PERIOD // 5 - np.minimum(_radius(x, y), _radius(x + half, y + half))


def _waves(x, y):
    return _wave(y + _wave(x) // 2) * 3 // 4


TEXTURES = {
    "plain": _plain,
    "stripes": _stripes,
    "slants": _slants,
    "checks": _checks,
    "dots": _dots,
    "waves": _waves,
}


def _wave(phase):
    """Triangle wave: positive in one half of each period, a quarter at its crest."""
    return _PERIOD // 4 - abs(phase % _PERIOD - _PERIOD // 2)


def _radius(x, y):
    """Distance to the middle of the tile."""
    x, y = x % _PERIOD - _PERIOD // 2, y % _PERIOD - _PERIOD // 2
    return np.sqrt((x * x + y * y).astype(np.float64)).astype(np.int64)
