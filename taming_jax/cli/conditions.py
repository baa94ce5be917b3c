"""What `sample` is asked for, from the command line and from files.

--classes 0,3 -> labels;  --condition FILE|DIR -> maps, small pictures, objects

One file is one condition. A map is a picture, as `reconstruct` reads and writes it, and
so is a small picture; objects and keypoints are JSON with the entries of an example:
{"boxes": [[x0, y0, x1, y1], ...], "box_classes": [3, ...]} or {"keypoints": ...}; a
prior that is told crops reads "crop": [x0, y0, x1, y1], too, without which all is seen.
"""

import json
from typing import Any

import jax
import numpy as np
from etils import epath

from taming_jax.cli import sizes
from taming_jax.conditions.coordinates import coordinates
from taming_jax.conditions.direct_maps import DirectMap
from taming_jax.conditions.kinds import CodedMap

# What a file need not have.
WITHOUT = {"crop": (0.0, 0.0, 1.0, 1.0)}


def asked_for(
    classes: str,
    condition: str | None,
    prior,
    *,
    shape: tuple[int, int] | None = None,
    pictures: int = 1,
) -> Any:
    """What is drawn: labels int32 [G], or a dict by conditions of [G, ...].

    Of labels together with another condition, each class is asked for of each file.

    Args:
      classes: as --classes has them.
      condition: the files of --condition.
      prior: who is told.
      shape: (h, w) of the codes; maps are read as large; None: the prior's own.
      pictures: how many there are to be completed, one after the other. Each is asked
        for all labels; it goes with the file in its place, or all with the only one.

    Raises:
      ValueError: for what this prior is not told, or what cannot be read.
    """
    size = tuple(side * prior.tokenizer().stride for side in shape or prior.grid)
    kinds = dict(prior.vocabulary.told)
    if not kinds and classes != "all":
        raise ValueError(
            f"--classes {classes}: this prior is unconditional, leave it out"
        )
    labels = _labels(classes, kinds.pop("label", None))
    if not kinds and condition is not None and prior.condition_vqgan is not None:
        maps = _read_maps(condition, prior.condition_vqgan.input, size)
        return {prior.told: maps[_rows(len(maps), pictures)]}
    if not kinds:
        if condition is not None:
            from taming_jax.pretrained.told_by import missing

            reason = f"this prior is told {prior.told}, leave it out"
            raise ValueError(f"--condition {condition}: {missing(prior) or reason}")
        each = np.zeros(1, np.int32) if labels is None else labels
        return np.tile(each, pictures)
    whole = list(kinds) == ["coordinates"]  # needs no file
    if len(kinds) > 1 or (condition is None and not whole):
        wanted = " and ".join(kinds)
        raise ValueError(
            f"this prior is told {wanted}: "
            + ("give --condition FILE|DIR" if len(kinds) == 1 else "use load_prior")
        )
    ((name, kind),) = kinds.items()
    asked = _read(condition, name, kind, size)
    rows = _rows(len(jax.tree.leaves(asked)[0]), pictures)
    rows = rows.repeat(1 if labels is None else len(labels))
    picked = jax.tree.map(lambda part: part[rows], asked)
    if labels is None:
        return {name: picked}
    return {"label": np.tile(labels, len(rows) // len(labels)), name: picked}


def _rows(files: int, pictures: int) -> np.ndarray:
    """Which file is asked for by each row, int [max(files, pictures)]."""
    if files != pictures and min(files, pictures) != 1:
        raise ValueError(
            f"--condition has {files} files and --given {pictures} pictures: give as "
            "many of both, in the order of their names, or a single one"
        )
    return np.arange(max(files, pictures)) % files


def _labels(classes: str, kind):
    if kind is None:
        if classes != "all":
            raise ValueError(
                f"--classes {classes}: this prior is not told classes, leave it out"
            )
        return None
    known = range(kind.size)
    asked = known if classes == "all" else numbers(classes, "--classes", int)
    if unknown := [label for label in asked if label not in known]:
        raise ValueError(
            f"--classes {classes}: there is no class {unknown[0]}; this prior has "
            f"0 to {len(known) - 1}"
        )
    return np.asarray(asked, np.int32)


def _read(condition: str | None, name: str, kind, size: tuple[int, int]) -> Any:
    """The files of --condition -> what the kind is told, [files, ...]."""
    from taming_jax.maps import Input

    if condition is None:
        return coordinates(*size)[None]
    if name == "low_resolution" or isinstance(kind, CodedMap | DirectMap):
        given = Input() if name == "low_resolution" else Input(*kind.input)
        return _read_maps(condition, given, size)
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
    return stacked if len(stacked) > 1 else stacked.popitem()[1]


def _read_maps(condition: str, given, size: tuple[int, int]) -> np.ndarray:
    """Pictures or maps, as large as what is drawn, as they are told.

    Raises:
      ValueError: for what cannot be read, and for a file of other proportions.
    """
    from taming_jax.data import list_images

    read = []
    for path in list_images(condition):
        read.append(sizes.read(path, size, given.kind))
        _check_proportions(path, size)
    return np.asarray(given.read(np.stack(read)))


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


def numbers(text: str, flag: str, kind) -> list:
    """`1,2,3` -> [1, 2, 3]; raises ValueError that names the flag."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{flag} {text}: numbers with commas between them") from None
