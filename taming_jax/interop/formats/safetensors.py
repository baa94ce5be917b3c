"""Files of safetensors, read and written: a table in JSON, then the numbers.

8 bytes: length of the table, little-endian
{"NAME": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}, ...}
the numbers, in the order of the offsets, which leave nothing out
"""

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taming_jax.files import whole_file
from taming_jax.interop.formats.tensors import DTYPES, Extent, Tensor, view, written

HEADER_BYTES = 2**24  # of the largest table: 100,000 tensors
_LENGTH = struct.Struct("<Q")
_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "complex64": "C64",
}  # fmt: skip
_DTYPES = {theirs: DTYPES[ours] for ours, theirs in _NAMES.items()}
_METADATA = "__metadata__"  # strings by strings, which stand among the tensors


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins like this claims to be one."""
    return head[8:9] == b"{" and _LENGTH.unpack(head[:8])[0] <= HEADER_BYTES


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name; its metadata are not needed here.

    Raises:
      ValueError: if it is damaged, cut short, or its table does not fit the numbers.
    """
    with path.open("rb") as file:
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        header = file.read(length)
        begin, end = file.tell(), file.seek(0, 2)
    if len(header) < length:
        raise ValueError(f"it is cut short: a table of {length} bytes should follow")
    table = _table(header)
    table.pop(_METADATA, None)
    tensors, at = {}, 0
    for name, (dtype, shape, first, last) in sorted(
        ((name, _entry(name, entry)) for name, entry in table.items()),
        key=lambda item: item[1][2:],
    ):
        if first != at or last < first or begin + last > end:
            raise ValueError(
                f"{name[:80]!r} lies at bytes {first} to {last}, where {at} comes next "
                f"and {end - begin} are there: it is cut short or damaged"
            )
        extent, at = Extent(path, begin + first, last - first), last
        tensors[name] = view(extent, dtype, shape)
        if tensors[name].nbytes != extent.size:
            raise ValueError(f"{name[:80]!r} has {extent.size} bytes, which do not fit")
    if begin + at != end:
        raise ValueError(f"{end - begin - at} bytes at its end belong to no tensor")
    return {name: tensors[name] for name in table}


def write_safetensors(
    path: str | os.PathLike,
    tensors: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes tensors by their names; whole or not at all.

    Args:
      path: of the file, NAME.safetensors.
      tensors: arrays or `Tensor`s, which are read one after the other.
      metadata: what else people should know.

    Raises:
      ValueError: for a dtype that the format does not have.
    """
    table: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    # Large elements first: then each begins at a multiple of its own size.
    ordered = sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize)
    at = 0
    for name, leaf in ordered:
        if str(leaf.dtype) not in _NAMES or name == _METADATA:
            raise ValueError(f"safetensors cannot hold {name!r} of {leaf.dtype}")
        begin, at = at, at + math.prod(leaf.shape) * leaf.dtype.itemsize
        table[name] = {
            "dtype": _NAMES[str(leaf.dtype)],
            "shape": [int(size) for size in leaf.shape],
            "data_offsets": [begin, at],
        }
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with whole_file(path) as file:
        file.write(_LENGTH.pack(len(header)) + header)
        for _, leaf in ordered:
            file.write(written(leaf))


def _table(header: bytes) -> dict[str, Any]:
    try:
        table = json.loads(header, object_pairs_hook=_without_duplicates)
    except RecursionError as error:
        raise ValueError("its table nests too deep") from error
    if not isinstance(table, dict):
        raise ValueError("its table is a list or a number")
    return table


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("its table says something twice")
    return table


def _entry(name: str, entry: Any) -> tuple[Any, list[Any], int, int]:
    """dtype, shape, first byte and the one behind the last."""
    match entry:
        case {
            "dtype": str(dtype),
            "shape": list(shape),
            "data_offsets": [int(first), int(last)],
        } if dtype in _DTYPES and first >= 0:
            return _DTYPES[dtype], shape, first, last
    raise ValueError(f"its table's entry {name[:80]!r} is of no kind known here")
