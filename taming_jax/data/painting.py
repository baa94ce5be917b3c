"""How objects of the embedded data look: hues, light, and layers of paint.

    distance, distance nearer to the light --lit--> light, gleam
    tones, pattern, light, gleam, coverage --paint--> colours --over--> picture

Legend: n objects in windows of h x w pixels. Colours are integers in [0, 255]; light,
pattern and coverage are int32 with 1 = ONE. No pixel has noise of its own.
"""

from typing import NamedTuple

import numpy as np

from taming_jax.data.rendering import ONE, column

HUES = np.array(  # int32 [8, 2, RGB], two tones between which a texture runs
    [
        [(222, 52, 50), (241, 97, 86)],  # red
        [(238, 122, 26), (248, 159, 63)],  # orange
        [(240, 190, 34), (249, 215, 92)],  # yellow
        [(60, 164, 76), (106, 195, 102)],  # green
        [(20, 158, 162), (75, 192, 189)],  # teal
        [(48, 102, 216), (91, 144, 237)],  # blue
        [(128, 76, 198), (162, 116, 224)],  # violet
        [(226, 78, 144), (243, 124, 174)],  # pink
    ],
    np.int32,
)
_RIM = np.float32(0.16)  # how far the bevel reaches inwards, in radii


def rim(distance: np.ndarray) -> np.ndarray:
    """1 on the outline (and outside), falling to 0 where the bevel ends: float32."""
    return np.clip(1 + distance / _RIM, 0, 1)


def lit(
    distance: np.ndarray, toward: np.ndarray, step: np.ndarray | np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """How a dome with a bevelled rim meets the light: int32 [n,h,w] each.

    Args:
      distance: to the outline, in radii, [n,h,w].
      toward: the same a step nearer to the light, [n,h,w].
      step: its length, in radii.

    Returns:
      light, about ONE; gleam, the share of white in [0, ONE / 4].
    """
    bevel = rim(distance)
    facing = (toward - distance) / step  # -1 to 1, the slope towards the light
    light = ONE * (1 + facing * (0.08 + 0.3 * bevel))
    gleam = ONE / 2 * np.clip(facing * bevel - 0.45, 0, 0.5)
    return light.astype(np.int32), gleam.astype(np.int32)


def shadow(toward: np.ndarray) -> np.ndarray:
    """The light that an object so far `toward` the light takes: int32 to ONE / 2."""
    return (ONE / 2 * np.clip(0.5 - 3.5 * toward, 0, 1)).astype(np.int32)


class Paint(NamedTuple):
    """What of each tone, and of white, goes into each pixel: int32 [n,h,w], 12 bits."""

    first: np.ndarray
    second: np.ndarray
    white: np.ndarray

    def colour(self, tones: np.ndarray) -> np.ndarray:
        """One channel: tones int32 [n,2] -> colour times coverage, int32 [n,h,w]."""
        colour = self.first * column(tones[:, 0])
        colour += self.second * column(tones[:, 1])
        colour += self.white
        colour >>= 12
        return colour


def paint(
    pattern: np.ndarray, light: np.ndarray, gleam: np.ndarray, cover: np.ndarray
) -> Paint:
    """Mixes what an object shows: each [n,h,w] in units of ONE."""
    lit_cover = light * (ONE - gleam) * cover >> 8  # 16 bits
    second = lit_cover * pattern >> 12
    return Paint((lit_cover >> 4) - second, second, gleam * cover * 255 >> 4)


def over(below: np.ndarray, above: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Colours times coverage, laid over others: int32 in [0, 255]."""
    colour = below * (ONE - cover)
    colour >>= 8
    colour += above
    return np.minimum(colour, 255, out=colour)
