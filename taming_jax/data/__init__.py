"""From the `data` section of a configuration to batches on the host.

    config.data --open_source--> Source --train_batches, eval_batches--> dict of arrays

Importing this package imports no TensorFlow; asking it for batches does.
"""

import difflib
import inspect
from collections.abc import Mapping

from taming_jax.data.codes import open_codes
from taming_jax.data.decoding import read_file, read_image, read_square
from taming_jax.data.embedded import open_scenes, open_shapes
from taming_jax.data.folder import list_images, open_folder
from taming_jax.data.imagenet import open_imagenet
from taming_jax.data.pipeline import eval_batches, train_batches
from taming_jax.data.source import BadRecords, Field, Source

__all__ = [
    "DATASETS",
    "BadRecords",
    "Field",
    "Source",
    "eval_batches",
    "list_images",
    "open_codes",
    "open_source",
    "read_file",
    "read_image",
    "read_square",
    "train_batches",
]

DATASETS = {
    "shapes": open_shapes,
    "scenes": open_scenes,
    "folder": open_folder,
    "imagenet": open_imagenet,
}


def open_source(data: Mapping, split: str) -> Source:
    """Opens one split of the data set that a configuration names.

    Args:
      data: the configuration's `data`: `name` (a key of `DATASETS`), `train`, `val`,
        `image_size` (the side of the square pictures, in pixels), and what else the
        opener of that name takes.
      split: "train" or "val".

    Raises:
      ValueError: for an unknown name, key or split, and for data that are not there.
    """
    settings = dict(data)
    name = settings.pop("name", None)
    if name not in DATASETS:
        raise ValueError(
            f"data.name is {name!r}; there are {', '.join(DATASETS)}: choose one "
            "('folder' reads your own pictures)"
        )
    if split not in ("train", "val"):
        raise ValueError(f"split is {split!r}; it is 'train' or 'val'")
    opener = DATASETS[name]
    _check_keys(name, settings, inspect.signature(opener).parameters)
    size = settings["image_size"]
    if not isinstance(size, int) or size < 1:
        raise ValueError(
            f"data.image_size is {size!r}; it is the side of the pictures in pixels: "
            "set a positive integer, 256 for example"
        )
    return opener(split, **settings)


def _check_keys(name: str, settings: Mapping, parameters: Mapping) -> None:
    """Raises ValueError if a key is unknown or one that has no default is missing."""
    allowed = {key: p for key, p in parameters.items() if key != "split"}
    for key in settings:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            raise ValueError(
                f"data.{key} is not a key of {name!r}; it has {', '.join(allowed)}"
                + (f": did you mean data.{near[0]}?" if near else ": remove it")
            )
    needed = [key for key, p in allowed.items() if p.default is p.empty]
    if missing := [key for key in needed if key not in settings]:
        raise ValueError(
            f"data.{missing[0]} is missing; {name!r} needs {', '.join(needed)}: set it"
        )
