"""A source of encoded pictures, wherever they are stored, and of maps beside them.

    index --store.fetch--> bytes, label --decode_square--> uint8 [S,S,3]
    index --maps[kind].fetch--> bytes   --decode_square--> [S,S], in the same view
    and where in the picture that view lies: coordinates float32 [S,S] in [0, 1)

Without maps the same file is read as what is asked for: a picture, or a map of one
channel. Folders, lists and record files differ in their stores alone.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import numpy as np

from taming_jax.data.decoding import coordinates, decode_square, reason, upright_size
from taming_jax.data.source import BadRecords, Field, UnreadableError, is_mirrored

CROPS = ("random", "center")
NO_MAPS: Mapping = MappingProxyType({})


class Store(Protocol):
    """Encoded pictures by index.

    Attributes:
      class_names: what label i is called; empty if there are no labels.
      identity: as `Source.identity`.
    """

    class_names: Sequence[str]
    identity: Mapping[str, object]

    def __len__(self) -> int:
        """The number of pictures."""

    def name(self, index: int) -> str:
        """What to call a picture when it cannot be read."""

    def fetch(self, index: int) -> tuple[bytes, int]:
        """The file's bytes and its label (-1 without labels); raises if it cannot."""


class EncodedSource:
    """Square pictures out of a store; a `Source`.

    Args:
      store: the pictures.
      maps: of the pictures, by kind, in the same order; none: each file is read as a
        picture or as a map.
      image_size: S, to which the shortest side is resized.
      crop: in training, "random" or "center"; evaluation always takes the centre.
      flip: whether training mirrors every other picture.
      zoom: of random crops, see `decode_square`: 1 slides the largest square along the
        longer side; above 1 a smaller one, LlamaGen's 1.1 for example, both ways.
      max_bad_share: more than this share of unreadable pictures stops a run.
    """

    chunk = 1
    region_names = ()

    def __init__(
        self,
        store: Store,
        maps: Mapping[str, Store] = NO_MAPS,
        *,
        image_size: int,
        crop: str,
        flip: bool,
        zoom: float,
        max_bad_share: float,
    ):
        if crop not in CROPS:
            raise ValueError(
                f"data.crop is {crop!r}; there are {', '.join(CROPS)}: choose one"
            )
        if zoom < 1 or (zoom > 1 and crop != "random"):
            raise ValueError(
                f"data.zoom is {zoom} and data.crop {crop!r}; a zoom of 1 or more says "
                "how far random crops move: set data.zoom=1.0, or data.crop='random'"
            )
        self._stores, self._size = {"image": store, **maps}, image_size
        self._random, self._flip, self._zoom = crop == "random", flip, zoom
        self.chances = (*(("across", "down") * self._random), *(("mirror",) * flip))
        self.class_names = store.class_names
        self.identity = dict(store.identity)
        if maps:
            digests = {kind: those.identity["digest"] for kind, those in maps.items()}
            self.identity["maps"] = digests
        square = (image_size, image_size)
        spec = {
            "image": Field("uint8", (*square, 3)),
            "segmentation": Field("int32", square),
            "depth": Field("float32", square),
            "edges": Field("float32", square),
        }
        self.one_of = () if maps else tuple(spec)
        self.example_spec = {kind: spec[kind] for kind in self.one_of or self._stores}
        self.example_spec["coordinates"] = Field("float32", square)
        if self.class_names:
            self.example_spec["label"] = Field("int32", ())
        self.bad = BadRecords(len(store), max_bad_share)

    def __len__(self) -> int:
        return len(self._stores["image"])

    def read(
        self, indices: np.ndarray, chances: np.ndarray | None, keep: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """As `Source.read`; maps of another size than their picture are unreadable."""
        batch = {name: [] for name in keep}
        for row, index in enumerate(indices):
            view = self._view(None if chances is None else chances[row])
            for name, value in self._example(int(index), view, keep):
                batch[name].append(value)
        return {name: np.stack(rows) for name, rows in batch.items()}

    def _example(self, index: int, view, keep: Sequence[str]):
        """Yields (name, value) of each entry; `view` is what `_view` gives."""
        fetched, size = {}, None
        try:
            for name in keep:
                which = name if name in self._stores else "image"
                store = self._stores[which]
                if which not in fetched:
                    fetched[which] = store.fetch(index)
                encoded, label = fetched[which]
                if name == "label":
                    yield name, np.int32(label)
                    continue
                if name == "coordinates":
                    yield name, coordinates(encoded, self._size, *view)
                    continue
                yield name, decode_square(encoded, self._size, *view, kind=name)
                size = _same_size(size, encoded)
        except Exception as error:
            name = store.name(index)
            raise UnreadableError(index, name, reason(error)) from error

    def _view(self, chances: np.ndarray | None):
        """Place, mirroring and zoom of a picture, as `decode_square` takes them."""
        if chances is None:
            return None, False, 1.0
        place = tuple(chances[:2]) if self._random else None
        return place, self._flip and is_mirrored(chances), self._zoom


def _same_size(size: tuple[int, int] | None, encoded: bytes) -> tuple[int, int]:
    """The size of the file; ValueError if it is not that of the one before."""
    own = upright_size(encoded)
    if size not in (None, own):
        raise ValueError(
            f"it has {own[0]} x {own[1]} pixels, and the picture or map that goes with "
            f"it {size[0]} x {size[1]}"
        )
    return own
