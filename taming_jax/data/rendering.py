"""What the embedded data sets share: the example, frames of objects, coverage, truth.

    parameters --Pose--> Frame --pixels' x, y--> u, v [n,h,w]
        --kinds.distance--> distance [n,h,w] --coverage, outline, extents--> truth

Legend: B pictures, n objects that are drawn together, h and w pixels of the whole
picture or of a window in it, H = W = size. Lengths are in half-widths of the picture:
x and y run from -1 to 1, y downwards.

The same bytes come out on every machine. Random numbers are integers (`draws`).
Geometry is float32, but made only of operations that IEEE 754 rounds in one way
(+ - * / sqrt, min, max, comparison), each a call of its own: nothing is fused, and no
mathematical library and no order of summation has a say. Coverage, light and colour
are integers.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

ONE = 256  # the fixed-point 1 of coverage, light and texture
MIN_SIZE = 8
POINTS = 5  # named points of an object
_PIECE = 3 << 14  # pixels: with fewer the calls cost more, with more the memory


class Entry(NamedTuple):
    """What one key of an example holds."""

    dtype: str
    shape: tuple[str | int, ...]  # of one example
    meaning: str


def example(objects: int) -> dict[str, Entry]:
    """The example of a data set with at most so many objects in a picture."""
    return {
        "image": Entry("uint8", ("H", "W", 3), "RGB"),
        "label": Entry("int32", (), "class of the nearest object"),
        "segmentation": Entry("int32", ("H", "W"), "0 background, or 1 + class"),
        "depth": Entry("float32", ("H", "W"), "0 nearest to 1 farthest"),
        "edges": Entry("float32", ("H", "W"), "0 to 1, outlines that are in sight"),
        "boxes": Entry(
            "float32",
            (objects, 4),
            "x0, y0, x1, y1 in [0, 1] around the pixels in sight of each object, the "
            "nearest first; zeros for none",
        ),
        "box_classes": Entry("int32", (objects,), "class of each box, -1 for none"),
        "keypoints": Entry(
            "float32",
            (objects, POINTS, 3),
            "x, y in [0, 1] and 1 in sight or 0 hidden, for the objects of the boxes; "
            "their names are in kinds.KINDS; zeros for no object",
        ),
    }


def blank(
    entries: Mapping[str, Entry], keep: Sequence[str], count: int, size: int
) -> dict[str, np.ndarray]:
    """Zeros [count, ...] for the entries to keep, to be drawn on.

    Raises:
      ValueError: for a key that is not there, or a picture too small to draw.
    """
    if unknown := [key for key in keep if key not in entries]:
        raise ValueError(
            f"keep asks for {unknown[0]!r}; the embedded data have "
            f"{', '.join(entries)}: choose among these"
        )
    if size < MIN_SIZE:
        raise ValueError(
            f"image_size is {size}; the embedded data can be drawn from {MIN_SIZE} "
            "pixels on: choose that or more"
        )
    side = {"H": size, "W": size}
    return {
        key: np.zeros(
            [count, *(side.get(axis, axis) for axis in entries[key].shape)],
            entries[key].dtype,
        )
        for key in keep
    }


def pieces(count: int, pixels: int) -> Iterator[slice]:
    """Parts of `count` windows of so many pixels each, to be drawn together."""
    step = max(1, _PIECE // pixels)
    for first in range(0, count, step):
        yield slice(first, first + step)


class Frame(NamedTuple):
    """Picture -> object: u = ux x + uy y + u0, v likewise; float32 [n] each.

    In its own frame an object is upright at the origin with radius about 1; v points
    to its feet.
    """

    ux: np.ndarray
    uy: np.ndarray
    u0: np.ndarray
    vx: np.ndarray
    vy: np.ndarray
    v0: np.ndarray

    def __call__(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points x, y that broadcast to [n,h,w] -> u, v [n,h,w]."""
        ux, uy, u0, vx, vy, v0 = (column(field) for field in self)
        return ux * x + (uy * y + u0), vx * x + (vy * y + v0)

    def along(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A step (x, y) [n] across the picture -> the same step in u, v [n,1,1]."""
        return column(self.ux * x + self.uy * y), column(self.vx * x + self.vy * y)

    def cast(self, foot: np.ndarray, lean: np.ndarray, rise: float) -> "Frame":
        """The frame in which the object's shadow, on the ground behind it, is upright.

        Above its foot (at y = foot, [n]) a point of the object is `rise` times as high
        as its shadow, and `lean` [n] times the shadow's height further right.
        """
        start = foot * (1 - rise)
        return Frame(
            self.ux,
            self.uy * rise - self.ux * lean,
            self.u0 + self.uy * start + self.ux * lean * foot,
            self.vx,
            self.vy * rise - self.vx * lean,
            self.v0 + self.vy * start + self.vx * lean * foot,
        )


class Pose(NamedTuple):
    """Where objects are in the picture: float32 [n] each."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    turn: np.ndarray  # tangent of half the angle, clockwise

    def frame(self) -> Frame:
        cos, sin = direction(self.turn)
        a, b = cos / self.radius, sin / self.radius
        return Frame(a, b, -(a * self.x + b * self.y), -b, a, b * self.x - a * self.y)

    def place(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points (u, v) of each object [...,K,2] -> x, y [...,K]; fields are [...]."""
        x, y, radius, turn = (field[..., None] for field in self)
        cos, sin = direction(turn)
        u, v = points[..., 0], points[..., 1]
        return x + radius * (cos * u - sin * v), y + radius * (sin * u + cos * v)


def direction(tangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of the angle whose half has this tangent, by arithmetic alone.

    A small tangent is half the angle in radians; 1 is a right angle.
    """
    square = tangent * tangent
    return (1 - square) / (1 + square), 2 * tangent / (1 + square)


def column(values: np.ndarray) -> np.ndarray:
    """[n] -> [n,1,1], one value for all pixels of a window."""
    return values[:, None, None]


def centres(first: np.ndarray, count: int, size: int) -> np.ndarray:
    """Where pixels `first` [n] to `first + count` have their centres: [n,count]."""
    pixel = first[:, None] + np.arange(count)
    return (2 * pixel + 1 - size).astype(np.float32) / np.float32(size)


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x [1,1,W] and y [1,H,1] of all pixels of a picture, float32."""
    axis = centres(np.zeros(1, np.int64), size, size)
    return axis[:, None, :], axis[:, :, None]


def coverage(distance: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """How much of each pixel lies inside an outline: int32 [n,h,w] in [0, ONE].

    distance [n,h,w] is negative inside; `pixels` [n] are one unit of it.
    """
    share = distance * column(-ONE * pixels)
    share += ONE // 2
    return np.clip(share, 0, ONE, out=share).astype(np.int32)


def outline(distance: np.ndarray, pixels: np.ndarray, size: int) -> np.ndarray:
    """A line along distance 0, as edges: float32 [n,h,w] in [0, 1].

    It is 1/64 of the picture wide, or one pixel where that is more.
    """
    line = np.abs(distance) * column(-pixels)
    line += np.float32((max(1.0, size / 64) + 1) / 2)
    return np.clip(line, 0, 1, out=line)


def extents(mask: np.ndarray) -> np.ndarray:
    """The box around what is true: bool [n,H,W] -> float32 [n,4], zeros if nothing."""
    size = mask.shape[-1]
    sides = mask.any(axis=1), mask.any(axis=2)  # across, down
    first = [side.argmax(axis=1) for side in sides]
    last = [size - side[:, ::-1].argmax(axis=1) for side in sides]
    boxes = np.stack(first + last, axis=1).astype(np.float32) / np.float32(size)
    return boxes * sides[0].any(axis=1)[:, None]


def keypoints(x: np.ndarray, y: np.ndarray, in_sight: np.ndarray) -> np.ndarray:
    """Points in half-widths, [...] each -> float32 [...,3]: x, y in [0, 1], 0 or 1."""
    half = np.float32(0.5)
    return np.stack([x * half + half, y * half + half, in_sight], -1, dtype=np.float32)
