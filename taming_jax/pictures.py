"""Pictures for people: grids of uint8 images, and PNG files that appear whole.

Pictures are uint8 [N, H, W, C] with C 1 or 3 (`units.to_uint8` makes them).
"""

import os
from collections.abc import Sequence

import numpy as np
from etils import epath

from taming_jax.files import whole_file

GAP = 2  # pixels of white between the pictures of a grid
LINE = 11  # pixels of a line of text, in the font that Pillow always has


def pair_rows(above: np.ndarray, below: np.ndarray, columns: int = 8) -> np.ndarray:
    """A grid [H', W', C] in which every row of `above` stands on one of `below`.

    Both are uint8 [N, H, W, C]; N need not fill the last row.
    """
    rows = []
    for start in range(0, len(above), columns):
        rows += [above[start : start + columns], below[start : start + columns]]
    return grid(rows, columns)


def grid(rows: list[np.ndarray], columns: int) -> np.ndarray:
    """Rows of at most `columns` pictures [n, H, W, C] -> one picture [H', W', C]."""
    height, width, channels = rows[0].shape[1:]
    shape = (
        len(rows) * (height + GAP) - GAP,
        min(columns, max(len(row) for row in rows)) * (width + GAP) - GAP,
        channels,
    )
    canvas = np.full(shape, 255, np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            top, left = y * (height + GAP), x * (width + GAP)
            canvas[top : top + height, left : left + width] = picture
    return canvas


def captioned(pictures: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Each of [N, H, W, 3] with its name in a white line below it: [N, H', W, 3].

    A name is cut where the picture ends.
    """
    from PIL import Image, ImageDraw, ImageFont

    count, _, width, channels = pictures.shape
    lines = np.full((count, LINE, width, channels), 255, np.uint8)
    font = ImageFont.load_default_imagefont()
    for i, name in enumerate(names):
        line = Image.fromarray(lines[i])
        ImageDraw.Draw(line).text((0, 0), name, fill=0, font=font)
        lines[i] = np.asarray(line)
    return np.concatenate([pictures, lines], axis=1)


def write_png(
    path: str | os.PathLike, picture: np.ndarray, palette: np.ndarray | None = None
) -> None:
    """Writes uint8 [H, W, C]; the file is there whole or not at all.

    With a palette, uint8 [n, 3], C is 1 and a pixel is the number of its colour.
    """
    from PIL import Image

    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if picture.shape[-1] == 1:
        picture = picture[..., 0]
    image = Image.fromarray(picture)
    if palette is not None:
        image.putpalette(palette.tobytes())
    with whole_file(path) as file:
        image.save(file, format="png")


def read_png(path: str | os.PathLike) -> np.ndarray:
    """What `write_png` wrote: uint8 [H, W, C]."""
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture).reshape(picture.height, picture.width, -1)
