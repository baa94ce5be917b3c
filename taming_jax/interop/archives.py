"""The part of ZIP that torch writes: entries that are stored, not compressed.

    path --entries--> {name: Extent}
    ArchiveWriter.add(name, bytes) ... .finish()

An archive ends with a directory of its entries; each has a header of its own before its
bytes. Here both must agree, and nothing may lie in two entries. Numbers of 32 bits that
are too small are all ones, and the real ones stand in an extra field ("ZIP64").

    local header, name, extra, bytes   local header, ...   directory   end
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from taming_jax.interop.tensors import Extent

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_COMMENT = 2**16  # an archive may end with a comment, shorter than this
_DIRECTORY_BYTES = 2**24  # of the largest directory that is read
_ONES = 2**32 - 1
_ZIP64, _PADDING = 1, 0x4246  # kinds of extra fields; torch pads with "FB"
_ENCRYPTED, _UTF8 = 1, 0x800


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
    odd = "\\" in text or not text.isprintable()
    if odd or text.startswith("/") or ".." in text.split("/"):
        raise ValueError(f"an entry is named {text[:80]!r}, which leads out of there")
    return text


def _long(extra: bytes, *shown: int) -> list[int]:
    """The numbers that are meant where 32 bits show ones."""
    at, long = 0, b""
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64:
            long = extra[at + 4 : at + 4 + length]
        at += 4 + length
    if shown.count(_ONES) * 8 > len(long):
        raise ValueError("the archive's directory lacks a size of more than 32 bits")
    numbers = iter(struct.unpack(f"<{len(long) // 8}Q", long[: len(long) // 8 * 8]))
    return [next(numbers) if number == _ONES else number for number in shown]


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
