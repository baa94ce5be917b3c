"""`shapes`: one object of ten kinds in front of a lit wall, with exact truth.

    (seed, index) --_plan--> where, what, which colours [B]
        --distances--> signed distance [n,H,W] --> picture and truth

The object hovers before the wall: the higher, the nearer (its depth) and the farther
its shadow falls. Ten indices in a row, from a multiple of ten on, show the ten classes.
Legend: B pictures, n of them that are drawn together.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from taming_jax.data import kinds, painting, rendering
from taming_jax.data.draws import Draws
from taming_jax.data.painting import HUES
from taming_jax.data.rendering import ONE, Pose, column
from taming_jax.data.textures import TEXTURES, textures

CLASSES = tuple(kinds.KINDS)
EXAMPLE = rendering.example(objects=1)

BACKDROPS = np.array(  # int32 [5, RGB]
    [
        (185, 178, 168),  # sand
        (165, 174, 185),  # mist
        (110, 118, 131),  # slate
        (86, 88, 104),  # night
        (130, 117, 125),  # mauve
    ],
    np.int32,
)
_TILES = 4  # of a texture along each side


def render(
    seed: int, indices: np.ndarray, size: int, keep: Sequence[str]
) -> dict[str, np.ndarray]:
    """Draws pictures and their truth: keys of `EXAMPLE` -> arrays [B, ...].

    Args:
      seed: names a stream; two streams have no picture in common.
      indices: int64 [B], positions in the stream, >= 0.
      size: H = W in pixels; the same picture at every size.
      keep: what is wanted; nothing else is drawn.

    Raises:
      ValueError: for a key that `EXAMPLE` has not, or a size below 8.
    """
    batch = rendering.blank(EXAMPLE, keep, len(indices), size)
    plan = _plan(seed, np.asarray(indices))
    order = np.argsort(plan.kind, kind="stable")
    for piece in rendering.pieces(len(order), size * size):
        rows = order[piece]
        for key, values in _draw(plan.take(rows), size, keep):
            batch[key][rows] = values
    return batch


class _Plan(NamedTuple):
    """What the pictures show, one number per picture: float32 or int32 [B]."""

    kind: np.ndarray
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    turn: np.ndarray  # tangent of half the angle
    height: np.ndarray  # above the wall, in half-widths
    sun: np.ndarray  # tangent of half the angle between the light and upright
    hue: np.ndarray
    texture: np.ndarray
    backdrop: np.ndarray

    def take(self, rows: np.ndarray) -> "_Plan":
        return _Plan(*(field[rows] for field in self))

    @property
    def pose(self) -> Pose:
        return Pose(self.x, self.y, self.radius, self.turn)


def _plan(seed: int, indices: np.ndarray) -> _Plan:
    draws = Draws(seed, indices)
    kind = (indices % len(CLASSES)).astype(np.int32)
    return _Plan(
        kind=kind,
        x=draws.uniform("x", -0.15, 0.15),
        y=draws.uniform("y", -0.15, 0.15),
        radius=draws.uniform("radius", 0.6, 0.8),
        turn=draws.uniform("turn", -0.11, 0.11) * kinds.TURNS[kind],  # 0.22 radians
        height=draws.uniform("height", 0.08, 0.2),
        sun=draws.uniform("sun", -0.6, 0.6),  # 62 degrees to either side
        hue=draws.choice("hue", len(HUES)),
        texture=draws.choice("texture", len(TEXTURES)),
        backdrop=draws.choice("backdrop", len(BACKDROPS)),
    )


def _draw(
    plan: _Plan, size: int, keep: Sequence[str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (key, values [n, ...]) for what is kept."""
    frame = plan.pose.frame()
    u, v = frame(*rendering.grid(size))
    pixels = plan.radius * np.float32(size / 2)
    distance = kinds.distance(plan.kind, u, v)
    inside = distance < 0
    if "image" in keep:
        cover = rendering.coverage(distance, pixels)
        yield "image", _picture(plan, u, v, distance, cover)
    if "label" in keep:
        yield "label", plan.kind
    if "segmentation" in keep:
        yield "segmentation", inside * column(plan.kind + 1)
    if "depth" in keep:
        yield "depth", 1 - inside * column(plan.height) * (5 - painting.rim(distance))
    if "edges" in keep:
        yield "edges", rendering.outline(distance, pixels, size)
    if "boxes" in keep:
        yield "boxes", rendering.extents(inside)[:, None]
    if "box_classes" in keep:
        yield "box_classes", plan.kind[:, None]
    if "keypoints" in keep:
        x, y = plan.pose.place(kinds.POINTS[plan.kind])
        yield "keypoints", rendering.keypoints(x, y, np.ones_like(x))[:, None]


def _picture(plan: _Plan, u, v, distance, cover) -> np.ndarray:
    """The object over the wall, from what is [n,H,W]: uint8 [n,H,W,3]."""
    size = distance.shape[-1]
    up, right = rendering.direction(plan.sun)
    du, dv = plan.pose.frame().along(right * plan.height, -up * plan.height)
    toward = kinds.distance(plan.kind, u + du, v + dv)
    light, gleam = painting.lit(distance, toward, column(plan.height / plan.radius))
    pattern = textures(size, _TILES)[plan.texture]
    paint = painting.paint(pattern, light, gleam, cover)
    wall = _wall(right, up, size) * (ONE - painting.shadow(toward)) >> 8
    picture = np.empty((*distance.shape, 3), np.uint8)
    for channel in range(3):
        below = wall * column(BACKDROPS[plan.backdrop, channel]) >> 8
        above = paint.colour(HUES[plan.hue, :, channel])
        picture[..., channel] = painting.over(below, above, cover)
    return picture


def _wall(right: np.ndarray, up: np.ndarray, size: int) -> np.ndarray:
    """A pool of light that lies towards the lamp: int32 [n,H,W], about ONE."""
    x, y = rendering.grid(size)
    across = ONE * (1.02 + 0.16 * column(right) * x - 0.12 * x * x)
    down = ONE * (-0.16 * column(up) * y - 0.12 * y * y)
    return down.astype(np.int32) + across.astype(np.int32)
