"""A number in [0, 1] for each place as tokens: the paper's way with coordinates.

    maps [B,H,W] in [0,1] --mean of s x s pixels, round--> tokens [B, H/s, W/s] in 0..n

Told where in a large picture it is, a prior of small ones makes what belongs there: sky
above, ground below (Esser et al. 2021, section 3.3). What says where a pixel is counts
the pixels by rows.
"""

import jax.numpy as jnp
import numpy as np

from taming_jax.units import Maps, Tokens


def coordinates(height: int, width: int) -> np.ndarray:
    """Of each pixel, what share of the picture comes before it: float32 [H,W]."""
    count = height * width
    return (np.arange(count) / count).astype(np.float32).reshape(height, width)


def quantize(maps: Maps, stride: int, steps: int) -> Tokens:
    """Maps [B,H,W] in [0,1] -> int32 [B, H // s, W // s] in 0..steps: steps + 1 values.

    The mean of each s x s pixels, times `steps`, rounded half to even.
    """
    count, height, width = maps.shape
    parts = maps.reshape(count, height // stride, stride, width // stride, stride)
    means = jnp.clip(parts.mean((2, 4)), 0.0, 1.0)
    return jnp.round(means * steps).astype(jnp.int32)


def restore(tokens: Tokens, stride: int, steps: int) -> Maps:
    """The inverse, as precisely as tokens say it: float32 [B,H,W] in [0,1]."""
    maps = jnp.asarray(tokens, jnp.float32) / steps
    return maps.repeat(stride, 1).repeat(stride, 2)


def resized(maps, height: int, width: int | None = None):
    """[B,H,W,...] -> [B,h,w,...] by the nearest pixel above and to the left.

    Without a width it is as the height.
    """
    given = zip((height, width or height), maps.shape[1:3], strict=True)
    rows, columns = (np.arange(side) * n // side for side, n in given)
    return maps[:, rows][:, :, columns]
