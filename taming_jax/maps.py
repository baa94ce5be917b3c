"""What tokenizers are made for, besides pictures, and how people look at it.

entry of an example           --Input.read-->  what the model takes
image         uint8   [B,H,W,C]                float32 [B,H,W,C] in [-1,1]
segmentation  int32   [B,H,W]                  int32   [B,H,W]
depth, edges  float32 [B,H,W] in [0,1]         float32 [B,H,W,1] in [-1,1]

what the model takes or gives --Input.draw-->  uint8 [B,H,W,1 or 3], as a file has it
"""

import colorsys
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from taming_jax import units
from taming_jax.pictures import LINE, write_png

KINDS = ("image", "segmentation", "depth", "edges")

# Viridis (van der Walt and Smith 2015, CC0) at ten equal steps: equal differences look
# equal, in grey too.
_VIRIDIS = np.array(
    [
        (68, 1, 84), (72, 40, 120), (62, 73, 137), (49, 104, 142), (38, 130, 142),
        (31, 158, 137), (53, 183, 121), (110, 206, 88), (181, 222, 43), (253, 231, 37),
    ]
)  # fmt: skip


class Input(NamedTuple):
    """Which entry of an example a tokenizer is for, and how it is read.

    kind: one of KINDS, the name of the entry.
    stretch: of depth and edges: each map from its least to its greatest value.
    """

    kind: str = "image"
    stretch: bool = False

    def read(self, entry):
        """An entry of a batch, as the table above has it -> what the model takes."""
        if self.kind == "image":
            return units.as_images(entry)
        if self.kind == "segmentation":
            return entry
        return units.from_map(units.stretched(entry) if self.stretch else entry)

    def draw(self, images) -> np.ndarray:
        """What the model takes or gives -> pictures for people, uint8.

        A colour for each class; depth from yellow, near, to violet, far; edges grey.
        """
        if self.kind == "segmentation":
            maps = np.asarray(images)
            return class_colours(maps.max(initial=0) + 1)[maps]
        if self.kind == "depth":
            return _depth_colours(np.asarray(images)[..., 0])
        return _few_channels(units.to_uint8(images))


def input_of(section: Mapping[str, Any]) -> Input:
    """What a section of a recipe is for: as it says, or as its model implies.

    Raises:
      ValueError: for a kind that there is not, or is not the model's.
    """
    classes = bool(section["model"].get("classes"))
    kind = section.get("input") or ("segmentation" if classes else "image")
    stretch = bool(section.get("stretch"))
    if kind not in KINDS:
        raise ValueError(f"input={kind!r} is not allowed: it is {' or '.join(KINDS)}")
    if classes != (kind == "segmentation"):
        raise ValueError(
            f"input={kind!r} and model.classes={classes}: class maps are "
            "input='segmentation' with model.classes=True, all else is without"
        )
    if stretch and kind not in ("depth", "edges"):
        raise ValueError(f"input={kind!r} and stretch=True: that is for depth or edges")
    return Input(kind, stretch)


def class_colours(count: int) -> np.ndarray:
    """uint8 [count, 3]: class k has the same colour whatever the count; 0 is dark.

    Hue, saturation and value go round in the steps of Roberts' sequence (2018), which
    fills a cube evenly: of 11 classes no two are nearer than 47 levels, of 183 than 16.
    The original's random colours, stretched to the least and greatest of a batch,
    differ with what else is in it, and mix where classes are uncertain; ours do not.
    """
    colours = np.full((count, 3), 40, np.uint8)
    for k in range(1, count):
        hue, saturation, value = k * np.array([0.8191725, 0.6710436, 0.5497005]) % 1
        rgb = colorsys.hsv_to_rgb(hue, 0.45 + 0.5 * saturation, 0.65 + 0.35 * value)
        colours[k] = np.round(255 * np.array(rgb))
    return colours


def legend(maps: Sequence[np.ndarray], names: Sequence[str], width: int) -> np.ndarray:
    """Colours and names of the classes that occur in the maps: uint8 [H, width, 3].

    A class without a name is called by its number. As many lines as it takes.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default_imagefont()
    classes = np.unique(np.concatenate([np.ravel(part) for part in maps]))
    colours = class_colours(classes[-1] + 1)
    x, y, places = 0, 0, []
    for k in classes:
        name = names[k] if k < len(names) else str(k)
        length = LINE + 2 + round(font.getlength(name)) + LINE
        if x and x + length > width:
            x, y = 0, y + LINE + 2
        places.append((x, y, k, name))
        x += length
    lines = Image.new("RGB", (width, y + LINE + 2), "white")
    draw = ImageDraw.Draw(lines)
    for x, y, k, name in places:
        box = (x, y + 2, x + LINE - 1, y + LINE + 1)
        draw.rectangle(box, fill=tuple(map(int, colours[k])))
        draw.text((x + LINE + 2, y + 2), name, fill=0, font=font)
    return np.asarray(lines)


def write_class_map(path: str | os.PathLike, classes: np.ndarray) -> None:
    """Writes int [H, W] as a PNG that shows their colours and holds their numbers.

    Beyond the 256 entries of a palette it holds the numbers no more.
    """
    colours = class_colours(classes.max() + 1)
    if len(colours) > 256:
        write_png(path, colours[classes])
    else:
        write_png(path, classes.astype(np.uint8)[..., None], palette=colours)


def _depth_colours(depth: np.ndarray) -> np.ndarray:
    """Depth [B,H,W] in [-1, 1], -1 nearest -> uint8 [B,H,W,3]."""
    nearness = np.clip((1 - depth) / 2, 0, 1)
    steps = np.linspace(0, 1, len(_VIRIDIS))
    channels = [np.interp(nearness, steps, channel) for channel in _VIRIDIS.T]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def _few_channels(pictures: np.ndarray) -> np.ndarray:
    """[B,H,W,C] -> the first three channels, as many as files show; one stays one."""
    channels = pictures.shape[-1]
    if channels == 2:
        return np.concatenate([pictures, np.zeros_like(pictures[..., :1])], axis=-1)
    return pictures[..., :3]
