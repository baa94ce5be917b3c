"""What a window of a picture is told, by the row and column where it begins.

    told(top, left) -> condition tokens int32 [B,n]

`Same` tokens in every window (labels, or nothing), a `Part` of a grid of tokens that
covers the picture (maps, small pictures, coordinates), the `Objects` or `Points` that
can be seen in it, or several of these `Together`. All are pytrees: what changes from
picture to picture are arrays, and they are called inside of compiled functions.

Legend: B pictures, n tokens, M objects, H and W sides of a picture in codes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
    """Of grids of tokens that cover the picture what lies in the window.

    tokens: int32 [B,P,Q,H',W']. Where a window is told fewer tokens than it has codes
      it may begin between two of them: P x Q grids, each begins so many codes further
      down and across, and those cut from a window's phase begin where it does. With
      P = Q = 1 it gets the tokens from that on in which it begins.
    window: H and W of a window, in codes.
    told: tokens of a window, down and across.
    """

    tokens: Tokens
    window: Sides = struct.field(pytree_node=False)
    told: Sides = struct.field(pytree_node=False)

    def __call__(self, top, left) -> Tokens:
        count, *phases = self.tokens.shape[:3]
        phase = [at % many for at, many in zip((top, left), phases, strict=True)]
        begins = zip((top, left), phase, self.told, self.window, strict=True)
        starts = ((at - over) * few // many for at, over, few, many in begins)
        sizes = count, 1, 1, *self.told
        part = lax.dynamic_slice(self.tokens, (0, *phase, *starts), sizes)
        return part.reshape(count, -1)


@struct.dataclass
class Objects:
    """The first objects that a window shows a part of, as boxes or centres.

    boxes: float32 [B,M,4], x0, y0, x1, y1 in the picture, relative to it.
    classes: int32 [B,M], -1 for none.
    crops: float32 [B,4], what the picture is of the whole that boxes are then relative
      to; the layout says what a window is of that. None: objects are told as they lie
      in the window, cut to it.
    """

    boxes: jax.Array
    classes: jax.Array
    crops: jax.Array | None
    layout: Layout = struct.field(pytree_node=False)
    shape: Sides = struct.field(pytree_node=False)
    window: Sides = struct.field(pytree_node=False)

    def __call__(self, top, left) -> Tokens:
        seen = window_box(top, left, self.shape, self.window)
        boxes, crops = sized(self.boxes), None
        if self.crops is None:
            shown = overlap(boxes, seen)
            first, size = jnp.tile(seen[:2], 2), jnp.tile(seen[2:], 2)
            boxes = sized(jnp.clip((self.boxes - first) / size, 0.0, 1.0))
        else:
            first, size = jnp.split(sized(self.crops), 2, axis=-1)
            crops = jnp.concatenate([first + size * seen[:2], size * seen[2:]], axis=-1)
            shown = overlap(boxes, crops[:, None])
        classes = jnp.where(shown & (self.classes >= 0), self.classes, -1)
        return self.layout.write(boxes, classes, crop=crops)


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


def cut_from(
    maps, tokens: Callable[[Any], Tokens], shape: Sides, window: Sides, told: Sides
) -> Part:
    """What windows are told of maps of which a window's crop gives `told` tokens.

    Args:
      maps: [B,S,T,...] of pictures, with a whole number of pixels for each code.
      tokens: maps of this size -> tokens int32 [B,H',W'] of all of them. Those of maps
        that begin further down or across end in their edge, which no window shows.
      shape: (h, w) of the pictures, in codes.
      window: of a window.
      told: tokens of a window, down and across.
    """
    sides = zip(shape, maps.shape[1:3], window, told, strict=True)
    rows, columns = (
        [pixels * at // size for at in range(_phases(size, many, few))]
        for size, pixels, many, few in sides
    )
    grids = [[tokens(_from(maps, row, column)) for column in columns] for row in rows]
    # One after the other, for maps may be large: what is kept of each are its tokens.
    grids = jnp.stack([jnp.stack(across, axis=1) for across in grids], axis=1)
    return Part(grids.astype(jnp.int32), window, told)


def _phases(size: int, many: int, few: int) -> int:
    """At how many codes after a token a window can begin."""
    return 1 if size == many else many // math.gcd(many, few)


def _from(maps, row: int, column: int):
    """Maps from a pixel on, as large as before: their edge goes on."""
    if row == column == 0:
        return maps
    rows, columns = (
        np.minimum(np.arange(start, start + side), side - 1)
        for start, side in zip((row, column), maps.shape[1:3], strict=True)
    )
    return maps[:, rows][:, :, columns]


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
