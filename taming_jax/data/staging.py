"""What stands where in `scenes`: settings, and objects in perspective.

    (seed, index) --plan--> Plan [B] --far_to_near--> Objects [n], to be drawn in turn

Nearness is 1 at the lower edge of the picture and 0 infinitely far away; on the ground
it grows evenly down the picture, as in any photograph. Where an object's foot is and
how large it looks follow from its nearness.

Legend: B pictures, N = 6 places for objects, n objects that are drawn together.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from taming_jax.data import kinds
from taming_jax.data.draws import Draws
from taming_jax.data.painting import HUES
from taming_jax.data.rendering import Pose, pieces
from taming_jax.data.textures import TEXTURES
from taming_jax.data.windows import Window, window

OBJECTS = 6
FEWEST = 3
SETTINGS = np.array(  # int32 [6, 2, RGB]: what is behind, and the ground
    [
        [(150, 196, 232), (136, 172, 104)],  # meadow
        [(240, 178, 150), (150, 108, 104)],  # dusk
        [(48, 54, 96), (66, 78, 104)],  # night
        [(196, 186, 200), (172, 128, 94)],  # room with a wooden floor
        [(132, 158, 158), (196, 188, 172)],  # room with a stone floor
        [(110, 96, 124), (92, 90, 104)],  # room with a carpet
    ],
    np.int32,
)
_FIRST_ROOM = 3


class Objects(NamedTuple):
    """Objects: [B,N] from near to far, or [n] of those that are drawn together."""

    picture: np.ndarray
    place: np.ndarray  # 0 nearest
    kind: np.ndarray
    nearness: np.ndarray
    x: np.ndarray
    y: np.ndarray
    foot: np.ndarray  # y of the ground where it stands
    radius: np.ndarray
    turn: np.ndarray  # tangent of half the angle
    hue: np.ndarray
    texture: np.ndarray

    def take(self, rows) -> "Objects":
        """Some of them, by any index."""
        return Objects(*(field[rows] for field in self))

    @property
    def pose(self) -> Pose:
        return Pose(self.x, self.y, self.radius, self.turn)

    def window(self, size: int) -> Window:
        """What holds each of n objects."""
        reach = kinds.REACH * self.radius
        x, y = (self.x - reach, self.x + reach), (self.y - reach, self.y + reach)
        return window(self.picture, x, y, size)

    def layers(self) -> Iterator[np.ndarray]:
        """Rows of n objects, far to near, no two of one picture together."""
        for place in np.unique(self.place)[::-1]:
            yield np.flatnonzero(self.place == place)


class Plan(NamedTuple):
    """What B pictures show: [B] each, and the objects [B,N]."""

    setting: np.ndarray
    horizon: np.ndarray  # y where nearness is 0
    wall: np.ndarray  # its nearness, or 0 where the ground runs to the horizon
    sun: np.ndarray  # tangent of half the angle between the light and upright
    count: np.ndarray  # of objects
    objects: Objects

    @property
    def skyline(self) -> np.ndarray:
        """y where the ground ends."""
        return self.horizon + self.wall * (1 - self.horizon)

    @property
    def present(self) -> np.ndarray:
        """Which places have an object: bool [B,N]."""
        return self.objects.place < self.count[:, None]

    def far_to_near(self, size: int) -> Iterator[Objects]:
        """All objects; those drawn together are alike in size and sorted by kind."""
        objects = self.objects.take(self.present)
        objects = objects.take(np.argsort(objects.nearness, kind="stable"))
        h, w = objects.window(size).shape
        for piece in pieces(len(objects.kind), h * w):
            part = objects.take(piece)
            yield part.take(np.argsort(part.kind, kind="stable"))


def plan(seed: int, indices: np.ndarray) -> Plan:
    """The plan of pictures `indices` [B] of stream `seed`."""
    draws = Draws(seed, indices)
    setting = draws.choice("setting", len(SETTINGS))
    horizon = draws.uniform("horizon", -0.6, -0.4)
    count = FEWEST + draws.choice("count", OBJECTS - FEWEST + 1)
    return Plan(
        setting=setting,
        horizon=horizon,
        wall=draws.uniform("wall", 0.12, 0.2) * (setting >= _FIRST_ROOM),
        sun=draws.uniform("sun", -0.6, 0.6),  # 62 degrees to either side
        count=count,
        objects=_objects(draws, indices, horizon[:, None], count[:, None]),
    )


def _objects(draws: Draws, indices, horizon, count) -> Objects:
    """Objects spread from near to far and, in another order, from left to right."""
    own = draws.lanes(OBJECTS)
    picture, place = np.indices((len(indices), OBJECTS))
    kind = own.choice("kind", len(kinds.KINDS))
    kind[:, 0] = indices % len(kinds.KINDS)
    nearness = 0.96 - 0.58 * (place + own.uniform("nearness", 0, 0.6)) / count
    nearness = nearness.astype(np.float32)
    radius = nearness * own.uniform("radius", 0.5, 0.6)
    slot = np.where(place < count, draws.order("slot", OBJECTS), OBJECTS)
    slot = slot.argsort(axis=1, kind="stable").argsort(axis=1)  # present ones first
    x = (2 * (slot + own.uniform("x", 0.2, 0.8)) / count - 1).astype(np.float32)
    x = x * (1 - kinds.REACH * radius)
    foot = horizon + nearness * (1 - horizon)
    turn = own.uniform("turn", -0.05, 0.05) * kinds.TURNS[kind]  # 0.1 radians
    _, below = Pose(x, np.zeros_like(x), radius, turn).place(kinds.POINTS[kind])
    return Objects(
        picture=picture,
        place=place,
        kind=kind,
        nearness=nearness,
        x=x,
        y=foot - below.max(axis=-1),
        foot=foot,
        radius=radius,
        turn=turn,
        hue=draws.order("hue", len(HUES))[:, :OBJECTS],
        texture=own.choice("texture", len(TEXTURES)),
    )
