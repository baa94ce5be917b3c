"""The weights of LPIPS in a file: where it lies, how it is read and written.

A .npz of float32 arrays under the paths of `models.perceptual`'s tree, and one JSON
string that says what the file is and where the numbers came from:

    vgg/conv1_1/kernel [3,3,3,64]   vgg/conv1_1/bias [64]   ...   heads/4 [512]
    metadata {"format": "taming_jax.perceptual", "version": 1, "source": ...}
"""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from taming_jax.files import whole_file
from taming_jax.models.perceptual import STAGES
from taming_jax.user_cache import user_cache

FORMAT = {"format": "taming_jax.perceptual", "version": 1}


def load_perceptual(path: str | os.PathLike | None = None) -> dict:
    """Read the weights for `models.perceptual.lpips`; without a path, from the cache.

    Raises ValueError, in one line, where there is no such file or it is another kind
    of file.
    """
    path = epath.Path(path or default_path())
    if not path.exists():
        raise ValueError(
            f"no perceptual weights at {path}: convert torchvision's VGG16 and the "
            "VGG heads of LPIPS v0.1 to a file there, give its path as "
            "config.vqgan.perceptual_weights, or train without them by "
            "config.vqgan.perceptual_weight=0"
        )
    try:
        params, metadata = _read(path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(_other_kind(path, "it cannot be read as ours")) from error
    if FORMAT.items() - metadata.items():
        raise ValueError(_other_kind(path, f"its metadata are {metadata}"))
    if problem := _problem(params):
        raise ValueError(_other_kind(path, problem))
    return params


def save_perceptual(path: str | os.PathLike, params: dict, source: str = "") -> None:
    """Write the weights to `path`, whole or not at all; `source`: whence they are."""
    if problem := _problem(params):
        raise ValueError(f"these are no weights of LPIPS: {problem}")
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = {
        name: np.asarray(array, np.float32)
        for name, array in flatten_dict(params, sep="/").items()
    }
    with whole_file(path) as file:
        np.savez(file, metadata=json.dumps(FORMAT | {"source": source}), **flat)


def default_path() -> Path:
    """Return where the weights are looked for: in the user's cache directory."""
    return user_cache() / "perceptual.npz"


def _read(path: epath.Path) -> tuple[dict, dict]:
    """Return the file's tree of arrays and its metadata; runs nothing it contains."""
    file = io.BytesIO(path.read_bytes())
    if not zipfile.is_zipfile(file):
        raise zipfile.BadZipFile
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        flat = {name: arrays[name] for name in arrays.files}
    metadata = json.loads(str(flat.pop("metadata")))
    return unflatten_dict(flat, sep="/"), metadata


def _problem(params: dict) -> str | None:
    """What is wrong with the tree: a name that is missing or too many, or a shape."""
    shapes = {k: np.shape(v) for k, v in flatten_dict(params, sep="/").items()}
    expected = _shapes([shapes.get(f"vgg/{names[-1]}/bias", (0,)) for names in STAGES])
    for name in sorted(shapes.keys() | expected.keys()):
        if shapes.get(name) != expected.get(name):
            return f"{name} is {shapes.get(name)}, not {expected.get(name)}"
    return None


def _shapes(widths: list[tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Every name and shape there must be, given the width [F] of each stage."""
    shapes, before = {}, (3,)
    for stage, (names, width) in enumerate(zip(STAGES, widths, strict=True)):
        shapes[f"heads/{stage}"] = width
        for name in names:
            shapes[f"vgg/{name}/kernel"] = (3, 3, *before, *width)
            shapes[f"vgg/{name}/bias"] = before = width
    return shapes


def _other_kind(path: epath.Path, reason: str) -> str:
    return (
        f"{path} does not hold perceptual weights: {reason}; give another file as "
        "config.vqgan.perceptual_weights, or remove this one"
    )
