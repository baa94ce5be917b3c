"""What a prior was asked for, drawn for people: layouts on a picture.

picture uint8 [H,W,3], places [N,4 or 2], classes [N] --draw_layout--> [H,W,3]

Colours are those of class maps.
"""

from collections.abc import Sequence

import numpy as np

from taming_jax.maps import class_colours


def draw_layout(
    picture: np.ndarray,
    places: np.ndarray,
    classes: np.ndarray,
    names: Sequence[str] = (),
) -> np.ndarray:
    """Draws a frame around each box, or a cross at each point, in its class's colour.

    Args:
      picture: uint8 [H,W,3]; it stays as it is.
      places: boxes [N,4] (x0, y0, x1, y1) or points [N,2], relative to the picture.
      classes: int [N], -1 for none; class c has the colour of c + 1 in a class map.
      names: of classes; written into frames that have room for them.
    """
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.fromarray(picture)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default_imagefont()
    colours = class_colours(2 + int(np.max(classes, initial=-1)))
    side = np.array([canvas.width - 1, canvas.height - 1])
    for place, kind in zip(places, classes, strict=True):
        if kind < 0:
            continue
        colour = tuple(map(int, colours[kind + 1]))
        ends = np.round(np.reshape(place, (-1, 2)) * side).astype(int).tolist()
        if len(ends) == 1:
            ((x, y),) = ends
            draw.line((x - 2, y, x + 2, y), fill=colour)
            draw.line((x, y - 2, x, y + 2), fill=colour)
            continue
        (x0, y0), (x1, y1) = ends
        draw.rectangle((x0, y0, x1, y1), outline=colour)
        name = names[kind] if kind < len(names) else ""
        left, top, right, bottom = font.getbbox(name)
        if right - left + 3 <= x1 - x0 and bottom - top + 3 <= y1 - y0:
            draw.text((x0 + 2, y0 + 1), name, fill=colour, font=font)
    return np.asarray(canvas)
