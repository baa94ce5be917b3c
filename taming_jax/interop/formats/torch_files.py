"""Files of torch.save, of both formats, read and written without torch.

    path --read_zip, read_legacy--> content, whose tensors are still in the file
    content --write_torch--> a file of the first format

    zip     NAME/data.pkl  NAME/data/0, 1, ...  NAME/byteorder  NAME/version
    legacy  pickles of: magic number, protocol, system, content, keys of the storages;
            then for each key, in that order, the number of elements and the elements

In both the content is a pickle in which tensors are calls of torch's functions, and
their storages are elsewhere: ("storage", class, key, device, number of elements).
"""

import math
import os
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from taming_jax.files import whole_file
from taming_jax.interop.formats import archives, pickles
from taming_jax.interop.formats.pickles import Global
from taming_jax.interop.formats.tensors import DTYPES, Extent, c_order, written
from taming_jax.interop.formats.torch_calls import CALLS, Storage

MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_KEY = 2**8  # letters of a storage's key; they are numbers
_OF_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8",
    "Bool": "bool", "ComplexFloat": "complex64", "ComplexDouble": "complex128",
    "Untyped": "uint8",
}  # fmt: skip
_STORAGE = re.compile(r"torch\.(?:cuda\.|storage\.)?(\w+)Storage")


def read_zip(path: Path) -> Any:
    """The content of a file as torch.save has written it since 2020.

    Raises:
      ValueError: if it is another archive, damaged, or what it holds does not fit.
    """
    entries = archives.entries(path)
    top = _top(entries)
    order = b"little"
    if f"{top}byteorder" in entries:
        order = entries[f"{top}byteorder"].read_all(16)
    if order not in (b"little", b"big"):
        raise ValueError(f"its order of bytes is {order!r}, neither little nor big")

    def persistent(identity: Any) -> Any:
        if _is_module(identity):
            return identity[1]
        dtype, key, count, *_ = _storage(identity)
        if f"{top}data/{key}" not in entries:
            raise ValueError(f"storage {key[:80]!r} is not in it")
        extent = entries[f"{top}data/{key}"]
        if dtype and count * dtype.itemsize != extent.size:
            raise ValueError(f"storage {key!r} has {extent.size} bytes, not {count} x "
                             f"{dtype}")  # fmt: skip
        return Storage(dtype, extent, order == b"big")

    pickle = entries[f"{top}data.pkl"].read_all(pickles.BYTES)
    return pickles.load(pickle, CALLS, persistent)[0]


def read_legacy(path: Path) -> Any:
    """The content of a file as torch.save wrote it before, and still does if asked.

    Its pickle is read twice: where the storages are is known only behind it.

    Raises:
      ValueError: if it is something else, damaged, or what it holds does not fit.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        data = file.read(min(size, pickles.BYTES))
    at = _behind_heads(data)
    seen: dict[str, tuple[np.dtype | None, int]] = {}

    def noted(identity: Any) -> Any:
        if _is_module(identity):
            return identity[1]
        dtype, key, count, _ = _storage(identity)
        if seen.setdefault(key, (dtype, count)) != (dtype, count):
            raise ValueError(f"storage {key[:80]!r} is told to be of two kinds")
        return None

    keys, end = pickles.load(data, begin=pickles.load(data, {}, noted, at)[1])
    extents = _legacy_extents(path, size, keys, end, seen)

    def persistent(identity: Any) -> Any:
        if _is_module(identity):
            return identity[1]
        dtype, key, _, part = _storage(identity)
        return Storage(dtype, _part(extents[key], dtype, part))

    return pickles.load(data, CALLS, persistent, at)[0]


def write_torch(path: str | os.PathLike, content: Any) -> None:
    """Writes what torch.load(path, weights_only=True) reads; whole or not at all.

    Args:
      path: of the file, NAME.ckpt.
      content: dicts, lists and tuples of numbers, strings, None, and arrays or
        `Tensor`s, which are read one after the other.

    Raises:
      ValueError: for anything else.
    """
    leaves: list[Any] = []
    pickle = b"\x80\2" + _pickled(content, leaves) + b"."
    with whole_file(path) as file:
        archive = archives.Writer(file)
        archive.add("archive/data.pkl", pickle)
        archive.add("archive/byteorder", b"little")
        for number, leaf in enumerate(leaves):
            archive.add(f"archive/data/{number}", written(leaf))
        archive.add("archive/version", b"3\n")
        archive.finish()


def _behind_heads(data: bytes) -> int:
    """Where the content of a legacy file begins."""
    try:
        magic, at = pickles.load(data)
    except ValueError as error:
        raise ValueError(
            f"it begins like no checkpoint that is known here, by {data[:12]!r}: give "
            f"one of torch.save or of safetensors ({error})"
        ) from error
    protocol, at = pickles.load(data, begin=at) if magic == MAGIC else (None, at)
    if protocol != _LEGACY_PROTOCOL:
        raise ValueError(
            "it is a pickle, but not of torch.save: load what it holds where it comes "
            "from, and torch.save its state_dict()"
        )
    return pickles.load(data, begin=at)[1]


def _top(entries: Mapping[str, Extent]) -> str:
    """The folder that all of a checkpoint is in, with its slash."""
    tops = [name[: -len("data.pkl")] for name in entries if name.endswith("/data.pkl")]
    if len(tops) != 1 or tops[0].count("/") != 1:
        some = ", ".join(sorted(entries)[:3])[:80]
        raise ValueError(f"it is an archive, but not of torch.save; it holds {some!r}")
    if f"{tops[0]}constants.pkl" in entries:
        raise ValueError(
            "it is a program (TorchScript): torch.save the module's state_dict() alone"
        )
    return tops[0]


def _is_module(identity: Any) -> bool:
    """Legacy files point to the source of modules, too: it is not looked at."""
    return isinstance(identity, tuple) and identity[:1] == ("module",)


def _storage(identity: Any) -> tuple[np.dtype | None, str, int, Any]:
    """dtype, key, number of elements, and which part of it, of a persistent id."""
    match (*identity[:6], None)[:6]:  # the last of them only old versions write
        case ("storage", Global(name), str(key), _, int(count), part) if (
            count >= 0 and len(key) <= _KEY
        ):
            found = _STORAGE.fullmatch(name)
            dtype = _OF_STORAGES.get(found[1]) if found else None
            return DTYPES.get(dtype), key, count, part
    raise ValueError("it points to something that is no storage")


def _legacy_extents(
    path: Path, size: int, keys: Any, at: int, seen: Mapping[str, tuple]
) -> dict[str, Extent]:
    """Where the storages are, which follow each other after the pickles."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("the list of its storages is missing")
    extents = {}
    with path.open("rb") as file:
        for key in keys:
            dtype, count = seen.get(key, (None, 0))
            if dtype is None:
                raise ValueError(f"storage {key[:80]!r} is of no class known here")
            file.seek(at)
            length = count * dtype.itemsize
            if file.read(8) != struct.pack("<q", count) or at + 8 + length > size:
                raise ValueError(
                    f"it is cut short or damaged: storage {key[:80]!r} of {count} x "
                    f"{dtype} does not follow at byte {at} of {size}"
                )
            extents[key] = Extent(path, at + 8, length)
            at += 8 + length
    if missing := seen.keys() - extents.keys():
        raise ValueError(f"storage {min(missing)[:80]!r} is not in it")
    return extents


def _part(extent: Extent, dtype: np.dtype, part: Any) -> Extent:
    """A storage that is part of another, as old versions wrote them."""
    match part:
        case None:
            return extent
        case (str(), int(offset), int(count)) if offset >= 0 and count >= 0:
            begin, length = offset * dtype.itemsize, count * dtype.itemsize
            if begin + length <= extent.size:
                return Extent(extent.path, extent.begin + begin, length)
    raise ValueError("a part of a storage reaches out of it")


def _pickled(value: Any, leaves: list[Any]) -> bytes:
    """Opcodes of protocol 2 that push a value; arrays are appended to `leaves`."""
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            length = value.bit_length() // 8 + 1
            digits = value.to_bytes(length, "little", signed=True)
            return b"\x8a" + bytes([length]) + digits
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + _all_pickled(value, leaves) + b"t"
        case list():
            return b"](" + _all_pickled(value, leaves) + b"e"
        case Mapping():
            pairs = (each for pair in value.items() for each in pair)
            return b"}(" + _all_pickled(pairs, leaves) + b"u"
    if not (hasattr(value, "dtype") and hasattr(value, "shape")):
        raise ValueError(f"{type(value).__name__} cannot be written for torch")
    return _pickled_tensor(value, leaves)


def _all_pickled(values: Iterable[Any], leaves: list[Any]) -> bytes:
    return b"".join(_pickled(value, leaves) for value in values)


def _pickled_tensor(leaf: Any, leaves: list[Any]) -> bytes:
    """A call of torch's function for tensors in C's order."""
    kinds = [kind for kind, name in _OF_STORAGES.items() if name == str(leaf.dtype)]
    if not kinds:
        raise ValueError(f"torch has no storage of {leaf.dtype}; cast it before")
    shape = tuple(map(int, leaf.shape))
    key, leaves[len(leaves) :] = str(len(leaves)), [leaf]
    storage = (
        b"("
        + _pickled("storage", leaves)
        + f"ctorch\n{kinds[0]}Storage\n".encode()
        + _all_pickled((key, "cpu", math.prod(shape)), leaves)
        + b"tQ"
    )
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + _all_pickled((0, shape, c_order(shape), False), leaves)
        + b"ccollections\nOrderedDict\n)RtR"
    )
