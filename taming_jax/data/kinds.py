"""The ten kinds of object: their outlines, and five named points on each.

An outline is a function of u, v float32 [n,h,w] in the object's own frame (upright,
radius about 1, v towards its feet): the distance to it, float32 [n,h,w], negative
inside. It is 0 exactly on the outline, and elsewhere near enough to the distance for
light and soft shadows.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

REACH = 1.05  # nothing of any kind is farther from its origin


class Kind(NamedTuple):
    """What sets one kind apart from the others."""

    outline: Callable[[np.ndarray, np.ndarray], np.ndarray]
    points: dict[str, tuple[float, float]]  # name -> (u, v)
    turns: bool = True  # what looks the same when turned is never turned


def distance(kind: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Distance to the outlines of n objects, negative inside: float32 [n,h,w].

    kind: int [n]; each run of equal ones costs one call.
    """
    starts = np.flatnonzero(np.diff(kind, prepend=-1))
    result = np.empty_like(u)
    for first, end in itertools.pairwise([*starts, len(kind)]):
        result[first:end] = _OUTLINES[kind[first]](u[first:end], v[first:end])
    return result


def _disc(u, v):
    return _length(u, v) - 0.9


def _square(u, v):
    return np.maximum(np.abs(u), np.abs(v)) - 0.74


def _triangle(u, v):
    """Equilateral; the circle through its corners keeps distances beyond them true."""
    sides = np.maximum(0.866025 * np.abs(u) - 0.5 * v, v) - 0.525
    return np.maximum(sides, _length(u, v) - 1.05)


def _star(u, v):
    """Five points are folded onto the one that looks up; there one side is left."""
    x, y = _fold(np.abs(u), -v, 0.809017, -0.587785)
    x, y = _fold(x, y, -0.809017, -0.587785)
    side = 0.918454 * np.abs(x) + 0.395527 * (y - 1.05)
    return np.maximum(side, _length(u, v) - 1.05)


def _cross(u, v):
    u, v = np.abs(u), np.abs(v)
    return np.maximum(np.maximum(u, v) - 0.92, np.minimum(u, v) - 0.33)


def _ring(u, v):
    return np.abs(_length(u, v) - 0.64) - 0.26


def _moon(u, v):
    """A disc less another one; nothing is left of it to the right of its horns."""
    crescent = np.maximum(_length(u - 0.1, v) - 0.9, 0.68 - _length(u - 0.5, v))
    return np.maximum(crescent, u - 0.7345)


def _heart(u, v):
    """A square that stands on its corner, and a disc on each of its upper sides."""
    u, v = np.abs(u), v - 0.081
    lobe = _length(u - 0.39, v + 0.39) - 0.551543
    return np.minimum(lobe, 0.707107 * (u + np.abs(v) - 0.78))


def _pill(u, v):
    return _length(np.maximum(np.abs(u) - 0.52, 0), v) - 0.42


def _arrow(u, v):
    """The shaft ends deep inside the head, or a seam would show at the neck."""
    v = np.abs(v)
    head = np.maximum(0.1 - u, 0.672673 * (u - 0.98) + 0.739940 * v)
    head = np.maximum(head, _length(u - 0.176364, v) - 0.803636)
    shaft = np.maximum(np.abs(u + 0.225) - 0.725, v - 0.26)
    return np.minimum(head, shaft)


def _length(x, y):
    return np.sqrt(x * x + y * y)


def _fold(x, y, a, b):
    """Mirrors what lies on the side that the unit vector (a, b) points to."""
    excess = 2 * np.maximum(a * x + b * y, 0)
    return x - a * excess, y - b * excess


def _compass(reach: float) -> dict[str, tuple[float, float]]:
    return {
        "top": (0, -reach),
        "right": (reach, 0),
        "bottom": (0, reach),
        "left": (-reach, 0),
        "centre": (0, 0),  # of a ring: in its hole
    }


_SQUARE = {
    "top left": (-0.74, -0.74),
    "top right": (0.74, -0.74),
    "bottom right": (0.74, 0.74),
    "bottom left": (-0.74, 0.74),
    "centre": (0, 0),
}
_TRIANGLE = {
    "tip": (0, -1.05),
    "right foot": (0.909327, 0.525),
    "base": (0, 0.525),
    "left foot": (-0.909327, 0.525),
    "centre": (0, 0),
}
_STAR = {
    "head": (0, -1.05),
    "right hand": (0.998609, -0.324468),
    "right foot": (0.617174, 0.849468),
    "left foot": (-0.617174, 0.849468),
    "left hand": (-0.998609, -0.324468),
}
_MOON = {
    "top": (0.1, -0.9),
    "upper horn": (0.7345, -0.638287),
    "lower horn": (0.7345, 0.638287),
    "bottom": (0.1, 0.9),
    "back": (-0.8, 0),
}
_HEART = {
    "notch": (0, -0.699),
    "right lobe": (0.78, -0.699),
    "tip": (0, 0.861),
    "left lobe": (-0.78, -0.699),
    "centre": (0, 0),
}
_PILL = {
    "top": (0, -0.42),
    "right end": (0.94, 0),
    "bottom": (0, 0.42),
    "left end": (-0.94, 0),
    "centre": (0, 0),
}
_ARROW = {
    "tip": (0.98, 0),
    "lower barb": (0.1, 0.8),
    "tail": (-0.95, 0),
    "upper barb": (0.1, -0.8),
    "neck": (0.1, 0),
}
KINDS = {
    "disc": Kind(_disc, _compass(0.9), turns=False),
    "square": Kind(_square, _SQUARE),
    "triangle": Kind(_triangle, _TRIANGLE),
    "star": Kind(_star, _STAR),
    "cross": Kind(_cross, _compass(0.92)),
    "ring": Kind(_ring, _compass(0.9), turns=False),
    "moon": Kind(_moon, _MOON),
    "heart": Kind(_heart, _HEART),
    "pill": Kind(_pill, _PILL),
    "arrow": Kind(_arrow, _ARROW),
}
POINTS = np.array([list(kind.points.values()) for kind in KINDS.values()], np.float32)
TURNS = np.array([kind.turns for kind in KINDS.values()])  # bool [10]
_OUTLINES = [kind.outline for kind in KINDS.values()]
