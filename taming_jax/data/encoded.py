"""A source of encoded pictures, wherever they are stored.

    index --store.fetch--> bytes, label --decode_square--> uint8 [S,S,3]

The same file is read as what is asked for: a picture, or a map of one channel. Folders,
lists and record files differ in their store alone.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from taming_jax.data.decoding import decode_square, reason
from taming_jax.data.source import BadRecords, Field, UnreadableError, is_mirrored

CROPS = ("random", "center")


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
        self._store, self._size = store, image_size
        self._random, self._flip, self._zoom = crop == "random", flip, zoom
        self.chances = (*(("across", "down") * self._random), *(("mirror",) * flip))
        self.class_names = store.class_names
        self.identity = store.identity
        square = (image_size, image_size)
        self.example_spec = {
            "image": Field("uint8", (*square, 3)),
            "segmentation": Field("int32", square),
            "depth": Field("float32", square),
            "edges": Field("float32", square),
        }
        if self.class_names:
            self.example_spec["label"] = Field("int32", ())
        self.bad = BadRecords(len(store), max_bad_share)

    def __len__(self) -> int:
        return len(self._store)

    def read(
        self, indices: np.ndarray, chances: np.ndarray | None, keep: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """As `Source.read`."""
        kinds = [name for name in keep if name != "label"]
        batch = {name: [] for name in keep}
        for row, index in enumerate(indices):
            try:
                encoded, label = self._store.fetch(index)
                view = self._view(None if chances is None else chances[row])
                for kind in kinds:
                    square = decode_square(encoded, self._size, *view, kind=kind)
                    batch[kind].append(square)
            except Exception as error:
                name = self._store.name(index)
                raise UnreadableError(int(index), name, reason(error)) from error
            if "label" in keep:
                batch["label"].append(np.int32(label))
        return {name: np.stack(rows) for name, rows in batch.items()}

    def _view(self, chances: np.ndarray | None):
        """Place, mirroring and zoom of a picture, as `decode_square` takes them."""
        if chances is None:
            return None, False, 1.0
        place = tuple(chances[:2]) if self._random else None
        return place, self._flip and is_mirrored(chances), self._zoom
