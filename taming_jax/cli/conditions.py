"""What `sample` is asked for, from the command line and from files.

--classes 0,3 -> labels;  --condition FILE|DIR -> maps, small pictures, objects

One file is one condition. A map is a picture, as `reconstruct` reads and writes it, and
so is a small picture; objects and keypoints are JSON with the entries of an example:
{"boxes": [[x0, y0, x1, y1], ...], "box_classes": [3, ...]} or {"keypoints": ...}; a
prior that is told crops reads "crop": [x0, y0, x1, y1], too, without which all is seen.
All files are read and checked before anything is drawn.
"""

from typing import Any

import jax
import numpy as np

from taming_jax.cli.condition_files import read_entries, read_maps
from taming_jax.conditions.coordinates import coordinates
from taming_jax.conditions.direct import Coordinates
from taming_jax.conditions.direct_maps import DirectMap
from taming_jax.conditions.kinds import CodedMap
from taming_jax.windows import Windows


def asked_for(
    classes: str,
    condition: str | None,
    prior,
    *,
    shape: tuple[int, int] | None = None,
    windows: Windows | None = None,
    pictures: int = 1,
) -> Any:
    """What is drawn: labels int32 [G], or a dict by conditions of [G, ...].

    Of labels together with another condition, each class is asked for of each file.

    Args:
      classes: as --classes has them.
      condition: the files of --condition.
      prior: who is told.
      shape: (h, w) of the codes; maps are read as large; None: the prior's own.
      windows: by which they are drawn; None: at once.
      pictures: how many there are to be completed, one after the other. Each is asked
        for all labels; it goes with the file in its place, or all with the only one.

    Raises:
      ValueError: for what this prior is not or cannot be told, or what cannot be read;
        it names the file.
    """
    size = tuple(side * prior.tokenizer().stride for side in shape or prior.grid)
    kinds = dict(prior.vocabulary.told)
    as_tokens = prior.config["prior"].get("condition") == "tokens"
    if not kinds and classes != "all":
        told = f"told {prior.told}" if as_tokens else "unconditional"
        raise ValueError(f"--classes {classes}: this prior is {told}, leave it out")
    labels = _labels(classes, kinds.pop("label", None))
    if as_tokens:
        told = _published(condition, prior, size)
        return {prior.told: told[_rows(len(told), pictures)]}
    if not kinds:
        if condition is not None:
            told = "unconditional" if labels is None else "told classes"
            raise ValueError(
                f"--condition {condition}: this prior is {told}, leave it out"
            )
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
    asked = _read(condition, name, kind, size, windows)
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


def _published(condition: str | None, prior, size: tuple[int, int]) -> np.ndarray:
    """What a published prior that is told tokens is told, [files, ...].

    Maps, where their tokenizer came along; coordinates are those of a whole picture.

    Raises:
      ValueError: for what no file can say; it says where that goes.
    """
    from taming_jax.pretrained.told_by import missing

    tokenizer, steps = prior.condition_vqgan, prior.about.get("steps")
    if tokenizer is not None and condition is not None:
        return read_maps(
            condition, tokenizer.input, size, tokenizer.module.image_channels
        )
    if steps and condition is None:
        kind = Coordinates(size[0], prior.tokenizer().stride, steps, one=False)
        told = kind.tokens(coordinates(*size)[None])
        return np.asarray(told).reshape(1, *(side // kind.stride for side in size))
    if tokenizer is not None:
        raise ValueError(f"this prior is told {prior.told}: give --condition FILE|DIR")
    reason = missing(prior) or (
        f"this prior is told {prior.told} as tokens, which no file has: give them to "
        "load_prior(...).sample(key, tokens), see docs/priors.md"
        + ("; without --condition they are those of a whole picture" if steps else "")
    )
    raise ValueError(f"--condition {condition}: {reason}" if condition else reason)


def _read(
    condition: str | None,
    name: str,
    kind,
    size: tuple[int, int],
    windows: Windows | None,
) -> Any:
    """The files of --condition -> what the kind is told, [files, ...]."""
    from taming_jax.maps import Input

    if condition is None:
        return coordinates(*size)[None]
    if name == "low_resolution":
        return read_maps(condition, Input(), size)
    if isinstance(kind, CodedMap | DirectMap):
        return read_maps(condition, Input(*kind.input), size, kind.channels)
    return read_entries(condition, name, kind, size, windows)


def numbers(text: str, flag: str, kind) -> list:
    """`1,2,3` -> [1, 2, 3]; raises ValueError that names the flag."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{flag} {text}: numbers with commas between them") from None
