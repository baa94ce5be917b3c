"""What a window of a picture is told, by the row and column where it begins.

    told(top, left) -> condition tokens int32 [B,n]

`Same` tokens in every window (labels, or nothing), a `Part` of a grid of tokens that
covers the picture (maps, small pictures, coordinates), the `Objects` or `Points` that
can be seen in it, or several of these `Together`. All are pytrees: what changes from
picture to picture are arrays, and they are called inside of compiled functions.

Legend: B pictures, n tokens, M objects, H and W sides of a picture in codes.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from taming_jax.conditions.layouts import Layout, overlap, sized
from taming_jax.units import Tokens

Sides = tuple[int, int]


@struct.dataclass
class Same:
    """The same in every window: tokens int32 [B,n]."""

    tokens: Tokens

    def __call__(self, top, left) -> Tokens:
        return self.tokens


@struct.dataclass
class Part:
    """Of a grid of tokens what lies in the window.

    tokens: int32 [B,H',W'] of the whole picture.
    window: H and W of a window, in codes.
    told: tokens of a window, down and across. Where these are fewer than codes, a
      window that begins between two of them gets those from the first on.
    """

    tokens: Tokens
    window: Sides = struct.field(pytree_node=False)
    told: Sides = struct.field(pytree_node=False)

    def __call__(self, top, left) -> Tokens:
        begins = zip((top, left), self.told, self.window, strict=True)
        starts = (0, *(at * few // many for at, few, many in begins))
        count = len(self.tokens)
        part = lax.dynamic_slice(self.tokens, starts, (count, *self.told))
        return part.reshape(count, -1)


@struct.dataclass
class Objects:
    """The first objects that a window shows a part of, as boxes or centres in it.

    boxes: float32 [B,M,4], x0, y0, x1, y1 in the picture, relative to it.
    classes: int32 [B,M], -1 for none.
    """

    boxes: jax.Array
    classes: jax.Array
    layout: Layout = struct.field(pytree_node=False)
    shape: Sides = struct.field(pytree_node=False)
    window: Sides = struct.field(pytree_node=False)

    def __call__(self, top, left) -> Tokens:
        seen = window_box(top, left, self.shape, self.window)
        shown = (self.classes >= 0) & overlap(sized(self.boxes), seen)
        first, size = jnp.tile(seen[:2], 2), jnp.tile(seen[2:], 2)
        boxes = sized(jnp.clip((self.boxes - first) / size, 0.0, 1.0))
        return self.layout.write(boxes, jnp.where(shown, self.classes, -1))


@struct.dataclass
class Points:
    """Named points where they are in a window; those outside are not in sight.

    points: float32 [B,M,P,3], x and y in the picture, relative to it; 1: in sight.
    kind: gives tokens of points in a window, `Keypoints`.
    """

    points: jax.Array
    kind: Any = struct.field(pytree_node=False)
    shape: Sides = struct.field(pytree_node=False)
    window: Sides = struct.field(pytree_node=False)

    def __call__(self, top, left) -> Tokens:
        seen = window_box(top, left, self.shape, self.window)
        places = (self.points[..., :2] - seen[:2]) / seen[2:]
        inside = ((places >= 0) & (places <= 1)).all(-1, keepdims=True)
        points = jnp.concatenate([places, self.points[..., 2:] * inside], axis=-1)
        shown = (points[..., 2] > 0.5).any(2)  # [B,M]
        first = jnp.argsort(~shown, axis=1, stable=True)[..., None, None]
        return self.kind.tokens(jnp.take_along_axis(points, first, axis=1))


@struct.dataclass
class Together:
    """Several, one after the other.

    parts: each with tokens of its own from 0 on.
    firsts: what is added to the tokens of each.
    """

    parts: Sequence[Any]
    firsts: Sequence[int] = struct.field(pytree_node=False)

    def __call__(self, top, left) -> Tokens:
        told = zip(self.parts, self.firsts, strict=True)
        return jnp.concatenate([f + part(top, left) for part, f in told], axis=1)


def larger(side: int, shape: Sides, window: Sides) -> Sides:
    """The sides of what covers a picture, where side x side of it cover a window.

    Raises:
      ValueError: where that is a fraction.
    """
    sides = [(side * size, many) for size, many in zip(shape, window, strict=True)]
    if any(product % many for product, many in sides):
        steps = [many // math.gcd(many, side) for many in window]
        raise ValueError(
            f"a window of {window} codes is told {side} x {side} of something, and a "
            f"picture of {shape} codes would be told a fraction: make its height a "
            f"multiple of {steps[0]} codes, its width of {steps[1]}"
        )
    return tuple(product // many for product, many in sides)


def window_box(top, left, shape: Sides, window: Sides) -> jax.Array:
    """What a window shows of a picture: x, y, width, height of it, float32 [4]."""
    (height, width), (rows, columns) = shape, window
    return jnp.array([left / width, top / height, columns / width, rows / height])
