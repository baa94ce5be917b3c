"""Pictures to be completed: --given IMAGE|DIR, of which --keep stays.

    files --sizes.read--> pictures [G,H,W,3] --tokenizer--> codes [G,h,w]
    --keep --> what stays bool [G,h,w];  the other codes are -1: they are drawn

Codes are kept, not pixels: what is kept comes out of the decoder, too, and looks a
little different at its border, where a pixel depends on codes from both sides.
"""

import argparse
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from taming_jax.cli import sizes

_HALVES = {"top": (0.0, 0.0, 1.0, 0.5), "left": (0.0, 0.0, 0.5, 1.0)}
_WHITE, _GREY = 128, 127  # from where on a mask is white; in place of what is drawn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--given and --keep."""
    parser.add_argument(
        "--given", metavar="IMAGE|DIR", help="pictures that are to be completed"
    )
    parser.add_argument(
        "--keep",
        metavar="top|left|x0,y0,x1,y1|MASK.png",
        help="what stays of --given: a half, a box in [0, 1], or what is white in a "
        "mask (default: top)",
    )


class Completion(NamedTuple):
    """What is known of G pictures.

    codes: int32 [G,h,w], -1 where one is drawn.
    shown: uint8 [G,2,H,W,3], each picture, and what is kept of it on grey.
    """

    codes: np.ndarray
    shown: np.ndarray

    @property
    def digest(self) -> str:
        """Of the pictures and of what stays of them, hex digits.

        Not of the codes: another device may round one of them to its neighbour.
        """
        stays = (self.codes >= 0).tobytes()
        return hashlib.sha256(self.shown[:, 0].tobytes() + stays).hexdigest()

    def of_rows(self, rows: int) -> np.ndarray:
        """Codes int32 [rows,h,w] of as many things to draw, picture after picture."""
        return self.codes[np.arange(rows) * len(self.codes) // rows]

    def late(self, prior) -> str:
        """What to say of codes that are kept but come too late; "" if none do."""
        from taming_jax.pretrained.requests import late_codes

        own = self.codes.shape[1:] == tuple(prior.grid)  # larger ones go by rows
        return late_codes(self.codes, prior.module.order if own else None)

    def beside(self, rows: int) -> list[np.ndarray]:
        """The two columns at the left of so many rows, uint8 [rows,H,W,3] each."""
        shown = self.shown[np.arange(rows) * len(self.shown) // rows]
        return [shown[:, 0], shown[:, 1]]


def given(
    where: str | None, keep: str | None, prior, shape: tuple[int, int]
) -> Completion | None:
    """Reads and encodes pictures, each as large as `shape`, (h, w) codes, asks for.

    None where nothing is given. Where nothing is said of what to keep: the top half.

    Raises:
      ValueError: for pictures or a mask that cannot be read or do not go together, and
        for a region that is none, keeps nothing, or is one of no picture.
    """
    from taming_jax.data import list_images

    if where is None and keep is not None:
        raise ValueError(
            f"--keep {keep} says what stays of a picture, and none is given: name it "
            "by --given, or leave --keep out"
        )
    if where is None:
        return None
    keep = keep or "top"
    place, vqgan = epath.Path(where).expanduser(), prior.tokenizer()
    paths = list_images(place) if place.is_dir() else [place]
    stays = _region(keep, shape)
    size = tuple(side * vqgan.stride for side in shape)
    codes, shown = [], []
    for path in paths:
        entry = vqgan.input.read(sizes.read(path, size, vqgan.input.kind)[None])
        kept = stays(path)
        if not kept.any():
            raise ValueError(
                f"--keep {keep} keeps no code of {path}: one covers {vqgan.stride} x "
                f"{vqgan.stride} of {size[0]} x {size[1]} pixels; keep more"
            )
        codes.append(np.where(kept, np.asarray(vqgan.encode(entry))[0], -1))
        shown.append(_shown(vqgan.input.draw(entry)[0], kept, vqgan.stride))
    return Completion(np.stack(codes).astype(np.int32), np.stack(shown))


def _region(keep: str, shape: tuple[int, int]):
    """`path -> bool [h,w]`: what stays of a picture, checked before any is read."""
    from taming_jax.data.decoding import SUFFIXES, read_image

    if keep.lower().endswith(SUFFIXES):
        white = read_image(keep).min(axis=-1) >= _WHITE
        return lambda path: _whole_patches(white, keep, path, shape)
    box = _HALVES.get(keep) or _box(keep)
    x0, y0, x1, y1 = np.round(np.multiply(box, [*shape[::-1]] * 2)).astype(int)
    kept = np.zeros(shape, bool)
    kept[y0:y1, x0:x1] = True
    return lambda path: kept


def _box(keep: str) -> Sequence[float]:
    from taming_jax.cli.conditions import numbers

    box = numbers(keep, "--keep", float)
    if len(box) != 4 or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
        raise ValueError(
            f"--keep {keep}: say top, left, x0,y0,x1,y1 with 0 <= x0 < x1 <= 1 and y "
            "likewise, or the file of a mask"
        )
    return box


def _whole_patches(
    white: np.ndarray, keep: str, path: epath.Path, shape: tuple[int, int]
) -> np.ndarray:
    """Of which codes the whole patch is white: bool [h,w].

    A mask lies over the whole picture as its file has it, and is cut with it.
    """
    from taming_jax.data.decoding import upright_size

    picture = upright_size(path.read_bytes())[::-1]
    # One is the other in another size if its sides are off by less than a pixel.
    off = [
        abs(white.shape[0] * picture[1] / picture[0] - white.shape[1]),
        abs(white.shape[1] * picture[0] / picture[1] - white.shape[0]),
    ]
    if min(off) >= 1:
        raise ValueError(
            f"--keep {keep} has {white.shape[0]} x {white.shape[1]} pixels and {path} "
            f"{picture[0]} x {picture[1]}: a mask is as wide for its height as the "
            "picture"
        )
    left, top, width, height = sizes.middle(white.shape, shape)
    rows = _all_white(white[top : top + height], shape[0], axis=0)
    return _all_white(rows[:, left : left + width], shape[1], axis=1)


def _all_white(white: np.ndarray, parts: int, axis: int) -> np.ndarray:
    """One side in so many equal parts: whether all that each touches is white."""
    edges = np.arange(parts + 1) * white.shape[axis] / parts
    low, high = np.floor(edges[:-1]).astype(int), np.ceil(edges[1:]).astype(int)
    touched = zip(low, high, strict=True)
    found = [white.take(range(*some), axis).all(axis) for some in touched]
    return np.stack(found, axis)


def _shown(picture: np.ndarray, kept: np.ndarray, stride: int) -> np.ndarray:
    """uint8 [H,W,1 or 3] -> it and what is kept of it, [2,H,W,3]."""
    picture = np.broadcast_to(picture, (*picture.shape[:2], 3))
    pixels = kept.repeat(stride, 0).repeat(stride, 1)[..., None]
    return np.stack([picture, np.where(pixels, picture, np.uint8(_GREY))])
