"""What people give as a condition, compared with what a prior is told.

    arrays, numbers, lists           --as_array-----> an array
    maps [B,H,W], images [B,H,W,C]   --checked_map--> the same

ValueError for anything else.
"""

from typing import Any

import numpy as np

Sides = tuple[int, int]


def as_array(given: Any, what: str) -> np.ndarray:
    """An array of what people give as `what`, which is a plural.

    Raises:
      ValueError: for lists of different lengths, in words.
    """
    try:
        return np.asarray(given)
    except ValueError:
        raise ValueError(
            f"{what} are lists of different lengths, which make no array: give as "
            "many of each"
        ) from None


def checked_map(given: Any, kind: str, sides: Sides, channels: int) -> np.ndarray:
    """Class maps int32 [B,H,W] below `channels`, or images float32 [B,H,W,C].

    Args:
      given: what people give.
      kind: "segmentation", or of images in [-1, 1].
      sides: H and W.
      channels: how many classes, or C.

    Raises:
      ValueError: for anything else; it says what is wanted.
    """
    asked = as_array(given, "maps")
    if kind == "segmentation":
        wanted = "class maps int32 [B, {}, {}]".format(*sides)
        wanted += f" below {channels}"
        whole = np.issubdtype(asked.dtype, np.integer)
        right = whole and asked.shape[1:] == sides
        low, high = 0, channels - 1
    else:
        wanted = "images float32 [B, {}, {}, {}]".format(*sides, channels)
        wanted += f" in [-1, 1] of {kind}"
        whole = np.issubdtype(asked.dtype, np.floating)
        right = whole and asked.shape[1:] == (*sides, channels)
        low, high = -1, 1
    if not right or not asked.size or not low <= asked.min() <= asked.max() <= high:
        raise ValueError(
            f"this prior is told {wanted}; the condition is {asked.dtype} "
            f"{asked.shape}{ends(asked)}"
        )
    return asked


def ends(asked: np.ndarray) -> str:
    """What to say of how far numbers reach; "" of none."""
    if not asked.size or not np.issubdtype(asked.dtype, np.number):
        return ""
    return f" from {asked.min():g} to {asked.max():g}"
