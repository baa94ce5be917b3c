"""The data sets that need no files, `shapes` and `scenes`, as sources.

    index --(stream of the split)--> render(seed, indices, size, keep) -> examples

A picture is a function of (stream, index): the data set is the same in every run, on
every machine, and a split is a count of pictures. With a zoom, examples are crops of
pictures that are drawn so many times as large, and say where they lie in these:
coordinates float32 [S,S] in [0, 1), and crop float32 [4], x0, y0, x1, y1 in [0, 1].
Their boxes are those of the larger pictures, relative to them.
"""

import hashlib
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from taming_jax.data.source import BadRecords, Field

# Seeds of rendering: training and validation never show the same picture.
STREAMS = {"train": 0, "val": 1}


# What is cut out of a picture with a crop, and what the crop has of it as it is.
PIXELS = ("image", "segmentation", "depth", "edges")
OF_WHOLE = ("boxes", "box_classes")


class EmbeddedSource:
    """Pictures rendered on demand; a `Source`.

    Chance says where crops lie, and nothing else; without it they are in the middle.
    """

    one_of = ()

    def __init__(
        self,
        dataset: ModuleType,
        split: str,
        count: int,
        image_size: int,
        zoom: int = 1,
    ):
        self._dataset, self._seed = dataset, STREAMS[split]
        self._count, self._size, self._zoom = count, image_size, zoom
        self.chances = ("across", "down") if zoom > 1 else ()
        # Pictures drawn in one call, which share what a call of numpy costs.
        self.chunk = max(1, 32 // zoom**2)
        self.class_names = tuple(dataset.CLASSES) if zoom == 1 else ()
        self.region_names = ("background", *dataset.CLASSES)
        self.bad = BadRecords(count)
        side = {"H": image_size, "W": image_size}
        self.example_spec = {
            name: Field(entry.dtype, tuple(side.get(n, n) for n in entry.shape))
            for name, entry in dataset.EXAMPLE.items()
            if zoom == 1 or name in (*PIXELS, *OF_WHOLE)
        }
        if zoom > 1:
            square = (image_size, image_size)
            self.example_spec["coordinates"] = Field("float32", square)
            self.example_spec["crop"] = Field("float32", (4,))
        name = dataset.__name__.rpartition(".")[2]
        self.identity = {
            "name": name,
            "split": split,
            "pictures": count,
            "look": self._look(),
        }
        if zoom > 1:
            self.identity["zoom"] = zoom

    def __len__(self) -> int:
        return self._count

    def read(
        self, indices: np.ndarray, chances: np.ndarray | None, keep: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """As `Source.read`."""
        side, size = self._size * self._zoom, self._size
        places = ("coordinates", "crop")
        drawn = self._render(indices, side, [n for n in keep if n not in places])
        if self._zoom == 1:
            return drawn
        room = side - size + 1
        place = np.full((len(indices), 2), 0.5) if chances is None else chances[:, :2]
        corners = (place * room).astype(int)
        if "coordinates" in keep:
            whole = (np.arange(side**2) / side**2).astype(np.float32)
            drawn["coordinates"] = [whole.reshape(side, side)] * len(indices)
        ends = np.concatenate([corners, corners + size], axis=1)
        drawn["crop"] = ends.astype(np.float32) / np.float32(side)
        uncut = (*OF_WHOLE, "crop")
        return {
            name: drawn[name] if name in uncut else _cut(drawn[name], corners, size)
            for name in keep
        }

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


def open_scenes(
    split: str, *, train: int, val: int, image_size: int, zoom: int = 1
) -> EmbeddedSource:
    """`scenes`: several objects; `train` and `val` are counts of pictures.

    zoom: they are drawn so many times as large as the squares that are cut out of them,
        which have pictures and maps, say where they lie (coordinates, and as a box,
        crop), and have the boxes of the larger picture, relative to it; they have
        neither labels nor keypoints.
    """
    from taming_jax.data import scenes

    if not isinstance(zoom, int) or zoom < 1:
        raise ValueError(
            f"data.zoom is {zoom!r}; drawn scenes are a whole number of times as large "
            "as what is cut out of them: set data.zoom=1 for whole scenes, or 4"
        )
    return _open(scenes, split, {"train": train, "val": val}, image_size, zoom)


def _open(
    dataset, split: str, counts: dict[str, int], image_size: int, zoom: int = 1
) -> EmbeddedSource:
    count = counts[split]
    if not isinstance(count, int) or count < 1:
        raise ValueError(
            f"data.{split} is {count!r}; for data that are drawn it is a number of "
            f"pictures: set data.{split} to a positive integer, 1000 for example"
        )
    return EmbeddedSource(dataset, split, count, image_size, zoom)


def _cut(pictures: Sequence[np.ndarray], corners: np.ndarray, size: int) -> np.ndarray:
    """A square of each [B,H,W,...], from (left, top) in `corners` [B,2] on."""
    cut = [
        picture[top : top + size, left : left + size]
        for picture, (left, top) in zip(pictures, corners, strict=True)
    ]
    return np.stack(cut)
