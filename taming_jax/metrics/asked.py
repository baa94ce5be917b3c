"""Do pictures show what they were asked for by? One figure for each kind of condition.

    what was asked for [B, ...], pictures uint8 [B,S,S,3] --scores--> name -> [B]

What pictures show is read off them by the `Reader`; pictures that were asked for small
are compared pixel by pixel, at their own size and reduced.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from taming_jax.metrics import truth
from taming_jax.metrics.pixels import psnr
from taming_jax.metrics.reader import Reader
from taming_jax.units import to_uint8


def _small(asked, pictures: np.ndarray) -> np.ndarray:
    """PSNR [dB] of 8 x 8 parts: whether the picture is the one that was reduced."""
    parts = [
        values.reshape(len(values), 8, values.shape[1] // 8, 8, -1, 3).mean((2, 4))
        for values in (to_uint8(asked), pictures)
    ]
    return psnr(*(np.round(part).astype(np.uint8) for part in parts))


def _as_map(images) -> np.ndarray:
    """Images [B,S,S,1] in [-1,1] -> maps [B,S,S] in [0,1]."""
    return (np.asarray(images)[..., 0] + 1) / 2


def _pixels(asked, pictures: np.ndarray) -> np.ndarray:
    return psnr(to_uint8(asked), pictures)


def _boxes(asked: Mapping[str, Any], found: np.ndarray) -> np.ndarray:
    places = np.asarray(asked["boxes"]), np.asarray(asked["box_classes"])
    return truth.boxes_found(*places, found)


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
# Likewise, of pictures as they are.
COMPARED = {"low_resolution": {"psnr": _pixels, "psnr_of_8x8": _small}}


def to_be_read(told) -> set[str]:
    """What a reader has to read, that such conditions have all their figures."""
    return {READ[name][1] for name in told if name in READ}


def names(told, reader: Reader | None) -> list[str]:
    """The figures that there are for such conditions."""
    read = [READ[name][0] for name in told if name in READ and reader is not None]
    return read + [figure for name in told for figure in COMPARED.get(name, ())]


def scores(
    asked: Mapping[str, Any], pictures: np.ndarray, reader: Reader | None
) -> dict[str, np.ndarray]:
    """Each figure of each picture, float64 [B]; NaN where there is none.

    Args:
      asked: what was asked for, by the names of conditions, in the form that people
        give it.
      pictures: uint8 [B,S,S,3].
      reader: None: without what has to be read.
    """
    measured = {}
    wanted = [name for name in asked if name in READ and reader is not None]
    read = reader(pictures) if wanted else {}
    for name in wanted:
        figure, what, score = READ[name]
        measured[figure] = score(asked[name], read[what])
    for name in asked:
        for figure, score in COMPARED.get(name, {}).items():
            measured[figure] = score(asked[name], pictures)
    return measured
