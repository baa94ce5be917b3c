"""`imagenet`: the 1000 classes of ILSVRC 2012, from its pictures or from TFDS.

    nXXXXXXXX/*.JPEG        --Files----┐
    TFDS `imagenet2012`     --Records--┴--> EncodedSource

A class is a synset; its label is the synset's rank among all in sorted order. Human
names come from `LOC_synset_mapping.txt`, which Kaggle's archive brings, if it lies in
the directory of the classes or in one of the four above it; otherwise the synsets are
the names.
"""

import os
import re
from pathlib import PurePath

from etils import epath

from taming_jax.data.encoded import EncodedSource, Store
from taming_jax.data.folder import split_pictures
from taming_jax.data.listing import Files, Found, find
from taming_jax.data.records import Records

# As the original does: the file is broken.
DROPPED = frozenset({"n06596364_9591.JPEG"})

_SYNSET = re.compile(r"n\d{8}")
_TFDS = "imagenet2012"


def open_imagenet(
    split: str,
    *,
    train: str,
    image_size: int,
    val: str | float | None = None,
    crop: str = "random",
    flip: bool = True,
    zoom: float = 1.0,
    max_bad_share: float = 0.05,
) -> EncodedSource:
    """Opens ImageNet.

    Args:
      split: "train" or "val".
      train: a directory with nXXXXXXXX/*.JPEG; or a split of TFDS, such as "train" or
        "train[:98%]", which the environment's TFDS_DATA_DIR holds if that is set.
      image_size: S, the side of the squares in pixels.
      val: likewise; for directories also as `open_folder` has it, for TFDS
        "validation" if it is None.
      crop: see `EncodedSource`.
      flip: see `EncodedSource`.
      zoom: see `EncodedSource`.
      max_bad_share: see `EncodedSource`.

    Raises:
      ValueError: as `open_folder`; for a directory without synsets; for a split that
        TFDS does not have, or not yet.
    """
    if _is_directory(train):
        store = _open_tree(split, train, val)
    else:
        store = _open_records(split, train if split == "train" else val or "validation")
    return EncodedSource(
        store,
        image_size=image_size,
        crop=crop,
        flip=flip,
        zoom=zoom,
        max_bad_share=max_bad_share,
    )


def _is_directory(train) -> bool:
    """Whether `train` is meant as a path; if not it is a split of TFDS."""
    return not isinstance(train, str) or "/" in train or epath.Path(train).exists()


def _open_tree(split: str, train, val) -> Store:
    found, training = split_pictures(split, train, val, _find_synsets)
    names = _human_names(training.root)
    class_names = [names.get(synset, synset) for synset in training.classes]
    return Files("imagenet", found, training.classes, class_names)


def _find_synsets(path: str | PurePath, key: str) -> Found:
    """The pictures of a directory (or list) that lie in directories named nXXXXXXXX."""
    found = find(path, key)
    parts = [name.split("/") for name in found.names]
    names = [
        "/".join(part)
        for part in parts
        if _SYNSET.fullmatch(part[0]) and part[-1] not in DROPPED
    ]
    if not names:
        below = {p[0] for p in parts if len(p) > 2 and _SYNSET.fullmatch(p[1])}
        nearer = ", ".join(f"{path}/{name}" for name in sorted(below))
        raise ValueError(
            f"{key} is {str(path)!r}, which has no pictures in directories nXXXXXXXX; "
            f"give the directory that holds those{nearer and f' ({nearer})'}, or "
            "set data.name to 'folder' for other pictures"
        )
    classes = tuple(sorted({name.split("/")[0] for name in names}))
    return found._replace(names=names, classes=classes)


def _human_names(root: epath.Path) -> dict[str, str]:
    """Synset -> name, "tench, Tinca tinca" for example; empty without the file."""
    above = [path for path in root.parents if not str(path).endswith("://")][:4]
    for directory in [root, *above]:
        mapping = directory / "LOC_synset_mapping.txt"
        if mapping.exists():
            lines = mapping.read_text().splitlines()
            pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
            return {pair[0]: pair[-1].strip() for pair in pairs}
    return {}


def _open_records(split: str, name: str) -> Records:
    """A split of TFDS `imagenet2012`, where it has been prepared."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "ImageNet's record files are read with TensorFlow Datasets, which is not "
            "installed: pip install 'taming_jax[train]', or give a directory"
        ) from error
    builder = tfds.builder(_TFDS, data_dir=os.environ.get("TFDS_DATA_DIR"))
    if not builder.is_prepared():
        raise ValueError(
            f"data.{split} is {name!r}, a split of TFDS {_TFDS}, which "
            f"{builder.data_path.parent.parent} does not have; prepare it there with "
            f"`tfds build {_TFDS} --file_format=array_record`, point TFDS_DATA_DIR to "
            "where it is, or give a directory with nXXXXXXXX/*.JPEG"
        )
    if not isinstance(name, str) or name.partition("[")[0] not in builder.info.splits:
        raise ValueError(
            f"data.{split} is {name!r}; TFDS {_TFDS} has "
            f"{', '.join(builder.info.splits)} here: give one of them or a part of it, "
            "'train[:98%]' for example, or a directory with nXXXXXXXX/*.JPEG"
        )
    return Records("imagenet", builder, name, DROPPED)
