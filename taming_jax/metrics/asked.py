"""Do pictures show what they were asked for by? One figure for each kind of condition.

    what was asked for [B, ...], pictures uint8 [B,S,S,3] --scores--> name -> [B]

What pictures show is read off them by the `Reader`; pictures that were asked for small
are compared pixel by pixel, at their own size and reduced to what is told. Where two
kinds have figures of one name, they are called by the kinds, too: `points_boxes_found`.
"""

import collections
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from taming_jax.conditions.layouts import relative
from taming_jax.conditions.table import Condition
from taming_jax.maps import Input
from taming_jax.metrics import truth
from taming_jax.metrics.pixels import psnr
from taming_jax.metrics.reader import Reader
from taming_jax.units import stretched, to_uint8

# With less of a box in a crop nobody can tell what it is of.
_LEFT = 0.25


def _small(asked, pictures: np.ndarray, side: int) -> np.ndarray:
    """PSNR [dB] of side x side parts: whether the picture is what was reduced."""
    parts = []
    for values in (to_uint8(asked), pictures):
        count, height, width, channels = values.shape
        shape = count, side, height // side, side, width // side, channels
        parts.append(values.reshape(shape).mean((2, 4)))
    return psnr(*(np.round(part).astype(np.uint8) for part in parts))


def _as_map(images) -> np.ndarray:
    """Images [B,S,S,1] in [-1,1] -> maps [B,S,S] in [0,1]."""
    return (np.asarray(images)[..., 0] + 1) / 2


def _pixels(asked, pictures: np.ndarray) -> np.ndarray:
    return psnr(to_uint8(asked), pictures)


def _boxes(asked: Mapping[str, Any], found: np.ndarray) -> np.ndarray:
    """The share of boxes found; of crops what they show of them is looked for."""
    boxes, classes = np.asarray(asked["boxes"]), np.asarray(asked["box_classes"])
    if "crop" in asked:
        whole = relative(boxes, np.asarray(asked["crop"]))
        boxes = whole.clip(0.0, 1.0)
        enough = _area(boxes) >= _LEFT * _area(whole)
        classes = np.where(enough, classes, -1)
    return truth.boxes_found(boxes, classes, found)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)


# Kind -> name of the figure, what has to be read, and what the figure is of what was
# asked and that.
READ: dict[str, tuple[str, str, Callable]] = {
    "segmentation": (
        "iou",
        "segmentation",
        lambda asked, found: truth.iou(np.asarray(asked), found),
    ),
    "depth": (
        "depth_error",
        "depth",
        lambda asked, found: truth.depth_error(_as_map(asked), found),
    ),
    "edges": (
        "edge_f_score",
        "edges",
        lambda asked, found: truth.edge_f_score(_as_map(asked), found),
    ),
    "boxes": ("boxes_found", "segmentation", _boxes),
    "points": ("boxes_found", "segmentation", _boxes),
    "keypoints": (
        "keypoint_error",
        "keypoints",
        lambda asked, found: truth.keypoint_error(np.asarray(asked), found),
    ),
}
READ |= {f"direct_{name}": READ[name] for name in ("segmentation", "depth", "edges")}


def _compared(told: Mapping[str, Condition]) -> dict[str, tuple[str, Callable]]:
    """Likewise, of pictures as they are: figure -> kind and what it is."""
    if "low_resolution" not in told:
        return {}
    side = told["low_resolution"].side
    figures = {
        "psnr": _pixels,
        f"psnr_of_{side}x{side}": functools.partial(_small, side=side),
    }
    return {name: ("low_resolution", score) for name, score in figures.items()}


def _figures(told) -> dict[str, str]:
    """Of each kind whose figure is read the name of that figure, no two alike."""
    own = {name: READ[name][0] for name in told if name in READ}
    times = collections.Counter(own.values())
    return {
        name: figure if times[figure] == 1 else f"{name}_{figure}"
        for name, figure in own.items()
    }


def to_be_read(told) -> set[str]:
    """What a reader has to read, that such conditions have all their figures."""
    return {READ[name][1] for name in told if name in READ}


def names(told: Mapping[str, Condition], reader: Reader | None) -> list[str]:
    """The figures that there are for such conditions."""
    read = [] if reader is None else _figures(told).values()
    return [*read, *_compared(told)]


def scores(
    told: Mapping[str, Condition],
    asked: Mapping[str, Any],
    pictures: np.ndarray,
    reader: Reader | None,
) -> dict[str, np.ndarray]:
    """Each figure of each picture, float64 [B]; NaN where there is none.

    Args:
      told: the conditions, by name.
      asked: what was asked for by each, in the form that people give it.
      pictures: uint8 [B,S,S,C].
      reader: None: without what has to be read.
    """
    measured, figures = {}, {} if reader is None else _figures(told)
    read = reader(pictures) if figures else {}
    for name, figure in figures.items():
        _, what, score = READ[name]
        # Of depth told from its least to its greatest value no more can be shown.
        alike = what == "depth" and Input(*told[name].input).stretch
        found = np.asarray(stretched(read[what])) if alike else read[what]
        measured[figure] = score(asked[name], found)
    for figure, (name, score) in _compared(told).items():
        measured[figure] = score(asked[name], pictures)
    return measured


def as_trained(
    told: Mapping[str, Condition], asked: Mapping[str, Any], numbers: np.ndarray
) -> dict[str, Any]:
    """What is asked for as training says it: pictures worse where it makes them so.

    numbers: int [B] of the examples; each is made worse in its own way.
    """
    worse = [name for name in asked if getattr(told[name], "degraded", False)]
    changed = {name: told[name].worsened(asked[name], numbers) for name in worse}
    return {**asked, **changed}
