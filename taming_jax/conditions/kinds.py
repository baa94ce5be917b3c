"""What a prior can be told: each kind turns what is asked for into tokens.

    an example's entries --of_batch--+
                                     +--> what is asked for --tokens--> int32 [B, n]
    what people give     --checked---+

A kind has `length` tokens for a picture, each below its `size`; which tokens of the
whole vocabulary these are is not its affair. Where they lie on the picture, `grid` says
in how many rows and columns; None: they do not. What is asked for has the form in which
people give it, said in each class; all but labels can `draw` it. Here are labels and
maps that a tokenizer of their own turns into codes; `direct`, `direct_maps` and
`objects` have those that need none, which say what of them is `kept` beside codes on
disk: "entries", "tokens", or None. Of pictures larger than a prior's grid `over` says
what each window is told, see `windows`.

Legend: B pictures, n tokens of each, S or s pixels along a side.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from taming_jax.conditions import windows
from taming_jax.conditions.checks import as_array, checked_map
from taming_jax.conditions.coordinates import resized
from taming_jax.conditions.windows import Sides
from taming_jax.maps import Input
from taming_jax.units import Codes, Tokens

_FEW = 12  # names in a message


class MapTokenizer(NamedTuple):
    """The tokenizer of a condition that is a map; `encode(variables, maps) -> codes`.

    classes: of class maps; None for images of `channels`.
    """

    input: Input
    stride: int
    codebook_size: int
    channels: int
    encode: Callable[[Any, Any], Codes]


class Data(NamedTuple):
    """What conditions are made for.

    Attributes:
      image_size: S of the pictures.
      stride: of their tokenizer.
      class_names: of the labels.
      object_names: of the classes of boxes; (): these are those of the labels.
      shapes: of the entries of an example, by name.
      crops: whether training crops at random.
      tokenizer: of the condition; None: there is none.
    """

    image_size: int = 0
    stride: int = 1
    class_names: Sequence[str] = ()
    object_names: Sequence[str] = ()
    shapes: Mapping[str, tuple[int, ...]] = {}
    crops: bool = False
    tokenizer: MapTokenizer | None = None


class Coded(NamedTuple):
    """What is codes already, int32 [B,h,w], or tokens [B,n], as `tokenize` has them."""

    codes: Codes


@dataclasses.dataclass(frozen=True)
class Label:
    """A class: int32 [B]; one token.

    names: of labels 0, 1, ...
    null: whether the number of classes is a label, too: of none of them (LlamaGen).
    """

    names: tuple[str, ...]
    null: bool = False

    options: ClassVar = ()
    entries: ClassVar = ("label",)
    grid: ClassVar = (1, 1)
    length: ClassVar = 1

    @classmethod
    def of(cls, data: Data, kind: str = "label") -> "Label":
        """Raises ValueError for data without classes."""
        if not data.class_names:
            raise ValueError(
                f"prior.condition={kind!r}, and these data have no classes: put the "
                "pictures into one folder per class, or set prior.condition='none' "
                "(and label_dropout=0, sampling.guidance=1)"
            )
        return cls(tuple(data.class_names))

    @property
    def size(self) -> int:
        return len(self.names)

    def of_batch(self, batch: Mapping) -> Any:
        return batch["label"]

    def checked(self, given: Any) -> np.ndarray:
        """Labels int32 [B]; ValueError for what is not [B] integers below the size."""
        asked = as_array(given, "labels")
        if asked.ndim != 1 or not np.issubdtype(asked.dtype, np.integer):
            raise ValueError(
                f"labels are {asked.dtype} of shape {asked.shape}: give int32 [B]"
            )
        if asked.size and not 0 <= asked.min() <= asked.max() < self.size + self.null:
            raise ValueError(
                f"labels reach from {asked.min()} to {asked.max()}; this prior has "
                f"classes 0 to {self.size - 1}: {some(self.names)}"
            )
        return asked.astype(np.int32)

    def tokens(self, asked: Any, variables: Any = None, key=None) -> Tokens:
        del variables, key
        return jnp.asarray(asked, jnp.int32)[:, None]

    def over(self, given: Any, shape: Sides, window: Sides) -> windows.Same:
        """What windows are told of pictures of `shape` codes: labels as ever."""
        del shape, window
        return windows.Same(self.tokens(self.checked(given)))

    def missing(self) -> str:
        """What to say where nothing was given."""
        return (
            f"this prior draws one of {self.size} classes and was not told which: give "
            f"labels int32 [B] from 0 to {self.size - 1}: {some(self.names)}"
        )


class AnyMap:
    """What kinds of maps have in common, whatever turns them into tokens.

    Each has `input`, kind and stretch, as `maps.Input` has them, S as its `image_size`,
    C or the number of classes as `channels`, and a `grid`.
    """

    @property
    def entries(self) -> tuple[str, ...]:
        return (self.input[0],)

    @property
    def length(self) -> int:
        return math.prod(self.grid)

    def checked(self, given: Any, sides: Sides | None = None) -> np.ndarray:
        """Class maps int32 [B,S,S], or images float32 [B,S,S,C] in [-1,1].

        sides: in pixels, where they are not S and S.
        """
        sides = sides or (self.image_size,) * 2
        return checked_map(given, self.input[0], sides, self.channels)

    def missing(self) -> str:
        """What to say where nothing was given."""
        return f"this prior is told {self.input[0]}, and was not: give condition="

    def draw(self, asked: Any, size: int) -> np.ndarray:
        """Pictures of it for people, uint8 [B,S,S,3]."""
        del size
        drawn = Input(*self.input).draw(asked)
        return np.broadcast_to(drawn, (*drawn.shape[:3], 3))


@dataclasses.dataclass(frozen=True)
class CodedMap(AnyMap):
    """A map through its own tokenizer: what that takes, [B,S,S] or [B,S,S,C].

    input: kind and stretch, as `maps.Input` has them.
    image_size: S.
    side: what it is reduced to before, to the nearest pixels; S: it is not.
    stride, size, channels: of its tokenizer.
    """

    input: Sequence
    image_size: int
    side: int
    stride: int
    size: int
    channels: int
    encode: Callable[[Any, Any], Codes] | None = dataclasses.field(
        default=None, compare=False, repr=False
    )

    options: ClassVar = ("side",)

    @classmethod
    def of(cls, data: Data, kind: str, side: int | None = None) -> "CodedMap":
        """Raises ValueError for data or a tokenizer that do not have this kind."""
        given, side = data.tokenizer, side or data.image_size
        if given is None:
            raise ValueError(
                f"prior.condition={kind!r} needs a tokenizer of {kind}: train it with "
                "train_vqgan.py --stage=condition_vqgan in the same --workdir, or say "
                "where one is by --config.prior.condition_tokenizer=DIR"
            )
        if given.input.kind != kind:
            raise ValueError(
                f"prior.condition={kind!r}, and the condition's tokenizer is for "
                f"{given.input.kind}: set prior.condition={given.input.kind!r}, or "
                "prior.condition_tokenizer to one of the other kind"
            )
        check_entry(kind, kind, data)
        if side < given.stride or side % given.stride:
            raise ValueError(
                f"prior.condition={kind!r} of {side} pixels a side, and its tokenizer "
                f"makes one code of {given.stride}: set side to a multiple of that"
            )
        return cls(tuple(given.input), data.image_size, side, *given[1:])

    @property
    def grid(self) -> Sides:
        return (self.side // self.stride,) * 2

    def of_batch(self, batch: Mapping) -> Any:
        if "condition_codes" in batch:
            return Coded(batch["condition_codes"])
        return Input(*self.input).read(batch[self.input[0]])

    def tokens(self, asked: Any, variables: Any = None, key=None) -> Tokens:
        del key
        if isinstance(asked, Coded):
            codes = asked.codes
        else:
            codes = self._codes(asked, (self.side, self.side), variables)
        return codes.reshape(len(codes), -1).astype(jnp.int32)

    def over(self, given: Any, shape: Sides, window: Sides) -> windows.Part:
        """What windows are told of maps of pictures of `shape` codes, encoded whole."""
        sides, reduced = (
            windows.larger(side, shape, window) for side in (self.image_size, self.side)
        )
        maps, encode = self.checked(given, sides), partial(self._codes, sides=reduced)
        return windows.cut_from(maps, encode, shape, window, self.grid)

    def _codes(self, asked, sides: Sides, variables=None) -> Codes:
        """Of maps, reduced to such sides."""
        small = asked if asked.shape[1:3] == sides else resized(asked, *sides)
        return self.encode(variables, small)


def check_entry(kind: str, entry: str, data: Data) -> None:
    """Raises ValueError for data whose examples lack an entry."""
    if entry not in data.shapes:
        raise ValueError(
            f"prior.condition={kind!r} reads {entry!r} of each example, and these data "
            f"have {', '.join(data.shapes) or 'none'}: choose another condition or data"
        )


def some(names: Sequence[str]) -> str:
    """The first names, numbered."""
    shown = ", ".join(f"{i} {name}" for i, name in enumerate(names[:_FEW]))
    return shown + (", ..." if len(names) > _FEW else "")
