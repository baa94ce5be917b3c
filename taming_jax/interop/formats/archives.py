"""The part of ZIP that torch writes: entries that are stored, not compressed.

    path --entries--> {name: Extent}
    Writer.add(name, bytes), add, ..., finish

An archive ends with a directory of its entries; each has a header of its own before its
bytes. Here both must agree, and nothing may lie in two entries. Numbers of 32 bits that
are too small are all ones, and the real ones stand in an extra field ("ZIP64").

    local header, name, extra, bytes   local header, ...   directory   end
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from taming_jax.interop.formats.tensors import Extent

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_COMMENT = 2**16  # an archive may end with a comment, shorter than this
_NAME = 2**9  # letters of the longest name
_DIRECTORY_BYTES = 2**24  # of the largest directory that is read
_ONES = 2**32 - 1
_MOST = _ONES - 1  # that 32 bits say
_FIELD = struct.Struct("<2H")  # what an extra field begins with: its kind, its length
_ZIP64, _PADDING = 1, 0x4246  # kinds; torch pads with "FB"
_ALIGNMENT = 64  # of bytes, as torch writes them
_ENCRYPTED = 1
_VERSION = 45  # of ZIP, the first that has ZIP64
# Of all entries that are written: version, flags (names are UTF-8), no compression,
# and midnight of the first day that ZIP can say.
_KIND = (_VERSION, 0x800, 0, 0, 1 << 5 | 1)


class _Entry(NamedTuple):
    """What the directory says of an entry: where its header and its bytes are."""

    name: str
    header: int
    size: int
    checksum: int


def entries(path: Path) -> dict[str, Extent]:
    """Where the bytes of each entry of an archive are; none of them are read.

    Raises:
      ValueError: if an entry is compressed, encrypted, overlaps another, reaches out of
        the file, is there twice, or has the name of something outside of the archive.
    """
    with path.open("rb") as file:
        begin, directory = _directory(file)
        listed = sorted(_listed(directory), key=lambda entry: entry.header)
        found, free = {}, 0
        for entry in listed:
            if entry.header < free:
                raise ValueError("entries of the archive overlap")
            start = _begin(file, entry)
            free = start + entry.size
            if free > begin:
                raise ValueError(f"entry {entry.name!r} reaches out of the archive")
            if entry.name in found:
                raise ValueError(f"entry {entry.name!r} is there twice")
            found[entry.name] = Extent(path, start, entry.size, entry.checksum)
    return found


class Writer:
    """Writes an archive, entry by entry, whose bytes begin at multiples of 64.

    Args:
      file: empty, to write to.
    """

    def __init__(self, file: IO[bytes]):
        self._file, self._entries = file, []

    def add(self, name: str, data: bytes | np.ndarray) -> None:
        """Adds an entry; data are bytes or uint8."""
        entry = _Entry(name, self._file.tell(), len(data), zlib.crc32(data))
        shown, extra = _shown(entry.size, entry.size)
        name = name.encode()
        at = entry.header + _LOCAL.size + len(name) + len(extra)
        filling = -(at + _FIELD.size) % _ALIGNMENT
        extra += _FIELD.pack(_PADDING, filling) + bytes(filling)
        lengths = len(name), len(extra)
        header = _LOCAL.pack(b"PK\3\4", *_KIND, entry.checksum, *shown, *lengths)
        self._file.write(header + name + extra)
        self._file.write(data)
        self._entries.append(entry)

    def finish(self) -> None:
        """Writes the directory, which makes an archive of it."""
        begin = self._file.tell()
        for entry in self._entries:
            (*sizes, header), extra = _shown(entry.size, entry.size, entry.header)
            name = entry.name.encode()
            what = entry.checksum, *sizes, len(name), len(extra), 0, 0, 0, 0, header
            packed = _CENTRAL.pack(b"PK\1\2", _VERSION, *_KIND, *what)
            self._file.write(packed + name + extra)
        end, count = self._file.tell(), len(self._entries)
        (length, at), _ = _shown(end - begin, begin)
        few, where = min(count, 2**16 - 1), (count, count, end - begin, begin)
        self._file.write(
            _END64.pack(b"PK\6\6", _END64.size - 12, _VERSION, _VERSION, 0, 0, *where)
            + _LOCATOR.pack(b"PK\6\7", 0, end, 1)
            + _END.pack(b"PK\5\6", 0, 0, few, few, length, at, 0)
        )


def _directory(file: IO[bytes]) -> tuple[int, bytes]:
    """Where the directory begins, and its bytes."""
    size = file.seek(0, 2)
    tail_begin = max(0, size - _END.size - _COMMENT)
    file.seek(tail_begin)
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        raise ValueError(
            "it is cut short: an archive ends with a directory, and this has none"
        )
    _, _, _, _, _, length, begin, _ = _END.unpack_from(tail, at)
    end = tail_begin + at
    file.seek(max(0, end - _LOCATOR.size))
    locator = file.read(_LOCATOR.size)
    if locator.startswith(b"PK\6\7"):
        _, _, end, _ = _LOCATOR.unpack(locator)
        if end + _END64.size > size:
            raise ValueError("the end of the archive's directory is outside of it")
        file.seek(end)
        *_, length, begin = _END64.unpack(file.read(_END64.size))
    if begin + length != end or length > _DIRECTORY_BYTES:
        raise ValueError(
            f"the archive's directory, {length} bytes at {begin}, does not end where "
            "it should: the file is damaged or put together from two"
        )
    file.seek(begin)
    return begin, file.read(length)


def _listed(directory: bytes) -> Iterator[_Entry]:
    at = 0
    while at < len(directory):
        header = directory[at : at + _CENTRAL.size]
        if len(header) < _CENTRAL.size or not header.startswith(b"PK\1\2"):
            raise ValueError("the archive's directory is damaged")
        _, _, _, flags, method, _, _, checksum, packed, size, *rest = _CENTRAL.unpack(
            header
        )
        name_length, extra_length, comment_length, _, _, _, begin = rest
        at += _CENTRAL.size
        name = _checked_name(directory[at : at + name_length])
        at += name_length
        extra = directory[at : at + extra_length]
        at += extra_length + comment_length
        size, packed, begin = _long(extra, size, packed, begin)
        if flags & _ENCRYPTED or method or size != packed:
            raise ValueError(
                f"entry {name!r} is compressed or encrypted, which torch does not do; "
                "unpack the archive and pack it again without compression (zip -0)"
            )
        yield _Entry(name, begin, size, checksum)


def _checked_name(name: bytes) -> str:
    """Names are only looked up here, never opened; others might do it."""
    text = name.decode()  # UnicodeDecodeError is a ValueError
    odd = "\\" in text or not text.isprintable() or len(text) > _NAME
    if odd or text.startswith("/") or ".." in text.split("/"):
        raise ValueError(f"an entry is named {text[:80]!r}, which may lead out of it")
    return text


def _long(extra: bytes, *shown: int) -> list[int]:
    """The numbers that are meant where 32 bits show ones."""
    at, long = 0, b""
    while at + _FIELD.size <= len(extra):
        kind, length = _FIELD.unpack_from(extra, at)
        if kind == _ZIP64:
            long = extra[at + _FIELD.size :][:length]
        at += _FIELD.size + length
    if shown.count(_ONES) * 8 > len(long):
        raise ValueError("the archive's directory lacks a size of more than 32 bits")
    numbers = iter(struct.unpack(f"<{len(long) // 8}Q", long[: len(long) // 8 * 8]))
    return [next(numbers) if number == _ONES else number for number in shown]


def _shown(*numbers: int) -> tuple[list[int], bytes]:
    """The reverse: what 32 bits show, and the extra field."""
    long = [number for number in numbers if number > _MOST]
    extra = _FIELD.pack(_ZIP64, 8 * len(long)) if long else b""
    extra += struct.pack(f"<{len(long)}Q", *long)
    return [_ONES if number > _MOST else number for number in numbers], extra


def _begin(file: IO[bytes], entry: _Entry) -> int:
    """Where an entry's bytes begin: behind its own header, which must agree."""
    file.seek(entry.header)
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
        raise ValueError(f"entry {entry.name!r} is not where the directory says")
    _, _, _, method, *_, name_length, extra_length = _LOCAL.unpack(header)
    if method or file.read(name_length) != entry.name.encode():
        raise ValueError(f"entry {entry.name!r} is another one by its own header")
    return entry.header + _LOCAL.size + name_length + extra_length
