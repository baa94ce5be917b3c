"""`folder`: anybody's pictures, or maps, or both, in directories or named by lists.

    directory or .txt list --listing.find--> names --hold out--> Files --> EncodedSource
    and those of maps --pairing.with_maps--> Files, in the pictures' order --+

A directory is searched in full. Where all of its pictures lie in sub-directories, those
next to the top are the classes, in sorted order. Paths may be local or of a bucket.
"""

from collections.abc import Mapping
from pathlib import PurePath

from etils import epath

from taming_jax.data.decoding import SUFFIXES
from taming_jax.data.encoded import NO_MAPS, EncodedSource
from taming_jax.data.listing import Files, Found, find, held_out
from taming_jax.data.pairing import check_kinds, with_maps

HELD_OUT = 0.05  # the share of `train` that validates where `val` is not given


def open_folder(
    split: str,
    *,
    train: str,
    image_size: int,
    val: str | float | None = None,
    train_maps: Mapping[str, str | None] = NO_MAPS,
    val_maps: Mapping[str, str | None] = NO_MAPS,
    crop: str = "random",
    flip: bool = True,
    zoom: float = 1.0,
    max_bad_share: float = 0.05,
) -> EncodedSource:
    """Opens the pictures of a directory or of a list, with their maps if there are.

    Without `train_maps` each file is read as what is asked for, a picture or a map of
    any kind.

    Args:
      split: "train" or "val".
      train: a directory, or a .txt file with one picture a line, relative to the list's
        own directory or absolute. A list has no classes.
      image_size: S, the side of the squares in pixels.
      val: as `train`; or the share of `train` to hold out, a number or the text of one,
        which a hash of the names chooses. None holds out 5 %.
      train_maps: by kind ("segmentation", "depth", "edges") where the maps of the
        pictures in `train` are, of the same names but for their endings, and as large.
      val_maps: likewise of `val`, where that is a path; the same kinds.
      crop: see `EncodedSource`.
      flip: see `EncodedSource`.
      zoom: see `EncodedSource`.
      max_bad_share: see `EncodedSource`.

    Raises:
      ValueError: for a path that is missing, empty or of another kind, a list with
        missing files, a share that holds out nothing or everything; for maps of one
        split only, and as `with_maps`.
    """
    found, training = split_pictures(split, train, val, find)
    by_share = val is None or _number(val) is not None
    _check_maps(train_maps, val_maps, by_share)
    if split == "train" or by_share:
        known = training.names if split == "train" else None  # one split says it
        maps = with_maps(found, train_maps, "data.train_maps", find, known)
    else:
        maps = with_maps(found, val_maps, "data.val_maps", find, found.names)
    return EncodedSource(
        Files("folder", found, training.classes),
        {kind: Files("folder", those, ()) for kind, those in maps.items()},
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


def _check_maps(train_maps: Mapping, val_maps: Mapping, by_share: bool) -> None:
    """Raises ValueError for maps that are none, or that one split alone has."""
    check_kinds(train_maps, "data.train_maps")
    val_maps = {kind: place for kind, place in val_maps.items() if place is not None}
    if by_share and val_maps:
        raise ValueError(
            f"data.val_maps are {', '.join(val_maps)}, and data.val is held out from "
            "data.train with its maps: leave data.val_maps out, or set data.val to a "
            "directory or a list"
        )
    if not by_share and (odd := sorted(train_maps.keys() ^ val_maps.keys())):
        has, lacks = ("train", "val") if odd[0] in train_maps else ("val", "train")
        raise ValueError(
            f"data.{has}_maps has {odd[0]} and data.{lacks}_maps has not: set "
            f"data.{lacks}_maps.{odd[0]} to where the maps of data.{lacks} are"
        )


def _number(val) -> float | None:
    """The number that `val` is or spells, as on a command line; None for a path."""
    try:
        return float(val)
    except (TypeError, ValueError):
        return None
