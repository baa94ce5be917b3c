"""The units everything here is measured in, and the conversions between them.

Images    float32 [B, H, W, C] in [-1, 1]
Codes     int32   [B, h, w], row-major indices into the codebook; h = H // stride
Tokens    int32   [B, T], codes (and conditions) in the order a prior reads them
Labels    int32   [B]
Boxes     float32 [B, N, 4], (x0, y0, x1, y1) relative to the picture, in [0, 1]
ClassMaps int32   [B, H, W], the class of each pixel
Maps      float32 [B, H, W] in [0, 1]: depth, 0 nearest, or edges, 1 where there is one

Pictures rest as uint8 in files and on their way to the device; each conversion
between the two is written once, here.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Images: TypeAlias = jax.Array
Codes: TypeAlias = jax.Array
Tokens: TypeAlias = jax.Array
Labels: TypeAlias = jax.Array
Boxes: TypeAlias = jax.Array
ClassMaps: TypeAlias = jax.Array
Maps: TypeAlias = jax.Array


def from_uint8(pictures) -> Images:
    """uint8 in [0, 255] -> float32 in [-1, 1], as the original: p / 127.5 - 1."""
    return jnp.asarray(pictures).astype(jnp.float32) / 127.5 - 1.0


def as_images(batch) -> Images:
    """Pictures uint8 -> images; what is float already is an image and stays one."""
    if jnp.issubdtype(batch.dtype, jnp.floating):
        return batch.astype(jnp.float32)
    return from_uint8(batch)


def from_map(maps) -> Images:
    """Maps [B,H,W] in [0, 1] -> images [B,H,W,1] in [-1, 1]: 2 m - 1."""
    return 2.0 * jnp.asarray(maps, jnp.float32)[..., None] - 1.0


def stretched(maps) -> Maps:
    """Each map [B,H,W] from its least to its greatest value over [0, 1].

    The original's way with depth: (m - min) / max(1e-8, max - min).
    """
    maps = jnp.asarray(maps, jnp.float32)
    least = maps.min((1, 2), keepdims=True)
    span = maps.max((1, 2), keepdims=True) - least
    return (maps - least) / jnp.maximum(1e-8, span)


def to_uint8(images) -> np.ndarray:
    """float32 in [-1, 1], clipped there -> uint8 in [0, 255], rounded to nearest.

    The inverse of `from_uint8`. On the host, because it is made for files.
    """
    images = np.clip(np.asarray(images, dtype=np.float32), -1.0, 1.0)
    return np.round((images + 1.0) * 127.5).astype(np.uint8)
