"""What `sample` is asked for, from the command line and from files.

--classes 0,3 -> labels;  --condition FILE|DIR -> maps, small pictures, objects

One file is one condition. A map is a picture, as `reconstruct` reads and writes it, and
so is a small picture; objects and keypoints are JSON with the entries of an example:
{"boxes": [[x0, y0, x1, y1], ...], "box_classes": [3, ...]} or {"keypoints": ...}.
"""

import json
from typing import Any

import jax
import numpy as np
from etils import epath

from taming_jax.cli import sizes
from taming_jax.conditions.direct_maps import DirectMap
from taming_jax.conditions.kinds import CodedMap


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
    shape = shape or prior.grid
    kinds = dict(prior.vocabulary.told)
    if not kinds and classes != "all":
        raise ValueError(
            f"--classes {classes}: this prior is unconditional, leave it out"
        )
    labels = _labels(classes, kinds.pop("label", None))
    if not kinds and condition is not None and prior.condition_vqgan is not None:
        maps = _read_maps(condition, prior.condition_vqgan.input, prior, shape)
        return {prior.told: maps[_rows(len(maps), pictures)]}
    if not kinds:
        if condition is not None:
            raise ValueError(
                f"--condition {condition}: this prior is told {prior.told}, leave it "
                "out"
            )
        each = np.zeros(1, np.int32) if labels is None else labels
        return np.tile(each, pictures)
    if condition is None or len(kinds) > 1:
        wanted = " and ".join(kinds)
        raise ValueError(
            f"this prior is told {wanted}: "
            + ("give --condition FILE|DIR" if len(kinds) == 1 else "use load_prior")
        )
    ((name, kind),) = kinds.items()
    asked = _read(condition, name, kind, prior, shape)
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


def _read(condition: str, name: str, kind, prior, shape) -> Any:
    """The files of --condition -> what the kind is told, [files, ...]."""
    from taming_jax.maps import Input

    if name == "low_resolution" or isinstance(kind, CodedMap | DirectMap):
        given = Input() if name == "low_resolution" else Input(*kind.input)
        return _read_maps(condition, given, prior, shape)
    place = epath.Path(condition).expanduser()
    paths = sorted(place.glob("*.json")) if place.is_dir() else [place]
    if not paths or not all(path.exists() for path in paths):
        raise ValueError(f"--condition {condition}: there is no .json of {name}")
    found = [_entries(path, kind) for path in paths]
    most = max(len(entry) for entries in found for entry in entries.values())
    stacked = {
        entry: np.stack([_filled(entries[entry], most, entry) for entries in found])
        for entry in kind.entries
    }
    return stacked if len(kind.entries) > 1 else stacked[kind.entries[0]]


def _read_maps(condition: str, given, prior, shape) -> np.ndarray:
    """Pictures or maps, as large as what is drawn, as they are told."""
    from taming_jax.data import list_images

    stride = prior.tokenizer().stride
    size = shape[0] * stride, shape[1] * stride
    read = [sizes.read(path, size, given.kind) for path in list_images(condition)]
    return np.asarray(given.read(np.stack(read)))


def _entries(path, kind) -> dict[str, np.ndarray]:
    try:
        given = json.loads(path.read_text())
        return {entry: np.asarray(given[entry]) for entry in kind.entries}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): give JSON with {', '.join(kind.entries)}"
        ) from error


def _filled(entry: np.ndarray, length: int, name: str) -> np.ndarray:
    """As many objects in every file: those that are missing are none."""
    wider = [(0, length - len(entry))] + [(0, 0)] * (entry.ndim - 1)
    nothing = -1 if name == "box_classes" else 0
    return np.pad(entry, wider, constant_values=nothing)


def numbers(text: str, flag: str, kind) -> list:
    """`1,2,3` -> [1, 2, 3]; raises ValueError that names the flag."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{flag} {text}: numbers with commas between them") from None
