"""Maps that a prior is told without a tokenizer of them: a few values at a few places.

    class maps int32 [B,S,S]                  --the middle pixel's class--+
    depth, edges float32 [B,S,S,1] in [-1,1]  --rounded means-------------+-> [B, s * s]

They keep to what `kinds` says of a kind. Nothing has to be trained first, and a token
has one meaning wherever it stands, so that small priors soon know it; codes of a
tokenizer say more of what lies within a place.

Legend: B pictures, S and s pixels along a side.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp

from taming_jax.conditions import windows
from taming_jax.conditions.coordinates import quantize
from taming_jax.conditions.kinds import AnyMap, Coded, Data, check_entry
from taming_jax.conditions.windows import Sides
from taming_jax.maps import Input
from taming_jax.units import Tokens

_NAME = "direct_"


@dataclasses.dataclass(frozen=True)
class DirectMap(AnyMap):
    """A map, small: what `CodedMap` takes, reduced here.

    input: kind and stretch, as `maps.Input` has them.
    image_size: S.
    side: s, of what is told.
    levels: how many values a token has: the classes of a class map, or the steps of
      depth and edges.
    """

    input: Sequence
    image_size: int
    side: int
    levels: int

    options: ClassVar = ("side", "levels")
    kept: ClassVar = "tokens"

    @classmethod
    def of(cls, data: Data, kind: str, levels=None, side=None) -> "DirectMap":
        """Raises ValueError for data without such maps, sides or levels that cannot be.

        side: None: as many as codes.
        """
        entry = kind.removeprefix(_NAME)
        check_entry(kind, entry, data)
        side = side or data.image_size // data.stride
        if side < 1 or data.image_size % side:
            raise ValueError(
                f"maps of {data.image_size} pixels do not divide into side={side} "
                "parts: choose a side that divides it"
            )
        if levels is None or levels < 2:
            raise ValueError(
                f"prior.condition={kind!r} has levels={levels}: say how many values "
                "there are, of class maps how many classes: "
                f"dict(name={kind!r}, levels=...)"
            )
        return cls((entry, False), data.image_size, side, levels)

    @property
    def grid(self) -> Sides:
        return (self.side, self.side)

    @property
    def size(self) -> int:
        return self.levels

    @property
    def channels(self) -> int:
        """As of a `CodedMap`: classes, or the one value of a pixel."""
        return self.levels if self.input[0] == "segmentation" else 1

    def of_batch(self, batch: Mapping) -> Any:
        tokens = f"{_NAME}{self.input[0]}_tokens"
        if tokens in batch:
            return Coded(batch[tokens])
        return Input(*self.input).read(batch[self.input[0]])

    def tokens(self, asked: Any, variables: Any = None, key=None) -> Tokens:
        del variables, key
        if isinstance(asked, Coded):
            return asked.codes
        return self._grid(asked).reshape(len(asked), -1)

    def over(self, given: Any, shape: Sides, window: Sides) -> windows.Part:
        """What windows are told of maps of pictures of `shape` codes."""
        windows.larger(self.side, shape, window)  # refuses fractions of a token
        sides = windows.larger(self.image_size, shape, window)
        maps = self.checked(given, sides)
        return windows.cut_from(maps, self._grid, shape, window, self.grid)

    def _grid(self, asked) -> Tokens:
        """A token for each part of the map: int32 [B,h,w]."""
        part = self.image_size // self.side
        if self.input[0] == "segmentation":
            middle = slice(part // 2, None, part)
            return jnp.asarray(asked, jnp.int32)[:, middle, middle]
        return quantize((asked[..., 0] + 1) / 2, part, self.levels - 1)
