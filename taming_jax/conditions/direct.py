"""What a prior can be told without a tokenizer: pictures whose values are rounded.

    low resolution   a few pixels, each a colour of L x L x L
    coordinates      where in a larger picture each place is

They keep to what `kinds` says of a kind.

Legend: B pictures, S and s pixels along a side, C channels.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax import units
from taming_jax.conditions import windows
from taming_jax.conditions.checks import as_array, ends
from taming_jax.conditions.coordinates import coordinates, quantize
from taming_jax.conditions.kinds import Coded, Data, check_entry
from taming_jax.conditions.windows import Sides
from taming_jax.units import Tokens

_NOISE = 0.2  # the most that a degraded picture has, of [-1, 1]


@dataclasses.dataclass(frozen=True)
class LowResolution:
    """The same picture, small: images float32 [B,S,S,C] in [-1,1], reduced here.

    side: s, of what is told; each pixel is the mean of its part of the picture.
    levels: L, of each channel.
    channels: C.
    degraded: whether training makes them worse at random: pixels that are picked
      instead of averaged, and noise.
    """

    side: int = 8
    levels: int = 6
    channels: int = 3
    degraded: bool = False

    options: ClassVar = ("side", "levels", "degraded")
    entries: ClassVar = ("image",)

    @property
    def kept(self) -> str | None:
        return None if self.degraded else "tokens"

    def __post_init__(self):
        if self.side < 1 or self.levels < 2:
            raise ValueError(
                f"low resolution with side={self.side} and levels={self.levels}: at "
                "least 1 pixel and 2 levels"
            )

    @classmethod
    def of(cls, data: Data, kind: str, **options) -> "LowResolution":
        """Raises ValueError for pictures that do not divide into so many pixels."""
        check_entry(kind, "image", data)
        made = cls(channels=data.shapes["image"][-1], **options)
        if data.image_size % made.side:
            raise ValueError(
                f"pictures of {data.image_size} pixels do not divide into "
                f"side={made.side} parts: choose a side that divides it"
            )
        return made

    @property
    def grid(self) -> Sides:
        return (self.side, self.side)

    @property
    def length(self) -> int:
        return math.prod(self.grid)

    @property
    def size(self) -> int:
        return self.levels**self.channels

    def of_batch(self, batch: Mapping) -> Any:
        if "low_resolution_tokens" in batch:
            return Coded(batch["low_resolution_tokens"])
        return units.as_images(batch["image"])

    def checked(self, given: Any, sides: Sides | None = None) -> np.ndarray:
        """Images [B,S,S,C], S any multiple of the side.

        sides: in pixels that are told, where they are not as many down as across; the
          picture is as many times as high and as wide.
        """
        asked = as_array(given, "small pictures")
        rows, columns = sides or (self.side, self.side)
        shape = asked.shape[1:]
        right = asked.ndim == 4 and shape[2] == self.channels and asked.size
        right = right and np.issubdtype(asked.dtype, np.floating)
        right = right and shape[0] % rows == 0 and np.abs(asked).max() <= 1
        if not right or shape[0] // rows * columns != shape[1]:
            raise ValueError(
                f"this prior is told small pictures: images float32 [B, H, W, "
                f"{self.channels}] in [-1, 1], H and W the same multiple of {rows} and "
                f"{columns}; the condition is {asked.dtype} {asked.shape}{ends(asked)}"
            )
        return asked

    def tokens(self, asked: Any, variables: Any = None, key=None) -> Tokens:
        del variables
        if isinstance(asked, Coded):
            return asked.codes
        grid = self._grid(asked, [asked.shape[1] // self.side] * 2, key)
        return grid.reshape(len(asked), -1)

    def over(self, given: Any, shape: Sides, window: Sides) -> windows.Part:
        """What windows are told of small pictures of `shape` codes."""
        sides = windows.larger(self.side, shape, window)
        asked = self.checked(given, sides)
        for axis, codes in enumerate(shape, start=1):  # to whole pixels of each code
            pixels = asked.shape[axis]
            asked = asked.repeat(codes // math.gcd(codes, pixels), axis)
        parts = zip(asked.shape[1:3], sides, strict=True)
        grid = partial(self._grid, part=[pixels // side for pixels, side in parts])
        return windows.cut_from(asked, grid, shape, window, self.grid)

    def worsened(self, images: Any, numbers: np.ndarray) -> np.ndarray:
        """Images [B,S,S,C] as training with `degraded` tells them, float32 [B,S,S,C].

        numbers: int [B]; each says in which way, the same each time.
        """
        part = images.shape[1] // self.side
        keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(0)))(numbers)
        small = jax.vmap(lambda one, key: self._small(one[None], (part, part), key)[0])
        worse = np.asarray(small(jnp.asarray(images), keys))
        return worse.repeat(part, 1).repeat(part, 2)

    def _small(self, asked, part: Sequence[int], key=None) -> jax.Array:
        """A pixel for each so many pixels, down and across: [B,h,w,C]."""
        count, height, width, _ = asked.shape
        down, across = part
        parts = jnp.asarray(asked).reshape(
            count, height // down, down, width // across, across, self.channels
        )
        small = parts.mean((2, 4))
        if key is not None and self.degraded:
            small = _degraded(small, parts[:, :, down // 2, :, across // 2], key)
        return small

    def _grid(self, asked, part: Sequence[int], key=None) -> Tokens:
        """A token for each of these: int32 [B,h,w]."""
        small = self._small(asked, part, key)
        steps = jnp.round((small + 1) / 2 * (self.levels - 1)).astype(jnp.int32)
        scale = self.levels ** np.arange(self.channels)[::-1]
        return (steps * scale).sum(-1).astype(jnp.int32)

    def missing(self) -> str:
        """What to say where nothing was given."""
        return "this prior makes small pictures large and has none: give condition="

    def draw(self, asked: Any, size: int) -> np.ndarray:
        """Pictures of it for people, uint8 [B,S,S,3]; of larger ones, as much larger.

        size: S, of the pictures that the prior was trained on.
        """
        count, height, width, _ = np.shape(asked)
        part = min(size, height, width) // self.side
        parts = np.asarray(asked).reshape(
            count, height // part, part, width // part, part, self.channels
        )
        small = units.to_uint8(parts.mean((2, 4)))
        small = small.repeat(size // self.side, 1).repeat(size // self.side, 2)
        return small if self.channels == 3 else small[..., :1].repeat(3, -1)


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """Where each pixel is in the whole: maps float32 [B,S,S] in [0,1].

    image_size: S.
    stride: pixels to a token.
    steps: each is rounded to one of steps + 1 values.
    one: whether 1, which no place but the end of a picture has, is a value of its own;
      else steps values are all, as where the paper's vocabulary has no more.
    cut: whether examples say where in a larger picture they were cut; else each is a
      whole.
    """

    image_size: int
    stride: int
    steps: int = 256
    cut: bool = False
    one: bool = True

    options: ClassVar = ("steps", "one")
    kept: ClassVar = "tokens"

    @classmethod
    def of(cls, data: Data, kind: str, **options) -> "Coordinates":
        """Raises ValueError for data of crops that do not say where they were cut."""
        cut = "coordinates" in data.shapes
        if data.crops and not cut:
            raise ValueError(
                f"prior.condition={kind!r}, and training crops these pictures at "
                "random, from where nothing says: set data.crop='center'"
            )
        return cls(data.image_size, data.stride, cut=cut, **options)

    @property
    def entries(self) -> tuple[str, ...]:
        return ("coordinates",) if self.cut else ("image",)

    @property
    def grid(self) -> Sides:
        return (self.image_size // self.stride,) * 2

    @property
    def length(self) -> int:
        return math.prod(self.grid)

    @property
    def size(self) -> int:
        return self.steps + self.one

    def of_batch(self, batch: Mapping) -> Any:
        if "coordinates_tokens" in batch:
            return Coded(batch["coordinates_tokens"])
        if self.cut:
            return batch["coordinates"]
        images = batch["image"]
        side = self.image_size
        return jnp.broadcast_to(coordinates(side, side), (len(images), side, side))

    def checked(self, given: Any, sides: Sides | None = None) -> np.ndarray:
        """Maps [B,S,S] in [0,1].

        sides: in pixels, where they are not S and S.
        """
        asked = as_array(given, "coordinates")
        sides = sides or (self.image_size,) * 2
        right = np.issubdtype(asked.dtype, np.number) and asked.size
        right = right and asked.shape[1:] == sides
        if not right or not 0 <= asked.min() <= asked.max() <= 1:
            raise ValueError(
                f"this prior is told coordinates float32 [B, {sides[0]}, {sides[1]}] "
                f"in [0, 1]; the condition is {asked.dtype} {asked.shape}{ends(asked)}"
            )
        return asked.astype(np.float32)

    def tokens(self, asked: Any, variables: Any = None, key=None) -> Tokens:
        del variables, key
        if isinstance(asked, Coded):
            return asked.codes
        return self._grid(asked).reshape(len(asked), -1)

    def over(self, given: Any, shape: Sides, window: Sides) -> windows.Part:
        """What windows are told of the coordinates of pictures of `shape` codes."""
        sides = windows.larger(self.image_size, shape, window)
        maps = self.checked(given, sides)
        return windows.cut_from(maps, self._grid, shape, window, self.grid)

    def _grid(self, asked) -> Tokens:
        """A token for each part of the map: int32 [B,h,w]."""
        return jnp.minimum(quantize(asked, self.stride, self.steps), self.size - 1)

    def missing(self) -> str:
        """What to say where nothing was given."""
        return (
            "this prior is told coordinates, and was not: give condition=; those of a "
            "whole picture are conditions.coordinates.coordinates(S, S)[None]"
        )

    def draw(self, asked: Any, size: int) -> np.ndarray:
        """Pictures of it for people, uint8 [B,S,S,3]."""
        del size
        return (
            np.round(255 * np.asarray(asked)).astype(np.uint8)[..., None].repeat(3, -1)
        )


def _degraded(mean, picked, key) -> jax.Array:
    """Small pictures [B,s,s,C]: some picked, some averaged, all with some noise."""
    which, much, noise = jax.random.split(key, 3)
    rows = (len(mean), 1, 1, 1)
    small = jnp.where(jax.random.bernoulli(which, 0.5, rows), picked, mean)
    spread = jax.random.uniform(much, rows, maxval=_NOISE)
    return jnp.clip(small + spread * jax.random.normal(noise, mean.shape), -1, 1)
