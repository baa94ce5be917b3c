"""Pictures as codes on disk: made once by a tokenizer, read in every epoch.

    Source of pictures --views, encode--> DIR/{train,val}/*.npy, DIR/codes.json
        --open_codes--> Source of codes, by the same indices

    codes.json       the tokenizer's fingerprint, the data's identity, which views
    codes-NNNNN.npy  uint8, uint16 or uint32 [n,V,h,w], read through a memory map
    label-NNNNN.npy  int32 [n], where the data have classes

Example i is picture i, so that training sees the examples, in the order, that it would
see if pictures were encoded on the way: a picture that could not be read has its row,
and is replaced as it would have been.

Legend: n pictures of one shard, V views of each: P places x 1, or x 2 with mirrors.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap

from taming_jax.data.pipeline import ordered_batches
from taming_jax.data.source import (
    BadRecords,
    Field,
    Source,
    UnreadableError,
    is_mirrored,
)
from taming_jax.units import Codes

SHARD = 1 << 16  # pictures in a file: ImageNet makes 20, of 320 MB for ten views

# Draws that lead to the first, the middle and the last of any number of places.
_FIRST, _MIDDLE, _LAST = 0.0, *np.nextafter(np.float32([0.5, 1]), np.float32(0))


class Views(NamedTuple):
    """How training's pictures are looked at; validation's by their centre alone.

    places: 1, the centre; or 5, the four corners as well.
    mirrored: whether each place is there mirrored, too.
    """

    places: int = 1
    mirrored: bool = False

    @property
    def count(self) -> int:
        """V."""
        return self.places * (2 if self.mirrored else 1)

    def chances(self) -> np.ndarray:
        """The draws that `Source.read` would have to be given: float32 [V, 3]."""
        places = [(_MIDDLE, _MIDDLE)]
        places += [(x, y) for y in (_FIRST, _LAST) for x in (_FIRST, _LAST)]
        mirrors = (_LAST, _FIRST) if self.mirrored else (_LAST,)
        views = [(*p, m) for p in places[: self.places] for m in mirrors]
        return np.array(views, np.float32)

    def choose(self, chances: np.ndarray) -> np.ndarray:
        """The view that draws [C, 3] lead to: int [C]; mirrored where pictures are."""
        place = (chances[:, 0] * self.places).astype(int)
        if not self.mirrored:
            return place
        return 2 * place + is_mirrored(chances)


def describe(
    sources: Mapping[str, Source],
    views: Views,
    *,
    fingerprint: str,
    codebook_size: int,
    grid: tuple[int, int],
    image_size: int,
) -> dict[str, Any]:
    """What codes.json says of codes that are not made yet, in JSON's types.

    Args:
      sources: the pictures of each split.
      views: of training.
      fingerprint: of the tokenizer.
      codebook_size: codes are below it.
      grid: h, w.
      image_size: in pixels.
    """
    about = {
        "fingerprint": fingerprint,
        "codebook_size": codebook_size,
        "grid": grid,
        "image_size": image_size,
        **views._asdict(),
        "shard": SHARD,
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


def read_description(directory: Path) -> dict[str, Any] | None:
    """What codes.json says; None where there is none."""
    path = directory / "codes.json"
    return json.loads(path.read_text()) if path.exists() else None


def write_codes(
    directory: Path,
    sources: Mapping[str, Source],
    about: Mapping[str, Any],
    encode: Callable[[np.ndarray], Codes],
    *,
    batch_size: int,
    progress: Callable[[int], None],
) -> None:
    """Writes the codes of all splits; never more than a few batches are in memory.

    Args:
      directory: which is there, and empty.
      sources: the pictures of each split.
      about: what `describe` gave.
      encode: pictures uint8 [B,S,S,3] -> codes [B,h,w].
      batch_size: B.
      progress: told after each batch how many more views are done.

    Raises:
      ValueError: if too many pictures cannot be read.
    """
    unreadable = {}
    for split, source in sources.items():
        (directory / split).mkdir()
        views = _views(about, split)
        batches = ordered_batches(
            source,
            batch_size=batch_size,
            views=views.chances() if split == "train" else None,
            keep=("image", *(("label",) if source.class_names else ())),
        )
        writer = _Writer(directory / split, source, about, views.count)
        for batch in batches:
            codes = np.asarray(encode(batch["image"]))
            progress(writer.add(codes, batch.get("label"), batch["mask"]))
        unreadable[split] = sorted(writer.unreadable)
    record = json.dumps({**about, "unreadable": unreadable}, indent=2)
    (directory / "codes.json").write_text(record + "\n")


def open_codes(
    directory: str | Path,
    split: str,
    *,
    fingerprint: str,
    identity: Mapping[str, Any],
    image_size: int,
) -> "CodesSource":
    """Opens one split of what `write_codes` has written.

    Args:
      directory: of codes.json.
      split: "train" or "val".
      fingerprint: of the tokenizer that the codes have to be of.
      identity: of the split's pictures.
      image_size: in pixels, what they were cut to.

    Raises:
      ValueError: if there are no codes, or those of another tokenizer, of other data or
        of another size; if they are damaged.
    """
    directory = Path(directory)
    about = read_description(directory)
    if about is None:
        raise ValueError(
            f"no codes in {directory}: `python -m taming_jax tokenize` writes them, or "
            "remove the directory to encode pictures while training"
        )
    wanted = {
        "tokenizer": (about["fingerprint"], fingerprint),
        "data set": (
            about["splits"][split]["data"],
            json.loads(json.dumps(identity)),
        ),
        "image_size": (about["image_size"], image_size),
    }
    for name, (there, asked) in wanted.items():
        if there != asked:
            raise ValueError(
                f"the codes in {directory} are of another {name}: {there}, and now it "
                f"is {asked}; remove the directory, then tokenize again or go without"
            )
    return CodesSource(directory, split, about)


class CodesSource:
    """Codes of one split, a `Source`: codes int32 [h,w], and label where there are."""

    chunk = 1024  # so many are read in the time that a call through tf.data takes

    def __init__(self, directory: Path, split: str, about: Mapping[str, Any]):
        about_split = about["splits"][split]
        self.class_names = tuple(about_split["class_names"])
        self.identity = about_split["data"]
        self.example_spec = {"codes": Field("int32", tuple(about["grid"]))}
        if self.class_names:
            self.example_spec["label"] = Field("int32", ())
        self._views = _views(about, split)
        self.chances = (
            *(("across",) if self._views.places > 1 else ()),
            *(("mirror",) if self._views.mirrored else ()),
        )
        self._count, self._shard = about_split["pictures"], about["shard"]
        self._unreadable = frozenset(about["unreadable"][split])
        self._arrays = {
            name: _open_shards(directory / split, name, self._count)
            for name in self.example_spec
        }
        self.bad = BadRecords(self._count, share=1.0)  # they were counted when read

    def __len__(self) -> int:
        return self._count

    def read(
        self, indices: np.ndarray, chances: np.ndarray | None, keep: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """As `Source.read`; draws choose the view, and without them it is the first."""
        if lost := self._unreadable.intersection(indices.tolist()):
            reason = "it could not be read when the codes were made"
            raise UnreadableError(min(lost), f"picture {min(lost)}", reason)
        batch = {}
        if "codes" in keep:
            views = 0 if chances is None else self._views.choose(chances)
            views = np.broadcast_to(views, indices.shape)
            batch["codes"] = self._gather("codes", zip(indices, views, strict=True))
        if "label" in keep:
            batch["label"] = self._gather("label", zip(indices))
        return {name: batch[name] for name in keep}

    def _gather(self, name: str, places) -> np.ndarray:
        shards, size = self._arrays[name], self._shard
        rows = [shards[i // size][(i % size, *view)] for i, *view in places]
        return np.stack(rows).astype(np.int32)


class _Writer:
    """Puts the rows of `ordered_batches` where they belong."""

    def __init__(self, directory: Path, source: Source, about: Mapping, views: int):
        count, self._views = len(source), views
        dtype = np.min_scalar_type(about["codebook_size"] - 1)
        shape = (views, *about["grid"])
        self._codes = _create_shards(directory, "codes", count, shape, dtype)
        self._labels = None
        if source.class_names:
            self._labels = _create_shards(directory, "label", count, (), np.int32)
        self._total, self._done = count * views, 0
        self.unreadable: set[int] = set()

    def add(self, codes: np.ndarray, labels, mask: np.ndarray) -> int:
        """Takes the next batch; returns how many of its rows are not padding."""
        rows = min(len(codes), self._total - self._done)
        for row in range(rows):
            picture, view = divmod(self._done + row, self._views)
            if not mask[row]:
                self.unreadable.add(picture)
                continue
            shard, place = divmod(picture, SHARD)
            self._codes[shard][place, view] = codes[row]
            if labels is not None:
                self._labels[shard][place] = labels[row]
        self._done += rows
        return rows


def _views(about: Mapping[str, Any], split: str) -> Views:
    return Views(about["places"], about["mirrored"]) if split == "train" else Views()


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


def _open_shards(directory: Path, name: str, count: int) -> list[np.ndarray]:
    """What `_create_shards` made, whole."""
    paths = sorted(directory.glob(f"{name}-*.npy"))
    try:
        shards = [np.asarray(np.load(path, mmap_mode="r")) for path in paths]
    except (ValueError, EOFError) as error:
        raise ValueError(f"{_damaged(directory)}: {error}") from error
    if (there := sum(len(shard) for shard in shards)) != count:
        raise ValueError(f"{_damaged(directory)}: {there} of {count} {name} are there")
    return shards


def _damaged(directory: Path) -> str:
    return f"the codes in {directory} are damaged: remove them and tokenize again"
