"""Objects as tokens: which there are and where, by boxes or by centre points.

    boxes [B,M,4] --sized--> x, y, width, height; classes [B,M]
        --Layout.write: cut, mirror--> tokens [B, N * D + 2 crop tokens]
        --Layout.read--> the same objects, as precisely as tokens say it

An object is D tokens: what it is, then a place (its centre) or two (its corners). A
place is one of S x S, counted by rows; S * S is at most the number of tokens V, and
V - 1 says that there is no object. That is the paper's way with scenes (Esser et al.
2021, appendix A.2; its code rounds half to even).

Arrays may be numpy's or jax's. numpy's float64 gives what the original gives, ties
included: that is why places are written by their sizes, as annotations in files are.

Legend: B pictures, M objects that are known of each, at most N that are told.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from taming_jax.conditions.checks import ends
from taming_jax.units import Tokens

FLAGS = ("group", "occluded", "depiction", "inside")  # what may be said of an object
WHOLE = (0.0, 0.0, 1.0, 1.0)  # x0, y0, x1, y1 of a crop that shows everything


class Objects(NamedTuple):
    """What tokens say: float64 boxes [B,N,4] or points [B,N,2], relative to the whole.

    classes: int [B,N], -1 where there is no object.
    flags: bool [B,N,4], as FLAGS.
    crop: float64 [B,4], what is seen of the whole; None where tokens do not say it.
    """

    places: np.ndarray
    classes: np.ndarray
    flags: np.ndarray
    crop: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Layout:
    """How objects are said.

    Attributes:
      classes: C.
      objects: N; what there is beyond the first N is left out, and then what a crop
        does not show.
      vocabulary: V, how many tokens there are.
      points: whether an object is where its centre is, or a box.
      crop: whether two more tokens say what is seen of the whole picture, to which
        places are then relative; else they are relative to what is seen, cut to it.
      flags: how many of FLAGS are said: 0, 1 (groups) or 4.

    Raises:
      ValueError: for a vocabulary that lacks tokens for what there is to say.
    """

    classes: int
    objects: int
    vocabulary: int = 256
    points: bool = False
    crop: bool = False
    flags: int = 0

    def __post_init__(self):
        if self.flags not in (0, 1, len(FLAGS)):
            raise ValueError(
                f"flags={self.flags}: 0, 1 ({FLAGS[0]}) or 4 ({', '.join(FLAGS)})"
            )
        if self.classes < 1 or self.objects < 1:
            raise ValueError(
                f"{self.classes} classes and {self.objects} objects: at least one of "
                "each can be said"
            )
        least = max(5, (self.classes << self.flags) + 1)
        if self.vocabulary < least:
            raise ValueError(
                f"{self.classes} classes with {self.flags} flags are "
                f"{self.classes << self.flags} tokens, and one says that there is "
                f"nothing; vocabulary={self.vocabulary}: take at least {least}"
            )

    @property
    def length(self) -> int:
        """How many tokens a picture takes."""
        return self.objects * self._each + 2 * self.crop

    @property
    def nothing(self) -> int:
        """The token in place of an object that is not there."""
        return self.vocabulary - 1

    @property
    def _each(self) -> int:
        return 2 if self.points else 3

    @property
    def _sections(self) -> int:
        return math.isqrt(self.vocabulary)

    def write(
        self,
        boxes: Any,
        classes: Any,
        flags: Any = None,
        crop: Any = None,
        mirrored: bool = False,
        key: jax.Array | None = None,
    ) -> Tokens:
        """Objects -> tokens int32 [B, length].

        Args:
          boxes: [B,M,4], x, y, width, height in [0, 1] of the whole picture.
          classes: int [B,M], -1 for none.
          flags: bool [B,M,4], as FLAGS; None: none of them.
          crop: [B,4], a box likewise: what is seen. What is not in there is left out.
          mirrored: whether left and right change places afterwards.
          key: puts the objects into random order, as in training; None: as given.
        """
        xp = boxes.__array_namespace__()
        seen = xp.asarray([[0.0, 0.0, 1.0, 1.0]], dtype=boxes.dtype)
        seen = xp.broadcast_to(seen, (len(boxes), 4)) if crop is None else crop
        there = classes >= 0
        told = there & (xp.cumsum(there, axis=1) <= self.objects)
        told = told & overlap(boxes, seen[:, None])
        if not self.crop:
            boxes = _within(boxes, seen[:, None])
        if mirrored:
            boxes, seen = _mirrored(boxes), _mirrored(seen)
        what = classes
        if flags is not None and self.flags:
            bits = xp.asarray([1, 2, 4, 8][: self.flags])
            what = what + self.classes * (flags[..., : self.flags] * bits).sum(-1)
        if self.points:
            places = self.place(boxes[..., :2] + boxes[..., 2:] / 2)[..., None]
        else:
            places = self.place(_corners(boxes))  # [B,M,2]
        said = xp.concatenate([what[..., None], places], axis=-1)  # [B,M,D]
        said = self._chosen(
            xp, xp.where(told[..., None], said, self.nothing), told, key
        )
        tokens = said.reshape(len(said), -1)
        if self.crop:
            ends = self.place(_corners(seen))
            tokens = xp.concatenate([tokens, ends], axis=-1)
        return tokens.astype(np.int32)

    def read(self, tokens: Tokens) -> Objects:
        """Tokens [B, length] -> objects; a place is said to 1 / (S - 1) at best."""
        tokens = np.asarray(tokens)
        said = tokens[:, : self.objects * self._each]
        said = said.reshape(len(tokens), self.objects, self._each)
        what, there = said[..., 0], said[..., 0] != self.nothing
        places = self.spot(said[..., 1:])  # [B,N,1 or 2,2]
        bits = (what // self.classes)[..., None] >> np.arange(len(FLAGS)) & 1
        return Objects(
            places.reshape(*said.shape[:2], -1) * there[..., None],
            np.where(there, what % self.classes, -1),
            (bits == 1) & there[..., None],
            self.spot(tokens[:, -2:]).reshape(-1, 4) if self.crop else None,
        )

    def place(self, points: Any) -> Any:
        """x, y in [0, 1] [..., 2] -> the token of the nearest place [...]."""
        steps = (points * (self._sections - 1)).round().astype(np.int32)
        return steps[..., 1] * self._sections + steps[..., 0]

    def spot(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens of places [...] -> x, y [..., 2]."""
        steps = np.stack([tokens % self._sections, tokens // self._sections], axis=-1)
        return steps / (self._sections - 1)

    def _chosen(self, xp, said, told, key):
        """[B,M,D] -> [B,N,D]: those that are told first, with a key in random order."""
        if (missing := self.objects - said.shape[1]) > 0:
            wider = ((0, 0), (0, missing), (0, 0))
            said = xp.pad(said, wider, constant_values=self.nothing)
            told = xp.pad(told, wider[:2])
        order = (~told).astype(np.float32)
        if key is not None:
            order = order + jax.random.uniform(key, order.shape)
        first = xp.argsort(order, axis=1, stable=True)[:, : self.objects]
        return xp.take_along_axis(said, first[..., None], axis=1)


def check_boxes(boxes: np.ndarray, classes: np.ndarray, known: int) -> None:
    """Raises ValueError for boxes [B,M,4] and classes [B,M] that cannot be.

    Boxes of objects have to lie in the picture and be neither empty nor turned round.
    """
    numbers = np.issubdtype(boxes.dtype, np.number)
    if not numbers or boxes.ndim != 3 or boxes.shape != (*classes.shape, 4):
        raise ValueError(
            f"boxes are {boxes.dtype} {boxes.shape} and their classes "
            f"{classes.shape}: give numbers [B, M, 4] (x0, y0, x1, y1) and [B, M]"
        )
    if not np.issubdtype(classes.dtype, np.integer) or not (
        ((classes >= -1) & (classes < known)).all()
    ):
        raise ValueError(
            f"classes of boxes are {classes.dtype}{ends(classes)}: integers from 0 "
            f"to {known - 1}, or -1 for no object"
        )
    wrong = np.argwhere(~_can_be(boxes) & (classes >= 0))
    if len(wrong):
        picture, place = wrong[0]
        raise ValueError(
            f"box {place} of picture {picture} is {boxes[picture, place].tolist()}: "
            "x0, y0, x1, y1 are relative to the picture, 0 <= x0 < x1 <= 1 and y "
            "likewise"
        )


def check_crops(crops: np.ndarray, count: int) -> None:
    """Raises ValueError for what is not a box [4] for each of so many pictures."""
    if crops.shape != (count, 4) or not np.issubdtype(crops.dtype, np.number):
        raise ValueError(
            f"crops are {crops.dtype} {crops.shape} of {count} pictures: give [B, 4], "
            "x0, y0, x1, y1 of what is seen of each"
        )
    if not (right := _can_be(crops)).all():
        wrong = np.argmin(right)
        raise ValueError(
            f"the crop of picture {wrong} is {crops[wrong].tolist()}: x0, y0, x1, y1 "
            "of what is seen are relative to the whole, 0 <= x0 < x1 <= 1 and y "
            "likewise"
        )


def _can_be(boxes: np.ndarray) -> np.ndarray:
    """Which of x0, y0, x1, y1 [...,4] lie in [0, 1] and have a size: bool [...]."""
    x0, y0, x1, y1 = np.moveaxis(boxes, -1, 0)
    return (x0 >= 0) & (y0 >= 0) & (x1 <= 1) & (y1 <= 1) & (x0 < x1) & (y0 < y1)


def relative(boxes: Any, crops: Any) -> Any:
    """Boxes x0, y0, x1, y1 [B,M,4] of the whole -> of its crops [B,4], not cut."""
    xp = boxes.__array_namespace__()
    first, sizes = crops[:, None, :2], crops[:, None, 2:] - crops[:, None, :2]
    ends = [(boxes[..., part] - first) / sizes for part in (slice(2), slice(2, 4))]
    return xp.concatenate(ends, axis=-1)


def cut_to(boxes: Any, crops: Any) -> Any:
    """Likewise, cut to the crops; a box is empty where nothing of it is seen."""
    return relative(boxes, crops).clip(0.0, 1.0)


def sized(boxes: Any) -> Any:
    """x0, y0, x1, y1 [..., 4] -> x, y, width, height."""
    xp = boxes.__array_namespace__()
    sizes = boxes[..., 2:] - boxes[..., :2]
    return xp.concatenate([boxes[..., :2], sizes], axis=-1)


def _corners(boxes):
    """x, y, width, height [..., 4] -> two points [..., 2, 2]."""
    xp = boxes.__array_namespace__()
    first = boxes[..., :2]
    return xp.stack([first, first + boxes[..., 2:]], axis=-2)


def overlap(boxes, seen):
    """Whether they have an area in common: bool [B,M]."""
    xp = boxes.__array_namespace__()
    boxes, seen = _corners(boxes), _corners(seen)
    first = xp.maximum(boxes[..., 0, :], seen[..., 0, :])
    last = xp.minimum(boxes[..., 1, :], seen[..., 1, :])
    return (last > first).all(-1)


def _within(boxes, seen):
    """Boxes relative to what is seen, and cut to it."""
    xp = boxes.__array_namespace__()
    first = xp.clip((boxes[..., :2] - seen[..., :2]) / seen[..., 2:], 0.0, 1.0)
    sizes = xp.minimum(boxes[..., 2:] / seen[..., 2:], 1.0 - first)
    return xp.concatenate([first, sizes], axis=-1)


def _mirrored(boxes):
    xp = boxes.__array_namespace__()
    x, y, width, height = (boxes[..., i] for i in range(4))
    return xp.stack([1 - (x + width), y, width, height], axis=-1)
