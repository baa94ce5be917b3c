"""Writes the codes of pictures, in the form that `codes` reads.

    pictures --views--> uint8 [B,S,S,3] --encode--> [B,h,w] --> DIR/SPLIT/*.npy
    and maps, if a condition is told by them, in the same views, likewise
    and what other conditions read of examples, or make of them

Files have their full size from the start and are filled through a memory map; what
could not be read stays zero and is listed in codes.json, which comes last. What goes
into a bucket is written on this machine first.

Legend: V views of each picture, S pixels, h, w codes.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from etils import epath
from numpy.lib.format import open_memmap

from taming_jax.data.codes import NOTHING, Views, views_of
from taming_jax.data.pipeline import ordered_batches
from taming_jax.data.source import Source
from taming_jax.files import in_bucket, write_json
from taming_jax.units import Codes

SHARD = 1 << 16  # pictures in a file: ImageNet makes 20, of 335 MB for ten views


def describe(
    sources: Mapping[str, Source],
    views: Views,
    *,
    fingerprint: str,
    codebook_size: int,
    grid: tuple[int, int],
    image_size: int,
    condition: Mapping[str, Any] | None = None,
    told: Mapping[str, Any] = NOTHING,
) -> dict[str, Any]:
    """What codes.json says of codes that are not made yet, in JSON's types.

    Args:
      sources: the pictures of each split.
      views: of training.
      fingerprint: of the tokenizer.
      codebook_size: codes are below it.
      grid: h, w.
      image_size: in pixels.
      condition: of the codes of maps: kind, side (in pixels), fingerprint,
        codebook_size, grid; None: there are none.
      told: of each field that other conditions read dtype and shape, and what else
        tells it from others.
    """
    about = {
        "fingerprint": fingerprint,
        "codebook_size": codebook_size,
        "grid": grid,
        "image_size": image_size,
        **views._asdict(),
        "shard": SHARD,
        **({"condition": condition} if condition else {}),
        **({"told": told} if told else {}),
        "splits": {
            split: {
                "data": source.identity,
                "pictures": len(source),
                "class_names": source.class_names,
            }
            for split, source in sources.items()
        },
    }
    return json.loads(json.dumps(about))


def write_codes(
    directory: str | PurePath,
    sources: Mapping[str, Source],
    about: Mapping[str, Any],
    encode: Callable[[np.ndarray], Codes],
    encode_condition: Callable[[np.ndarray], Codes] | None = None,
    *,
    batch_size: int,
    read: Sequence[str] = (),
    tell: Callable[[Mapping], Mapping[str, Any]] | None = None,
    progress: Callable[[int], None],
) -> None:
    """Writes the codes of all splits; never more than a few batches are in memory.

    Args:
      directory: which is there, and empty.
      sources: the pictures of each split.
      about: what `describe` gave.
      encode: pictures uint8 [B,S,S,3] -> codes [B,h,w].
      encode_condition: maps, as examples have them -> their codes; where `about` says
        that there are some.
      batch_size: B.
      read: entries of examples that `tell` takes.
      tell: these [B, ...], and "index" -> the fields that `about` says other
        conditions read.
      progress: told after each batch how many more views are done.

    Raises:
      ValueError: if too many pictures cannot be read.
    """
    directory = epath.Path(directory)
    if in_bucket(directory):
        with tempfile.TemporaryDirectory() as here:
            write_codes(
                here, sources, about, encode, encode_condition,
                batch_size=batch_size, read=read, tell=tell, progress=progress,
            )  # fmt: skip
            _copy(epath.Path(here), directory)
        return
    unreadable, kind = {}, about.get("condition", {}).get("kind")
    for split, source in sources.items():
        (directory / split).mkdir()
        views = views_of(about, split)
        keep = ["image", "index", *([kind] if kind else []), *read]
        keep += ["label"] if source.class_names else []
        batches = ordered_batches(
            source,
            batch_size=batch_size,
            views=views.chances() if split == "train" else None,
            keep=tuple(dict.fromkeys(keep)),
        )
        writer = _Writer(directory / split, source, about, views.count)
        for batch in batches:
            codes = {"codes": np.asarray(encode(batch["image"]))}
            if kind:
                codes["condition_codes"] = np.asarray(encode_condition(batch[kind]))
            if tell is not None:
                codes |= {k: np.asarray(v) for k, v in tell(batch).items()}
            progress(writer.add(codes, batch.get("label"), batch["mask"]))
        unreadable[split] = sorted(writer.unreadable)
    write_json(directory / "codes.json", {**about, "unreadable": unreadable})


def _copy(here: epath.Path, directory: epath.Path) -> None:
    """Copies the codes; codes.json, without which there are none, comes last."""
    for path in sorted(here.glob("*/*.npy")):
        (directory / path.parent.name).mkdir(parents=True, exist_ok=True)
        path.copy(directory / path.parent.name / path.name)
    (here / "codes.json").copy(directory / "codes.json")


class _Writer:
    """Puts the rows of `ordered_batches` where they belong."""

    def __init__(self, directory: Path, source: Source, about: Mapping, views: int):
        count, self._views = len(source), views
        parts = {"codes": about}
        if "condition" in about:
            parts["condition_codes"] = about["condition"]
        forms = {
            name: (np.min_scalar_type(part["codebook_size"] - 1), part["grid"])
            for name, part in parts.items()
        }
        for field, how in about.get("told", {}).items():
            forms[field] = how["dtype"], how["shape"]
        self._codes = {
            name: _create_shards(directory, name, count, (views, *shape), dtype)
            for name, (dtype, shape) in forms.items()
        }
        self._labels = None
        if source.class_names:
            self._labels = _create_shards(directory, "label", count, (), np.int32)
        self._total, self._done = count * views, 0
        self.unreadable: set[int] = set()

    def add(self, codes: Mapping[str, np.ndarray], labels, mask: np.ndarray) -> int:
        """Takes the next batch; returns how many of its rows are not padding."""
        rows = min(len(mask), self._total - self._done)
        for row in range(rows):
            picture, view = divmod(self._done + row, self._views)
            if not mask[row]:
                self.unreadable.add(picture)
                continue
            shard, place = divmod(picture, SHARD)
            for name, part in codes.items():
                self._codes[name][shard][place, view] = part[row]
            if labels is not None:
                self._labels[shard][place] = labels[row]
        self._done += rows
        return rows


def _create_shards(directory: Path, name: str, count: int, shape, dtype) -> list:
    """Arrays [n, *shape] of zeros, each in a file, n together `count`."""
    return [
        open_memmap(
            directory / f"{name}-{start // SHARD:05}.npy",
            mode="w+",
            dtype=dtype,
            shape=(min(SHARD, count - start), *shape),
        )
        for start in range(0, count, SHARD)
    ]
