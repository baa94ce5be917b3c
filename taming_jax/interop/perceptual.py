"""The weights of LPIPS in a file: where they come from, how it is read and written.

    torchvision's VGG16, the heads of LPIPS v0.1 --convert--> FILE.npz --load--> params

A .npz of float32 arrays under the paths of `models.perceptual`'s tree, and one JSON
string that says what the file is and where the numbers came from:

    vgg/conv1_1/kernel [3,3,3,64]   vgg/conv1_1/bias [64]   ...   heads/4 [512]
    metadata {"format": "taming_jax.perceptual", "version": 1, "source": ...}
"""

import contextlib
import fcntl
import io
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from taming_jax.files import whole_file
from taming_jax.interop.checkpoint import open_checkpoint
from taming_jax.interop.fetch import Published, fetch
from taming_jax.interop.names import PERCEPTUAL
from taming_jax.interop.tables import Row, Table, to_ours
from taming_jax.models.perceptual import STAGES, shapes_of
from taming_jax.user_cache import user_cache

FORMAT = {"format": "taming_jax.perceptual", "version": 1}

# 553 MB, of which 59 are kept, and 7 kB.
VGG16 = Published(
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
)
HEADS = Published(
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/"
    "lpips/weights/v0.1/vgg.pth",
    "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
)


def load_perceptual(path: str | os.PathLike | None = None) -> dict:
    """Read the weights for `models.perceptual.lpips`.

    Without a path they are the user's cache's, and fetched into it the first time.

    Raises ValueError, in one line, where they are not to be had or the file is of
    another kind.
    """
    if path is None:
        _fetch_into(default_path())
    path = epath.Path(path or default_path())
    if not path.exists():
        raise ValueError(_not_there(path, "there is no such file"))
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


def convert_perceptual(
    vgg: str | os.PathLike, heads: str | os.PathLike, output: str | os.PathLike
) -> None:
    """Write the weights out of two published files.

    Args:
      vgg: torchvision's `vgg16-397923af.pth`, or another file with its names.
      heads: `weights/v0.1/vgg.pth` of LPIPS.
      output: the .npz; what is there already is replaced.

    Raises ValueError, in one line, for files that are something else.
    """
    params = {
        **_converted(vgg, _FEATURES, "torchvision's VGG16"),
        **_converted(heads, _HEADS, "the VGG heads of LPIPS"),
    }
    names = " and ".join(Path(file).name for file in (vgg, heads))
    save_perceptual(output, params, source=f"converted from {names}")


def default_path() -> Path:
    """Return where the weights are looked for: in the user's cache directory."""
    return user_cache() / "perceptual.npz"


def _named(prefix: str) -> tuple[Row, ...]:
    return tuple(row for row in PERCEPTUAL if (row.ours or "").startswith(prefix))


# Torchvision counts VGG16's layers as LPIPS does, but through all stages.
_FEATURES: Table = tuple(
    row._replace(theirs=re.sub(r"net\.slice\d", "features", row.theirs))
    for row in _named("vgg/")
)
_HEADS: Table = _named("heads/")
_UNUSED = "classifier."  # nine tenths of VGG16's file


def _converted(path: str | os.PathLike, table: Table, expected: str) -> dict:
    content = open_checkpoint(path)
    try:
        if not isinstance(content, Mapping):
            raise ValueError("it holds no tensors by name")
        used = {k: v for k, v in content.items() if not k.startswith(_UNUSED)}
        return to_ours(table, {name: tensor.read() for name, tensor in used.items()})
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not {expected}: {error}") from error


def _fetch_into(path: Path) -> None:
    """Fetches and converts the weights unless they are there: once, whoever asks."""
    if path.exists():
        return
    with _alone(path):
        if path.exists():
            return
        print(f"fetching the perceptual weights, once: {VGG16.address}", flush=True)
        try:
            with tempfile.TemporaryDirectory(dir=path.parent) as directory:
                files = [fetch(published, directory) for published in (HEADS, VGG16)]
                convert_perceptual(files[1], files[0], path)
        except OSError as error:
            reason = f"they cannot be fetched here ({error})"
            raise ValueError(_not_there(path, reason)) from error


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Only one process of this machine is in the block at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


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
    arrays = flatten_dict(params, sep="/")
    widths = [np.size(arrays.get(f"vgg/{names[-1]}/bias", ())) for names in STAGES]
    shapes, expected = (
        {name: np.shape(array) for name, array in flat.items()}
        for flat in (arrays, flatten_dict(shapes_of(widths), sep="/"))
    )
    for name in sorted(shapes.keys() | expected.keys()):
        if shapes.get(name) != expected.get(name):
            return f"{name} is {shapes.get(name)}, not {expected.get(name)}"
    return None


def _not_there(path: str | os.PathLike, reason: str) -> str:
    return (
        f"no perceptual weights at {path}: {reason}; make them by `python -m "
        "taming_jax convert perceptual VGG HEADS OUTPUT` from torchvision's VGG16 "
        f"({VGG16.name}) and the VGG heads of LPIPS v0.1, give the file's path as "
        "config.vqgan.perceptual_weights, or train without them by "
        "config.vqgan.perceptual_weight=0"
    )


def _other_kind(path: epath.Path, reason: str) -> str:
    return (
        f"{path} does not hold perceptual weights: {reason}; give another file as "
        "config.vqgan.perceptual_weights, or remove this one"
    )
