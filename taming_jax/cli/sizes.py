"""What --height, --width and --window ask for, and pictures read at that size.

H and W in pixels, h and w in codes:

    --height H --width W --grid_of--> (h, w)
    a file of any size   --read-->    uint8 [H,W,3], or a map [H,W]
"""

import argparse
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from taming_jax.cli import arguments

_WINDOW = ("window", "window_stride", "window_center")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--height, --width, and the window that slides over larger pictures."""
    for name in ("height", "width"):
        parser.add_argument(
            f"--{name}",
            type=int,
            metavar="PIXELS",
            help="of the pictures (default: as those it was trained on)",
        )
    group = parser.add_argument_group(
        "window", "in codes; it slides over pictures larger than the prior's"
    )
    group.add_argument(
        "--window", type=_sides, metavar="N|H,W", help="its size (default: the prior's)"
    )
    group.add_argument(
        "--window_stride",
        type=arguments.positive,
        metavar="N",
        help="how far it moves (default: 1, the paper's; more is faster)",
    )
    group.add_argument(
        "--window_center",
        type=_sides,
        metavar="N|Y,X",
        help="rows and columns before its place (default: half of them)",
    )


def window_of(args: argparse.Namespace) -> dict:
    """What is said of the window, as keywords of `prior.sample`."""
    said = {name: getattr(args, name) for name in _WINDOW}
    return {name: value for name, value in said.items() if value is not None}


def in_effect(prior, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of `prior.sample`, with the windows that come of them as `windows`.

    These are the same in whatever words they were asked for; None where none slide.

    Raises:
      ValueError: for windows that the prior does not have.
    """
    windows = sliding(prior, settings)
    others = {name: settings[name] for name in settings if name not in _WINDOW}
    if windows is None:
        return {**others, "windows": None}
    found = {"window": windows.window, "stride": windows.stride}
    return {**others, "windows": {**found, "center": windows.before}}


def sliding(prior, settings: Mapping[str, Any]):
    """The `Windows` that come of such keywords; None where none slide."""
    from taming_jax.pretrained import windowed

    window, stride, center = (settings.get(name) for name in _WINDOW)
    return windowed.asked(prior, settings["shape"], window, stride or 1, center)


def grid_of(args: argparse.Namespace, prior) -> tuple[int, int]:
    """(h, w) of the codes; the prior's own where nothing is said.

    Raises:
      ValueError: for a side that is no multiple of the tokenizer's stride.
    """
    stride, sides = prior.tokenizer().stride, []
    for name, own in zip(("height", "width"), prior.grid, strict=True):
        pixels = getattr(args, name)
        if pixels is None:
            pixels = own * stride
        if pixels < stride or pixels % stride:
            low = max(pixels // stride, 1) * stride
            high = low if pixels < stride else low + stride
            nearest = f"{low}" if low == high else f"{low} and {high}"
            raise ValueError(
                f"--{name} {pixels}: a code covers {stride} x {stride} pixels; the "
                f"nearest that go are {nearest}"
            )
        sides.append(pixels // stride)
    return tuple(sides)


def read(path: str | os.PathLike, size: tuple[int, int], kind: str = "image"):
    """The middle of a picture or map, as large as fits, resized to (H, W).

    Returns:
      uint8 [H,W,3], or [H,W] of a map as `data.read_file` has it.

    Raises:
      ValueError: for what cannot be read.
    """
    from PIL import Image

    from taming_jax.data import read_file

    values = read_file(path, kind)
    left, top, width, height = middle(values.shape[:2], size)
    # As `data.read_square` does it: classes are never mixed, and bicubic overshoots.
    how = Image.Resampling
    picture = Image.fromarray(values).resize(
        size[::-1],
        how.NEAREST if kind == "segmentation" else how.BICUBIC,
        box=(left, top, left + width, top + height),
    )
    resized = np.asarray(picture, values.dtype)
    return resized.clip(0.0, 1.0) if values.dtype == np.float32 else resized


def _sides(text: str) -> int | tuple[int, int]:
    """An argparse type: one whole number, or two with a comma."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or min(numbers) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is neither N nor two, as 8,16")
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def middle(whole: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, width and height of the largest H : W in the middle of a picture."""
    (down, across), (height, width) = whole, size
    inner = (
        min(across, max(1, round(down * width / height))),
        min(down, max(1, round(across * height / width))),
    )
    return (across - inner[0]) // 2, (down - inner[1]) // 2, *inner
