"""The data sets that need no files, `shapes` and `scenes`, as sources.

    index --(stream of the split)--> render(seed, indices, size, keep) -> examples

A picture is a function of (stream, index): the data set is the same in every run, on
every machine, and a split is a count of pictures.
"""

import hashlib
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from taming_jax.data.source import BadRecords, Field

# Seeds of rendering: training and validation never show the same picture.
STREAMS = {"train": 0, "val": 1}


class EmbeddedSource:
    """Pictures rendered on demand; a `Source`. Chance plays no part in reading them."""

    chances = ()
    one_of = ()
    chunk = 32  # pictures drawn in one call, which share what a call of numpy costs

    def __init__(self, dataset: ModuleType, split: str, count: int, image_size: int):
        self._dataset, self._seed = dataset, STREAMS[split]
        self._count, self._size = count, image_size
        self.class_names = tuple(dataset.CLASSES)
        self.region_names = ("background", *self.class_names)
        self.bad = BadRecords(count)
        side = {"H": image_size, "W": image_size}
        self.example_spec = {
            name: Field(entry.dtype, tuple(side.get(n, n) for n in entry.shape))
            for name, entry in dataset.EXAMPLE.items()
        }
        name = dataset.__name__.rpartition(".")[2]
        self.identity = {
            "name": name,
            "split": split,
            "pictures": count,
            "look": self._look(),
        }

    def __len__(self) -> int:
        return self._count

    def read(
        self, indices: np.ndarray, chances: np.ndarray | None, keep: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """As `Source.read`; nothing is left to chance that is not the picture's own."""
        del chances
        return self._render(indices, self._size, tuple(keep))

    def _render(self, indices, size, keep) -> dict[str, np.ndarray]:
        return self._dataset.render(self._seed, indices, size, keep)

    def _look(self) -> str:
        """A digest of a few small pictures: it changes when the drawing does."""
        images = self._render(np.arange(4), 32, ("image",))["image"]
        return hashlib.blake2b(images.tobytes(), digest_size=8).hexdigest()


def open_shapes(split: str, *, train: int, val: int, image_size: int) -> EmbeddedSource:
    """`shapes`: one object of ten kinds; `train` and `val` are counts of pictures."""
    from taming_jax.data import shapes

    return _open(shapes, split, {"train": train, "val": val}, image_size)


def open_scenes(split: str, *, train: int, val: int, image_size: int) -> EmbeddedSource:
    """`scenes`: several objects; `train` and `val` are counts of pictures."""
    from taming_jax.data import scenes

    return _open(scenes, split, {"train": train, "val": val}, image_size)


def _open(dataset, split: str, counts: dict[str, int], image_size: int):
    count = counts[split]
    if not isinstance(count, int) or count < 1:
        raise ValueError(
            f"data.{split} is {count!r}; for data that are drawn it is a number of "
            f"pictures: set data.{split} to a positive integer, 1000 for example"
        )
    return EmbeddedSource(dataset, split, count, image_size)
