"""The units everything here is measured in, and the conversions between them.

Images    float32 [B, H, W, C] in [-1, 1]
Codes     int32   [B, h, w], row-major indices into the codebook; h = H // stride
Tokens    int32   [B, T], codes (and conditions) in the order a prior reads them
Labels    int32   [B]
Boxes     float32 [B, N, 4], (x0, y0, x1, y1) relative to the picture, in [0, 1]

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


def from_uint8(pictures) -> Images:
    """uint8 in [0, 255] -> float32 in [-1, 1], as the original: p / 127.5 - 1."""
    return jnp.asarray(pictures).astype(jnp.float32) / 127.5 - 1.0


def as_images(batch) -> Images:
    """Pictures uint8 -> images; what is float already is an image and stays one."""
    if jnp.issubdtype(batch.dtype, jnp.floating):
        return batch.astype(jnp.float32)
    return from_uint8(batch)


def to_uint8(images) -> np.ndarray:
    """float32 in [-1, 1], clipped there -> uint8 in [0, 255], rounded to nearest.

    The inverse of `from_uint8`. On the host, because it is made for files.
    """
    images = np.clip(np.asarray(images, dtype=np.float32), -1.0, 1.0)
    return np.round((images + 1.0) * 127.5).astype(np.uint8)
