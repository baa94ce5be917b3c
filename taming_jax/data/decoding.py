"""Encoded pictures, whatever their kind, into upright uint8 RGB; or maps, into numbers.

    bytes --open, upright, RGB--> picture --square, resize, flip--> uint8 [S,S,3]
    bytes --open, upright, one channel-->  the same, of a map ----> [S,S]

A map is a grey picture: depth and edges are its brightness, float32 in [0, 1], 8 or 16
bits alike. Depth may also be float32 in the four bytes of RGBA, as the paper's files
have it, and goes from its least to its greatest value over [0, 1]. The classes of a
segmentation are the values in its pixels as they are, of a palette the numbers of its
entries, and never mixed.

Fast where it counts: a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size straight
from its DCT coefficients (the smallest that is not below S), and only the square that
is wanted is resized. That is as fast as TensorFlow's decoder, and the same code reads
what TensorFlow does not: 16 bits, transparency, turned photographs, a PNG named .JPEG.

Legend: S side of the square, H and W of the picture itself.
"""

import io
import math
from collections.abc import Callable
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from etils import epath
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

# What a file holds counts, not its name; nothing else is tried on unknown bytes.
_FORMATS = ("JPEG", "PNG", "WEBP")


def read_image(path: str | PurePath) -> np.ndarray:
    """Reads one picture file in full: uint8 [H,W,3] in [0, 255], upright RGB.

    Transparent pictures are laid on white; 16 bits are rounded to 8; of an animation
    this is the first picture. Paths may be local or of a bucket (gs://).

    Raises:
      ValueError: if there is no such file, or it is no whole JPEG, PNG or WebP.
    """
    return _read(path, lambda encoded: np.asarray(_upright_rgb(encoded)))


def read_file(path: str | PurePath, kind: str) -> np.ndarray:
    """Reads one file in full, as an entry of that kind of an example.

    An "image" is what `read_image` gives; a map is [H,W], int32 of "segmentation" and
    float32 in [0, 1] of "depth" and "edges".

    Raises:
      ValueError: as `read_image`, and for a map of more than one channel.
    """
    if kind == "image":
        return read_image(path)
    return _read(path, lambda encoded: _FORMS[kind].values(_map(encoded, kind)))


def read_square(path: str | PurePath, size: int, kind: str = "image") -> np.ndarray:
    """Reads the square in the middle of a picture, resized: uint8 [size,size,3].

    Or of a map, as `read_file` has it: [size,size].

    Raises:
      ValueError: as `read_file`.
    """
    return _read(path, lambda encoded: decode_square(encoded, size, kind=kind))


def decode_square(
    encoded: bytes,
    size: int,
    place: tuple[float, float] | None = None,
    mirrored: bool = False,
    zoom: float = 1.0,
    kind: str = "image",
) -> np.ndarray:
    """A square out of a picture, resized (bicubic, antialiased; of classes, nearest).

    The same pixels as resizing the shortest side to zoom * size and cropping a square
    then, except within the filter's reach of the crop's border.

    Args:
      encoded: the bytes of a JPEG, PNG or WebP file.
      size: S, in pixels.
      place: where it lies, as (across, down) in [0, 1) from left and top; None takes
        the centre.
      mirrored: whether left and right change places.
      zoom: how often the square's side goes into the shortest one; 1 leaves it room
        along the longer side only.
      kind: "image", "segmentation", "depth" or "edges".

    Returns:
      uint8 [S,S,3]; or [S,S] of a map, as `read_file`.

    Raises:
      Exception: of many kinds, for bytes that are no whole picture; see `reason`.
    """
    if kind == "image":
        picture = _upright_rgb(encoded, at_least=math.ceil(size * zoom))
    else:
        picture = _map(encoded, kind)
    left, top, side = _square(picture.size, place, zoom)
    box = (left, top, left + side, top + side)
    resample, values = _FORMS[kind]
    picture = picture.resize((size, size), resample, box=box)
    if mirrored:
        picture = ImageOps.mirror(picture)
    return values(picture)


def coordinates(
    encoded: bytes,
    size: int,
    place: tuple[float, float] | None = None,
    mirrored: bool = False,
    zoom: float = 1.0,
) -> np.ndarray:
    """Where in its picture a square lies: float32 [size,size] in [0, 1).

    Of each pixel, what share of the pixels of the whole picture, resized as the square
    is, comes before it, row by row. A mirrored square lies in the mirrored picture.

    Args: as of `decode_square`, whose square this is about.
    """
    whole = upright_size(encoded)
    left, top, side = _square(whole, place, zoom)
    if mirrored:
        left = whole[0] - side - left
    width, height = (length * size / side for length in whole)
    x, y = (start * size / side + np.arange(size) for start in (left, top))
    return ((y[:, None] * width + x) / (height * width)).astype(np.float32)


def upright_size(encoded: bytes) -> tuple[int, int]:
    """(W, H) of a picture or map as it is looked at; its pixels are not decoded."""
    picture = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    turned = picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # by a quarter
    return picture.size[::-1] if turned else picture.size


def _square(whole: tuple[int, int], place, zoom: float) -> tuple[int, int, int]:
    """(left, top, side) of a square in a picture of (W, H), in its pixels."""
    side = round(min(whole) / zoom)
    spare = [length - side for length in whole]
    if place is None:
        return spare[0] // 2, spare[1] // 2, side
    # Whole pixels, or a picture that needs no resizing would be blurred.
    left, top = (int(p * (n + 1)) for p, n in zip(place, spare, strict=True))
    return left, top, side


def _read(path: str | PurePath, decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
    try:
        return decode(epath.Path(path).expanduser().read_bytes())
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read: {reason(error)}; give a whole JPEG, PNG or WebP"
        ) from error


def reason(error: Exception) -> str:
    """What is wrong with a picture, in one line for people."""
    if isinstance(error, UnidentifiedImageError):  # it would name a buffer's address
        return "this is no JPEG, PNG or WebP picture"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).partition("\n")[0] or type(error).__name__


def _upright_rgb(encoded: bytes, at_least: int | None = None) -> Image.Image:
    """Decodes; `at_least` admits a reduced size whose shortest side is not below it."""
    picture = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    if at_least is not None:
        picture.draft(None, (at_least, at_least))  # of JPEG only; else it does nothing
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode == "RGB" and not picture.has_transparency_data:
        return picture
    if picture.mode.startswith("I"):  # 16 bits of grey, for which PIL would clip at 255
        grey = np.asarray(picture).astype(np.int64).clip(0, 65_535)
        picture = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        white.alpha_composite(picture.convert("RGBA"))
        picture = white
    return picture.convert("RGB")


def _map(encoded: bytes, kind: str) -> Image.Image:
    """Decodes a map: whole numbers of classes, mode I, or brightness in [0, 1], F."""
    picture = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    ImageOps.exif_transpose(picture, in_place=True)
    if kind == "segmentation":
        values = np.asarray(picture)
        if values.ndim != 2 or picture.format == "JPEG":
            raise ValueError(
                f"a {picture.format} of {picture.mode}; a class map is a PNG of one "
                "channel, whose values are the classes"
            )
        return Image.fromarray(values.astype(np.int32))
    if picture.mode.startswith("I"):
        return Image.fromarray((np.asarray(picture) / 65_535).astype(np.float32))
    if kind == "depth" and picture.mode == "RGBA" and not _is_grey(picture):
        return Image.fromarray(_stretched_floats(picture))
    if not _is_grey(picture):
        raise ValueError(f"it has colours; a map of {kind} is a grey picture")
    values = np.asarray(picture.convert("RGB"))
    return Image.fromarray((values[..., 0] / 255).astype(np.float32))


def _is_grey(picture: Image.Image) -> bool:
    values = np.asarray(picture.convert("RGB"))
    return bool((values == values[..., :1]).all())


def _stretched_floats(picture: Image.Image) -> np.ndarray:
    """RGBA, whose bytes are float32, least significant first -> [H,W] in [0, 1]."""
    depth = np.ascontiguousarray(picture).view("<f4")[..., 0].astype(np.float32)
    if not np.isfinite(depth).all():
        raise ValueError(
            "it has colours, and read as float32 in four bytes not all is finite; a "
            "map of depth is a grey picture, or such floats"
        )
    depth = depth - depth.min()
    return depth / max(np.float32(1e-8), depth.max())


def _classes(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, np.int32)


def _brightness(picture: Image.Image) -> np.ndarray:
    """Clipped: what is bicubic overshoots."""
    return np.clip(np.asarray(picture, np.float32), 0.0, 1.0)


class _Form(NamedTuple):
    """How what is decoded is resized, and the array that comes of it."""

    resample: Image.Resampling
    values: Callable[[Image.Image], np.ndarray]


_FORMS = {
    "image": _Form(Image.Resampling.BICUBIC, np.asarray),
    "segmentation": _Form(Image.Resampling.NEAREST, _classes),
    "depth": _Form(Image.Resampling.BICUBIC, _brightness),
    "edges": _Form(Image.Resampling.BICUBIC, _brightness),
}
