"""What a prior can be told of objects: their classes and places, or their named points.

    boxes, points    which objects there are, and where
    keypoints        where the named points of objects are

They keep to what `kinds` says of a kind, and are those of the first objects, as many as
there are places for; the nearest come first in our data.

Legend: B pictures, S pixels along a side, M objects, P points of each.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from taming_jax.conditions import windows
from taming_jax.conditions.checks import as_array
from taming_jax.conditions.drawing import draw_layout
from taming_jax.conditions.kinds import Data, check_entry
from taming_jax.conditions.layouts import (
    WHOLE,
    Layout,
    check_boxes,
    check_crops,
    cut_to,
    relative,
    sized,
)
from taming_jax.conditions.windows import Sides
from taming_jax.units import Tokens

MOST = 2**31 - 1  # of the objects of a large picture, of which windows show some
_BLANK = 40  # what layouts are drawn on, as dark as the background of class maps


@dataclasses.dataclass(frozen=True)
class Boxes:
    """Objects: {"boxes": float [B,M,4], "box_classes": int [B,M]}, as examples have it.

    With crop also "crop": float [B,4], what is seen of the picture that boxes are of.

    names: of the classes.
    objects: how many can be told.
    vocabulary: V of the `Layout`, to whose square root places are rounded.
    points: centres instead of boxes.
    crop: whether two more tokens say what is seen; boxes are then told relative to the
      whole, else relative to what is seen and cut to it.
    cut: whether examples have boxes of a larger picture, and say where they were cut.
    """

    names: tuple[str, ...]
    objects: int
    vocabulary: int = 256
    points: bool = False
    crop: bool = dataclasses.field(default=False, metadata={"said": "where set"})
    cut: bool = dataclasses.field(default=False, metadata={"said": "where set"})

    options: ClassVar = ("objects", "vocabulary", "crop")
    kept: ClassVar = "entries"
    grid: ClassVar = None

    def __post_init__(self):
        self.layout  # noqa: B018 (it raises what it has to say)

    @classmethod
    def of(cls, data: Data, kind: str, **options) -> "Boxes":
        """Raises ValueError for data without boxes, or too small a vocabulary.

        And for crop=True of data that do not say where an example was cut.
        """
        for entry in ("boxes", "box_classes"):
            check_entry(kind, entry, data)
        cut = "crop" in data.shapes
        if options.get("crop") and not cut:
            raise ValueError(
                f"prior.condition={kind!r} with crop=True tells what is seen of a "
                "larger picture, and these data are whole ones: leave crop out, or "
                "have scenes cut out of larger ones, with data.zoom=2"
            )
        known = {
            "objects": data.shapes["box_classes"][0],
            "points": kind == "points",
            "cut": cut,
        }
        return cls(tuple(data.object_names or data.class_names), **known | options)

    @property
    def entries(self) -> tuple[str, ...]:
        crop = ("crop",) if self.crop or self.cut else ()
        return ("boxes", "box_classes", *crop)

    @property
    def layout(self) -> Layout:
        classes, told = len(self.names), self.objects
        return Layout(classes, told, self.vocabulary, self.points, self.crop)

    @property
    def length(self) -> int:
        return self.layout.length

    @property
    def size(self) -> int:
        return self.vocabulary

    def of_batch(self, batch: Mapping) -> Any:
        boxes, classes = jnp.asarray(batch["boxes"]), jnp.asarray(batch["box_classes"])
        seen = boxes
        if "crop" in self.entries:
            crops = jnp.asarray(batch["crop"])
            # A row that fills up a batch has none; there is nothing to be seen.
            crops = jnp.where(_is_there(crops)[:, None], crops, jnp.asarray(WHOLE))
            seen = cut_to(boxes, crops)
        there = (classes >= 0) & _is_there(seen)
        told = there & (jnp.cumsum(there, axis=1) <= self.objects)
        classes = jnp.where(told, classes, -1)
        if self.crop:
            return {"boxes": boxes, "box_classes": classes, "crop": crops}
        return {"boxes": seen, "box_classes": classes}

    def checked(self, given: Any) -> dict[str, np.ndarray]:
        """Boxes in the picture, of classes that there are, no more than can be told.

        Of those that a crop does not show, nothing is told; without one all is seen.
        """
        needed = {"boxes", "box_classes"}
        known = needed | ({"crop"} if self.crop else set())
        if not isinstance(given, Mapping) or not needed <= set(given) <= known:
            crop = ", 'crop': float32 [B, 4], what is seen of it" if self.crop else ""
            raise ValueError(
                "this prior is told objects: give {'boxes': float32 [B, M, 4] (x0, y0, "
                f"x1, y1 in [0, 1]), 'box_classes': int32 [B, M], -1 for none{crop}}}"
            )
        boxes = as_array(given["boxes"], "boxes")
        classes = as_array(given["box_classes"], "classes of boxes")
        check_boxes(boxes, classes, len(self.names))
        asked = {"boxes": boxes.astype(np.float32)}
        if self.crop:
            crops = as_array(given.get("crop", [WHOLE] * len(boxes)), "crops")
            check_crops(crops, len(boxes))
            asked["crop"] = crops.astype(np.float32)
            seen = _is_there(cut_to(asked["boxes"], asked["crop"]))
            classes = np.where(seen, classes, -1)
        if (most := int((classes >= 0).sum(1).max(initial=0))) > self.objects:
            raise ValueError(
                f"{most} objects in a picture, and this prior can be told "
                f"{self.objects}: leave some out (training keeps the first ones)"
            )
        return asked | {"box_classes": classes}

    def tokens(self, asked: Any, variables: Any = None, key=None) -> Tokens:
        del variables
        boxes = sized(jnp.asarray(asked["boxes"], jnp.float32))
        classes, crops = jnp.asarray(asked["box_classes"]), None
        if self.crop:
            crops = sized(jnp.asarray(asked["crop"], jnp.float32))
        return self.layout.write(boxes, classes, crop=crops, key=key)

    def over(self, given: Any, shape: Sides, window: Sides) -> windows.Objects:
        """What windows are told of the objects of pictures of `shape` codes.

        Of any number of objects, in each window the first that it shows; with crop
        also where it lies, in the picture or the whole that this is a crop of.
        """
        asked = dataclasses.replace(self, objects=MOST).checked(given)
        asked = {name: jnp.asarray(values) for name, values in asked.items()}
        boxes, classes, crops = asked["boxes"], asked["box_classes"], asked.get("crop")
        return windows.Objects(boxes, classes, crops, self.layout, shape, window)

    def missing(self) -> str:
        """What to say where nothing was given."""
        return "this prior is told objects, and was not: give condition="

    def draw(self, asked: Any, size: int, pictures=None) -> np.ndarray:
        """Pictures of it for people, uint8 [B,S,S,3].

        pictures: uint8 [B,S,S,3], what it is drawn on; None: on nothing.
        """
        boxes, classes = np.asarray(asked["boxes"]), np.asarray(asked["box_classes"])
        if "crop" in asked:
            boxes = relative(boxes, np.asarray(asked["crop"]))
        if self.points:
            boxes = (boxes[..., :2] + boxes[..., 2:]) / 2
        canvas = _blank(len(boxes), size) if pictures is None else pictures
        drawn = zip(canvas, boxes, classes, strict=True)
        return np.stack([draw_layout(*each) for each in drawn])


@dataclasses.dataclass(frozen=True)
class Keypoints:
    """Named points of objects: float32 [B,M,P,3], x and y in [0,1], 1 where in sight.

    objects: how many can be told.
    points: P.
    sections: along each side, to which places are rounded.
    """

    objects: int
    points: int
    sections: int = 16

    options: ClassVar = ("objects", "sections")
    entries: ClassVar = ("keypoints",)
    kept: ClassVar = "entries"
    grid: ClassVar = None

    @classmethod
    def of(cls, data: Data, kind: str, **options) -> "Keypoints":
        """Raises ValueError for data without keypoints."""
        check_entry(kind, "keypoints", data)
        objects, points, _ = data.shapes["keypoints"]
        return cls(**{"objects": objects, "points": points} | options)

    @property
    def length(self) -> int:
        return self.objects * self.points

    @property
    def size(self) -> int:
        return self.sections**2 + 1  # and one for what is not in sight

    def of_batch(self, batch: Mapping) -> Any:
        return batch["keypoints"][:, : self.objects]

    def checked(self, given: Any) -> np.ndarray:
        """Keypoints [B,M,P,3], of no more objects than can be told."""
        asked = as_array(given, "keypoints")
        right = asked.shape[2:] == (self.points, 3) and asked.size
        if not right or not np.issubdtype(asked.dtype, np.number):
            raise ValueError(
                f"this prior is told keypoints float32 [B, M, {self.points}, 3] (x, y, "
                f"in sight); the condition is {asked.dtype} {asked.shape}"
            )
        asked = asked.astype(np.float32)
        seen = asked[..., 2] > 0.5
        if (most := int(seen.any(2).sum(1).max())) > self.objects:
            raise ValueError(
                f"keypoints of {most} objects in a picture, and this prior can be told "
                f"{self.objects}: leave some out (training keeps the first ones)"
            )
        places = asked[..., :2][seen]
        if places.size and not 0 <= places.min() <= places.max() <= 1:
            raise ValueError(
                f"keypoints in sight reach from {places.min():g} to {places.max():g}: "
                "x and y are relative to the picture, in [0, 1]"
            )
        return asked

    def tokens(self, asked: Any, variables: Any = None, key=None) -> Tokens:
        del variables, key
        asked = jnp.asarray(asked)[:, : self.objects]
        missing = self.objects - asked.shape[1]
        asked = jnp.pad(asked, ((0, 0), (0, missing), (0, 0), (0, 0)))
        steps = jnp.round(asked[..., :2] * (self.sections - 1)).astype(jnp.int32)
        steps = jnp.clip(steps, 0, self.sections - 1)
        places = steps[..., 1] * self.sections + steps[..., 0]
        said = jnp.where(asked[..., 2] > 0.5, places, self.size - 1)
        return said.reshape(len(said), -1)

    def over(self, given: Any, shape: Sides, window: Sides) -> windows.Points:
        """What windows are told of the points of pictures of `shape` codes.

        Of any number of objects, in each window the first that it shows a point of.
        """
        asked = dataclasses.replace(self, objects=MOST).checked(given)
        return windows.Points(jnp.asarray(asked), self, shape, window)

    def missing(self) -> str:
        """What to say where nothing was given."""
        return "this prior is told keypoints, and was not: give condition="

    def draw(self, asked: Any, size: int, pictures=None) -> np.ndarray:
        """Pictures of it for people, uint8 [B,S,S,3]; a colour for each object.

        pictures: uint8 [B,S,S,3], what it is drawn on; None: on nothing.
        """
        asked = np.asarray(asked)
        count = asked.shape[1]
        canvas = _blank(len(asked), size) if pictures is None else pictures
        which = np.arange(count)[:, None] + np.zeros((1, self.points), int)
        drawn = []
        for picture, points in zip(canvas, asked, strict=True):
            seen = np.where(points[..., 2] > 0.5, which, -1)
            flat = points[..., :2].reshape(-1, 2)
            drawn.append(draw_layout(picture, flat, seen.reshape(-1)))
        return np.stack(drawn)


def _is_there(boxes: Any) -> Any:
    """Which of boxes [...,4] have a size: bool [...]."""
    return (boxes[..., 2:] > boxes[..., :2]).all(-1)


def _blank(count: int, size: int) -> np.ndarray:
    """What layouts are drawn on where there is no picture, uint8 [B,S,S,3]."""
    return np.full((count, size, size, 3), _BLANK, np.uint8)
