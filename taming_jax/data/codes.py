"""Pictures as codes on disk: made once by a tokenizer, read in every epoch.

    Source of pictures --views, encode--> DIR/{train,val}/*.npy, DIR/codes.json
        --open_codes--> Source of codes, by the same indices

    codes.json       the tokenizer's fingerprint, the data's identity, which views
    codes-NNNNN.npy  uint8, uint16 or uint32 [n,V,h,w], read through a memory map
                     (from a bucket, into memory: all of ImageNet's are 0.7 GB a view)
    condition_codes-NNNNN.npy  likewise, of the maps that a condition is told by, in
                     the same views; codes.json has its tokenizer's fingerprint, too
    FIELD-NNNNN.npy  likewise [n,V,...], what other conditions read: entries of examples
                     or tokens made of these; codes.json says what they are
    label-NNNNN.npy  int32 [n], where the data have classes

Example i is picture i, so that training sees the examples, in the order, that it would
see if pictures were encoded on the way: a picture that could not be read has its row,
and is replaced as it would have been.

Legend: n pictures of one shard, V views of each: P places x 1, or x 2 with mirrors.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from taming_jax.data.source import BadRecords, Field, UnreadableError, is_mirrored
from taming_jax.files import in_bucket, reached

# Draws that lead to the first, the middle and the last of any number of places.
_FIRST, _MIDDLE, _LAST = 0.0, *np.nextafter(np.float32([0.5, 1]), np.float32(0))


NOTHING: Mapping[str, Any] = MappingProxyType({})


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


def open_codes(
    directory: str | PurePath,
    split: str,
    *,
    fingerprint: str,
    identity: Mapping[str, Any],
    image_size: int,
    condition: Mapping[str, Any] | None = None,
    told: Mapping[str, Any] = NOTHING,
) -> "CodesSource":
    """Opens one split of what `codes_writer.write_codes` has written.

    Args:
      directory: of codes.json.
      split: "train" or "val".
      fingerprint: of the tokenizer that the codes have to be of.
      identity: of the split's pictures.
      image_size: in pixels, what they were cut to.
      condition: kind, side and fingerprint of the maps whose codes are read, too.
      told: the fields that other conditions read, as `describe` was given them.

    Raises:
      ValueError: if there are no codes, or those of another tokenizer, of other data or
        of another size, or without what conditions read; if they are damaged, or in a
        bucket that cannot be looked into.
    """
    directory = epath.Path(directory)
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
    if condition is not None:
        there = about.get("condition", {})
        there = {name: there.get(name) for name in condition}
        wanted["condition"] = (there, dict(condition))
    for name, (there, asked) in wanted.items():
        if there != asked:
            raise ValueError(
                f"the codes in {directory} are of another {name}: {there}, and now it "
                f"is {asked}; remove the directory, then tokenize again with this "
                "--config, or go without"
            )
    there = about.get("told", {})
    if lacking := [field for field in told if there.get(field) != told[field]]:
        raise ValueError(
            f"the codes in {directory} are without {', '.join(lacking)} as "
            "prior.condition asks for them: remove the directory, then tokenize again "
            "with this --config, or go without"
        )
    return CodesSource(directory, split, about)


def read_description(directory: str | PurePath) -> dict[str, Any] | None:
    """What codes.json says; None where there is none."""
    path = epath.Path(directory) / "codes.json"
    with reached(path, "the description of the codes"):
        return json.loads(path.read_text()) if path.exists() else None


def views_of(about: Mapping[str, Any], split: str) -> Views:
    """The views that a split has; validation's is one."""
    return Views(about["places"], about["mirrored"]) if split == "train" else Views()


class CodesSource:
    """Codes of one split, a `Source`: codes int32 [h,w], and what lies beside them."""

    chunk = 1024  # so many are read in the time that a call through tf.data takes
    region_names = ()
    one_of = ()

    def __init__(self, directory: epath.Path, split: str, about: Mapping[str, Any]):
        about_split = about["splits"][split]
        self.class_names = tuple(about_split["class_names"])
        self.identity = about_split["data"]
        self.example_spec = {"codes": Field("int32", tuple(about["grid"]))}
        if "condition" in about:
            grid = tuple(about["condition"]["grid"])
            self.example_spec["condition_codes"] = Field("int32", grid)
        for field, how in about.get("told", {}).items():
            dtype = "int32" if "of" in how else how["dtype"]
            self.example_spec[field] = Field(dtype, tuple(how["shape"]))
        if self.class_names:
            self.example_spec["label"] = Field("int32", ())
        self._views = views_of(about, split)
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
        views = 0 if chances is None else self._views.choose(chances)
        views = np.broadcast_to(views, indices.shape)
        for name in keep:
            has_views = name != "label"
            places = zip(indices, views, strict=True) if has_views else zip(indices)
            batch[name] = self._gather(name, places)
        return batch

    def _gather(self, name: str, places) -> np.ndarray:
        shards, size = self._arrays[name], self._shard
        rows = [shards[i // size][(i % size, *view)] for i, *view in places]
        return np.stack(rows).astype(self.example_spec[name].dtype)


def _open_shards(directory: epath.Path, name: str, count: int) -> list[np.ndarray]:
    """All files of a field, as maps of them; from a bucket, in memory."""
    paths = sorted(directory.glob(f"{name}-*.npy"))
    try:
        if in_bucket(directory):
            shards = [np.load(io.BytesIO(path.read_bytes())) for path in paths]
        else:
            shards = [np.asarray(np.load(path, mmap_mode="r")) for path in paths]
    except (ValueError, EOFError) as error:
        raise ValueError(f"{_damaged(directory)}: {error}") from error
    if (there := sum(len(shard) for shard in shards)) != count:
        raise ValueError(f"{_damaged(directory)}: {there} of {count} {name} are there")
    return shards


def _damaged(directory: epath.Path) -> str:
    return f"the codes in {directory} are damaged: remove them and tokenize again"
