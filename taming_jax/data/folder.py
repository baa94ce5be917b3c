"""`folder`: anybody's pictures, or maps, in a directory or named by a list.

    directory or .txt list --listing.find--> names --hold out--> Files --> EncodedSource

A directory is searched in full. Where all of its pictures lie in sub-directories, those
next to the top are the classes, in sorted order. Paths may be local or of a bucket.
"""

from pathlib import PurePath

from etils import epath

from taming_jax.data.decoding import SUFFIXES
from taming_jax.data.encoded import EncodedSource
from taming_jax.data.listing import Files, Found, find, held_out

HELD_OUT = 0.05  # the share of `train` that validates where `val` is not given


def open_folder(
    split: str,
    *,
    train: str,
    image_size: int,
    val: str | float | None = None,
    crop: str = "random",
    flip: bool = True,
    zoom: float = 1.0,
    max_bad_share: float = 0.05,
) -> EncodedSource:
    """Opens the pictures of a directory or of a list.

    Args:
      split: "train" or "val".
      train: a directory, or a .txt file with one picture a line, relative to the list's
        own directory or absolute. A list has no classes.
      image_size: S, the side of the squares in pixels.
      val: as `train`; or the share of `train` to hold out, a number or the text of one,
        which a hash of the names chooses. None holds out 5 %.
      crop: see `EncodedSource`.
      flip: see `EncodedSource`.
      zoom: see `EncodedSource`.
      max_bad_share: see `EncodedSource`.

    Raises:
      ValueError: for a path that is missing, empty or of another kind, a list with
        missing files, a share that holds out nothing or everything.
    """
    found, training = split_pictures(split, train, val, find)
    files = Files("folder", found, training.classes)
    return EncodedSource(
        files,
        image_size=image_size,
        crop=crop,
        flip=flip,
        zoom=zoom,
        max_bad_share=max_bad_share,
    )


def list_images(path: str | PurePath) -> list[epath.Path]:
    """The picture files that a file, a directory or a .txt list stands for, sorted.

    Raises:
      ValueError: if there are none, or some that the list names are missing.
    """
    given = epath.Path(path).expanduser()
    if given.suffix.lower() in SUFFIXES and given.is_file():
        return [given]
    found = find(path, "input")
    return [found.root / name for name in found.names]


def split_pictures(split: str, train, val, find) -> tuple[Found, Found]:
    """The pictures of a split, and all that `train` stands for, whose classes count.

    `find` takes a path and the key that it came from, and gives a `Found`.
    """
    training = find(train, "data.train")
    share = HELD_OUT if val is None else _number(val)
    if share is not None:
        return held_out(training, split, share), training
    return training if split == "train" else find(val, "data.val"), training


def _number(val) -> float | None:
    """The number that `val` is or spells, as on a command line; None for a path."""
    try:
        return float(val)
    except (TypeError, ValueError):
        return None
