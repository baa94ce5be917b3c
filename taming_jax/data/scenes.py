"""`scenes`: three to six objects that hide one another, with exact truth.

    (seed, index) --staging.plan--> a setting [B] and objects from near to far [B,N]
        --far to near, in windows--> distance [n,h,w] --> canvases [B,H,W] --> truth

The objects stand upright on ground that runs to the horizon or to a wall. Depth is
1 - nearness: 0 at the lower edge of the picture, 1 infinitely far away. The label is
the class of the nearest object, which nothing hides. Ten indices in a row, from a
multiple of ten on, have the ten classes.

Legend: B pictures, N = 6 places for objects, n objects that are drawn together.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from taming_jax.data import kinds, painting, rendering
from taming_jax.data.painting import HUES
from taming_jax.data.rendering import ONE, column
from taming_jax.data.staging import OBJECTS, SETTINGS, Objects, Plan, plan
from taming_jax.data.textures import textures
from taming_jax.data.windows import window

CLASSES = tuple(kinds.KINDS)
EXAMPLE = rendering.example(OBJECTS)

_TILES = 8  # of a texture along each side
_CHUNK = 1 << 18  # pixels of the pictures that are drawn together
_STEP = np.float32(0.2)  # towards the light, in radii, to see how a surface faces it
_RISE = 2.6  # objects are so much higher than their shadows look long
_LEAN = np.float32(1.6)  # of a shadow, for each unit that the light is aslant


def render(
    seed: int, indices: np.ndarray, size: int, keep: Sequence[str]
) -> dict[str, np.ndarray]:
    """Draws pictures and their truth: keys of `EXAMPLE` -> arrays [B, ...].

    Arguments and errors are those of `shapes.render`.
    """
    batch = rendering.blank(EXAMPLE, keep, len(indices), size)
    step = max(1, _CHUNK // (size * size))
    for first in range(0, len(indices), step):
        part = slice(first, first + step)
        for key, values in _draw(plan(seed, np.asarray(indices)[part]), size, keep):
            batch[key][part] = values
    return batch


def _draw(
    scene: Plan, size: int, keep: Sequence[str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (key, values [B, ...]) for what is kept."""
    if "image" in keep:
        yield "image", _picture(scene, size)
    if "label" in keep:
        yield "label", scene.objects.kind[:, 0]
    if "edges" in keep:
        yield "edges", _edges(scene, size)
    if "keypoints" in keep:
        yield "keypoints", _keypoints(scene)
    if {"segmentation", "depth", "boxes", "box_classes"} & set(keep):
        yield from _ownership(scene, _owners(scene, size), keep)


def _picture(scene: Plan, size: int) -> np.ndarray:
    """Everything over the ground: uint8 [B,H,W,3]."""
    up, right = rendering.direction(scene.sun)
    canvas = _backdrop(scene, right, _shadows(scene, right, size), size)
    for objects in scene.far_to_near(size):
        where, frame = objects.window(size), objects.pose.frame()
        u, v = frame(*where.grid(size))
        step = objects.radius * _STEP
        du, dv = frame.along(right[objects.picture] * step, -up[objects.picture] * step)
        distance = kinds.distance(objects.kind, u, v)
        toward = kinds.distance(objects.kind, u + du, v + dv)
        light, gleam = painting.lit(distance, toward, _STEP)
        cover = rendering.coverage(distance, objects.radius * np.float32(size / 2))
        pattern = where.cut(textures(size, _TILES), objects.texture)
        paint = painting.paint(pattern, light, gleam, cover)
        tones = _tones(scene, objects)
        above = np.stack([paint.colour(tones[..., c]) for c in range(3)], axis=1)
        where.lay(canvas, objects.layers(), painting.over, above, cover[:, None])
    return np.ascontiguousarray(np.moveaxis(canvas, 1, -1))


def _backdrop(
    scene: Plan, right: np.ndarray, shadows: np.ndarray, size: int
) -> np.ndarray:
    """The setting with shadows on it, but no objects yet: uint8 [B,3,H,W]."""
    x, y = rendering.grid(size)
    below = y - column(scene.skyline)  # [B,H,1]
    ground = np.clip(below * (size / 2) + 0.5, 0, 1)
    far, near = (1 - ground) * (1.06 + 0.22 * below), ground * (0.86 + 0.16 * below)
    glow = (ONE * (1 + 0.1 * column(right) * x - 0.06 * x * x)).astype(np.int32)
    light = glow * (ONE - shadows.astype(np.int32)) >> 4  # [B,H,W], 12 bits
    canvas = np.empty((len(light), 3, size, size), np.uint8)
    for channel in range(3):
        colours = SETTINGS[scene.setting, :, channel].astype(np.float32)
        rows = column(colours[:, 0]) * far + column(colours[:, 1]) * near  # [B,H,1]
        rows = (ONE * np.minimum(rows, 230)).astype(np.int32)  # 230: room for glow
        canvas[:, channel] = rows * light >> 20
    return canvas


def _shadows(scene: Plan, right: np.ndarray, size: int) -> np.ndarray:
    """The light that objects take from the ground: uint8 [B,H,W] in [0, ONE / 2]."""
    canvas = np.zeros((len(right), size, size), np.uint8)
    for objects in scene.far_to_near(size):
        lean = right[objects.picture] * _LEAN
        foot, soft = objects.foot, np.float32(0.15) * objects.radius
        reach = kinds.REACH * objects.radius + soft
        length = (reach + foot - objects.y) / _RISE
        x0 = objects.x - reach - np.maximum(lean, 0) * length
        x1 = objects.x + reach - np.minimum(lean, 0) * length
        where = window(objects.picture, (x0, x1), (foot - length, foot + soft), size)
        frame = objects.pose.frame().cast(foot, lean, _RISE)
        distance = kinds.distance(objects.kind, *frame(*where.grid(size)))
        where.lay(canvas, objects.layers(), np.maximum, painting.shadow(distance))
    return canvas


def _tones(scene: Plan, objects: Objects) -> np.ndarray:
    """Two tones of each object, hazier the farther it is: int32 [n,2,3]."""
    tones = HUES[objects.hue]
    air = SETTINGS[scene.setting[objects.picture], 0][:, None]
    haze = (ONE * 0.45 * (1 - objects.nearness)).astype(np.int32)
    return tones + ((air - tones) * column(haze) >> 8)


def _edges(scene: Plan, size: int) -> np.ndarray:
    """The skyline and outlines, where nothing hides them: float32 [B,H,W] in [0, 1]."""
    below = rendering.grid(size)[1] - column(scene.skyline)
    canvas = np.empty((len(below), size, size), np.float32)
    canvas[:] = rendering.outline(below, np.float32([size / 2]), size)
    for objects in scene.far_to_near(size):
        where, pixels = objects.window(size), objects.radius * np.float32(size / 2)
        u, v = objects.pose.frame()(*where.grid(size))
        distance = kinds.distance(objects.kind, u, v)
        clear = (ONE - rendering.coverage(distance, pixels)) / np.float32(ONE)
        line = rendering.outline(distance, pixels, size)
        where.lay(canvas, objects.layers(), _drawn_over, clear, line)
    return canvas


def _drawn_over(edges, clear, line):
    return np.maximum(edges * clear, line)


def _owners(scene: Plan, size: int) -> np.ndarray:
    """Whose each pixel's centre is: uint8 [B,H,W], 0 background, else 1 + place."""
    canvas = np.zeros((len(scene.count), size, size), np.uint8)
    for objects in scene.far_to_near(size):
        where = objects.window(size)
        u, v = objects.pose.frame()(*where.grid(size))
        inside = kinds.distance(objects.kind, u, v) < 0
        where.lay(canvas, objects.layers(), _taken, inside, column(objects.place + 1))
    return canvas


def _taken(owners, inside, owner):
    return np.where(inside, owner, owners)


def _ownership(
    scene: Plan, owners: np.ndarray, keep: Sequence[str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (key, values) of what is kept and follows from whose the pixels are."""
    if "segmentation" in keep:
        yield "segmentation", _of_owners(scene.objects.kind + 1, owners)
    if "depth" in keep:
        y = rendering.grid(owners.shape[-1])[1]
        horizon, wall = column(scene.horizon), column(scene.wall)
        setting = np.maximum((y - horizon) / (1 - horizon), wall)  # [B,H,1]
        objects = _of_owners(scene.objects.nearness, owners)
        yield "depth", 1 - np.where(owners > 0, objects, setting)
    places = range(1, 1 + OBJECTS)
    if "boxes" in keep:
        boxes = [rendering.extents(owners == place) for place in places]
        yield "boxes", np.stack(boxes, axis=1)
    if "box_classes" in keep:
        in_sight = [(owners == place).any(axis=(1, 2)) for place in places]
        in_sight = np.stack(in_sight, axis=1)  # [B,N]
        yield "box_classes", np.where(in_sight, scene.objects.kind, -1)


def _of_owners(values: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Values [B,N] of the pixels' owners, 0 for the background: [B,H,W]."""
    table = np.pad(values, ((0, 0), (1, 0)))
    return table[np.arange(len(owners))[:, None, None], owners]


def _keypoints(scene: Plan) -> np.ndarray:
    """The named points of all objects: float32 [B,N,K,3]."""
    objects = scene.objects
    x, y = objects.pose.place(kinds.POINTS[objects.kind])  # [B,N,K]
    in_sight = np.ones(x.shape, bool)
    for place in range(OBJECTS - 1):
        rows = np.flatnonzero(scene.count > place)
        rows = rows[np.argsort(objects.kind[rows, place], kind="stable")]
        nearer, farther = objects.take((rows, place)), slice(place + 1, None)
        u, v = nearer.pose.frame()(x[rows, farther], y[rows, farther])
        in_sight[rows, farther] &= kinds.distance(nearer.kind, u, v) >= 0
    return rendering.keypoints(x, y, in_sight) * scene.present[..., None, None]
