"""Arrays in a .npz, one at a time: more than one of them is never in memory here.

    (name, array), ... --write--> file.npz --read--> {name: array}

numpy's own reader and writer hold all of them, or each twice.
"""

import contextlib
import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Any

import numpy as np
from etils import epath

from taming_jax.files import in_bucket, whole_file

# What the format holds, and what is worth to be held.
DTYPES = ("float16", "float32")
_PIECE = 2**18  # numbers that are converted at once


def write(path: str | PurePath, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes a .npz, whole or not at all, one array after the other."""
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)


def read(
    path: epath.Path, dtype=np.float32, put=lambda _, array: array
) -> dict[str, Any]:
    """The arrays of a .npz by name, floating ones in `dtype`.

    `put(name, array)` says what becomes of an array as soon as it is there. A file of
    this machine is read array by array. A bucket's is fetched whole, for each piece
    that it is asked for takes a while to come.
    """
    in_one = in_bucket(path)
    arrays = {}
    with io.BytesIO(path.read_bytes()) if in_one else path.open("rb") as file:
        with _undamaged(path):
            archive = zipfile.ZipFile(file)
        for entry in archive.namelist():
            with _undamaged(path):
                array = _read_array(archive, entry, dtype)
            name = entry.removesuffix(".npy")
            arrays[name] = put(name, array)
            del array  # before the next one is made
    return arrays


@contextlib.contextmanager
def _undamaged(path: epath.Path) -> Iterator[None]:
    """What goes wrong in the block is told as damage of this file."""
    try:
        yield
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is damaged: {error}; export the model again, or get another copy"
        ) from error


def _read_array(archive: zipfile.ZipFile, entry: str, dtype) -> np.ndarray:
    """One array; what is floating is converted piece by piece while it is read."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"{entry} is in version {version} of the format")
        shape, by_columns, kept = np.lib.format.read_array_header_1_0(file)
        if kept.hasobject:
            raise ValueError(f"{entry} holds no plain numbers")
        shape = shape[::-1] if by_columns else shape
        array = np.empty(shape, dtype if kept.kind == "f" else kept)
        flat = array.reshape(-1)
        for begin in range(0, flat.size, _PIECE):
            piece = flat[begin : begin + _PIECE]
            data = file.read(piece.size * kept.itemsize)
            piece[:] = np.frombuffer(data, kept, piece.size)
        file.read(1)  # the end, where the checksum is looked at
    return array.T if by_columns else array


def rounded(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    """An array in another precision; raises ValueError where that does not hold it."""
    if array.dtype.kind != "f":
        return array
    with np.errstate(over="ignore"):
        rounded = array.astype(dtype)
    if not np.isfinite(rounded).all():
        raise ValueError(
            f"{name} reaches {np.abs(array).max():g}, more than {dtype} holds; keep "
            "the weights as float32"
        )
    return rounded
