"""What pictures are asked for by, out of the files of --condition, each one checked.

    a picture or a map  --read_maps-->     [files, ...], as large as what is drawn
    JSON with entries   --read_entries-->  entry by entry [files, ...], as examples have

What is wrong in a file is said with its name, whichever of many it is.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from etils import epath

from taming_jax.cli import sizes
from taming_jax.conditions.checks import checked_map
from taming_jax.conditions.layouts import WHOLE
from taming_jax.windows import Windows

# What a file need not have.
WITHOUT = {"crop": WHOLE}


def read_maps(
    condition: str, given, size: tuple[int, int], classes: int = 0
) -> np.ndarray:
    """Pictures or maps of such files, as large as what is drawn, as they are told.

    Args:
      condition: the files.
      given: how they are read, a `maps.Input`.
      size: H and W of what is drawn.
      classes: how many class maps can have; of others it says nothing.

    Raises:
      ValueError: for what cannot be read, a file of other proportions, and one with
        classes that are not told.
    """
    from taming_jax.data import list_images

    read = []
    for path in list_images(condition):
        read.append(sizes.read(path, size, given.kind))
        _check_proportions(path, size)
        if given.kind == "segmentation":
            with _named(path):
                checked_map(read[-1][None], given.kind, size, classes)
    return np.asarray(given.read(np.stack(read)))


def read_entries(
    condition: str, name: str, kind, size: tuple[int, int], windows: Windows | None
) -> Any:
    """JSON of objects, keypoints or coordinates, as the kind is told: [files, ...].

    Args:
      condition: a file, or a directory of them.
      name: of the condition.
      kind: likewise, what is told.
      size: H and W of what is drawn.
      windows: by which it is drawn; None: at once.

    Raises:
      ValueError: for what cannot be read, and what the prior cannot be told.
    """
    place = epath.Path(condition).expanduser()
    paths = sorted(place.glob("*.json")) if place.is_dir() else [place]
    if not paths or not all(path.exists() for path in paths):
        raise ValueError(f"--condition {condition}: there is no .json of {name}")
    found = [_entries(path, _forms(name, kind, size)) for path in paths]
    most = max(len(next(iter(entries.values()))) for entries in found)
    stacked = {
        entry: np.stack([_filled(entries[entry], most, entry) for entries in found])
        for entry in found[0]
    }
    asked = stacked if len(stacked) > 1 else stacked.popitem()[1]
    for i, path in enumerate(paths):
        with _named(path):
            own = jax.tree.map(lambda values, i=i: values[i : i + 1], asked)
            _check(kind, own, size, windows)
    return asked


def _check(kind, asked, size: tuple[int, int], windows: Windows | None) -> None:
    """Raises ValueError for what a prior cannot be told, alone or by windows."""
    if kind.grid:  # lies on the picture
        kind.checked(asked, size)
    elif windows is None:
        kind.checked(asked)
    else:
        kind.over(asked, windows.shape, windows.window)


@contextlib.contextmanager
def _named(path) -> Iterator[None]:
    """What is wrong in here is wrong with this file, and it is said so."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check_proportions(path, size: tuple[int, int]) -> None:
    """Raises ValueError for a file that is not as wide for its height as H x W."""
    from taming_jax.data.decoding import upright_size

    (width, height), (down, across) = upright_size(epath.Path(path).read_bytes()), size
    # One is the other in another size if its sides are off by less than a pixel.
    off = abs(height * across / down - width), abs(width * down / across - height)
    if min(off) >= 1:
        raise ValueError(
            f"{path} has {height} x {width} pixels and what is drawn for it {down} x "
            f"{across}: a condition is as wide for its height as the picture; cut it, "
            "or give --height and --width"
        )


def _forms(name: str, kind, size: tuple[int, int]) -> dict[str, tuple]:
    """What a file of the condition has, by entry: the shape, "N" for any number."""
    if name == "coordinates":
        return {name: size}
    if name == "keypoints":
        return {name: ("N", kind.points, 3)}
    crop = {"crop": (4,)} if kind.crop else {}
    return {"boxes": ("N", 4), "box_classes": ("N",), **crop}


def _entries(path, forms: dict[str, tuple]) -> dict[str, np.ndarray]:
    """Of a file each entry as an array of such a form, all of as many objects."""
    try:
        given = json.loads(path.read_text())
        found = {entry: np.asarray({**WITHOUT, **given}[entry]) for entry in forms}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): give JSON with {', '.join(forms)}"
        ) from error
    if "crop" in given and "crop" not in forms:
        raise ValueError(
            f"{path} has a crop, and this prior is told of none: give what lies in the "
            "picture that is drawn, and leave it out"
        )
    for entry, form in forms.items():
        whole = entry == "box_classes"
        if found[entry].shape == (0,) and "N" in form:  # none, whatever one would be
            sides = [side for side in form if side != "N"]
            found[entry] = np.zeros((0, *sides), int if whole else float)
        _check_form(path, entry, found[entry], form, np.integer if whole else np.number)
    counts = {
        entry: len(values) for entry, values in found.items() if "N" in forms[entry]
    }
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{count} {entry}" for entry, count in counts.items())
        raise ValueError(f"{path} has {said}: give one of each for every object")
    return found


def _check_form(path, entry: str, values: np.ndarray, form: tuple, kind) -> None:
    """Raises ValueError for what are not numbers of such a form."""
    fits = len(form) == values.ndim and all(
        wanted in ("N", side) for wanted, side in zip(form, values.shape, strict=True)
    )
    if not fits or not np.issubdtype(values.dtype, kind):
        what = "whole numbers" if kind is np.integer else "numbers"
        wanted = ", ".join(map(str, form))
        found = " x ".join(map(str, values.shape)) or "one"
        raise ValueError(
            f"{path}: {entry} are {what} [{wanted}], and these are {found} of type "
            f"{values.dtype}"
        )


def _filled(entry: np.ndarray, length: int, name: str) -> np.ndarray:
    """As many objects in every file: those that are missing are none."""
    if name in WITHOUT:
        return entry
    wider = [(0, length - len(entry))] + [(0, 0)] * (entry.ndim - 1)
    nothing = -1 if name == "box_classes" else 0
    return np.pad(entry, wider, constant_values=nothing)
