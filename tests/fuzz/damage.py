"""What is done to the bytes of a file.

    damaged(sample, others, rng) -> Damaged(where, content, checked)

Some damage is blind (bits flipped, pieces lost, doubled, or of another file), some is
aimed: at numbers that say how long something is, at the opcodes of pickles, at the
directory of an archive, and at the table of a safetensors file. A pickle that was
changed is packed again with the right checksum: nothing but the reader stands in its
way then.
"""

import io
import itertools
import pickletools
import random
import re
import struct
import zipfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

from samples import Sample

LENGTHS = (0, 1, 2**7, 2**8 - 1, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63,
           2**64 - 1)  # fmt: skip
OPCODES = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]


class Damaged(NamedTuple):
    """A file after it.

    Attributes:
      where: what was damaged, which with the kind of file is a row of the table.
      content: its bytes.
      checked: whether the file's checksums would still notice other numbers.
    """

    where: str
    content: bytes
    checked: bool


def damaged(sample: Sample, others: Sequence[Sample], rng: random.Random) -> Damaged:
    """Damages a file, most often where it hurts."""
    archive = sample.kind.startswith("zip")
    aimed = rng.random()
    if archive and aimed < 0.4:
        change = rng.choice([_opcodes, _opcodes, _bits, _length, _cut, _lost])
        content = _repacked(sample.content, lambda data: change(data, rng))
        return Damaged("its pickle", content, False)
    if archive and aimed < 0.7:
        return Damaged("its directory", _directory(sample.content, rng), sample.checked)
    if sample.kind == "legacy" and aimed < 0.5:
        return Damaged("its pickles", _opcodes(sample.content, rng), False)
    if sample.kind == "safetensors" and aimed < 0.5:
        return Damaged("its table", _table(sample.content, rng), False)
    if rng.random() < 0.1:
        other = rng.choice(others).content
        return Damaged("joined to another", _spliced(sample.content, other, rng), False)
    change = rng.choice([_bits, _bits, _length, _cut, _lost, _doubled, _noise])
    return Damaged("its bytes", change(sample.content, rng), sample.checked)


def _bits(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _length(content: bytes, rng: random.Random) -> bytes:
    """A number of 1, 2, 4 or 8 bytes becomes another that is at some edge."""
    form = rng.choice(["<B", "<H", "<I", "<I", "<Q"])
    size = struct.calcsize(form)
    at = rng.randrange(max(1, len(content) - size))
    number = struct.pack("<Q", rng.choice(LENGTHS))[:size]
    return content[:at] + number + content[at + size :]


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _lost(content: bytes, rng: random.Random) -> bytes:
    begin, end = _piece(content, rng)
    return content[:begin] + content[end:]


def _doubled(content: bytes, rng: random.Random) -> bytes:
    begin, end = _piece(content, rng)
    return content[:end] + content[begin:]


def _noise(content: bytes, rng: random.Random) -> bytes:
    begin, end = _piece(content, rng)
    return content[:begin] + rng.randbytes(end - begin) + content[end:]


def _spliced(content: bytes, other: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))] + other[rng.randrange(len(other)) :]


def _piece(content: bytes, rng: random.Random) -> tuple[int, int]:
    begin = rng.randrange(len(content))
    return begin, min(len(content), begin + rng.choice((1, 2, 8, 64, 512)))


def _opcodes(pickled: bytes, rng: random.Random) -> bytes:
    """Opcodes of a pickle are lost, doubled, exchanged, or become others."""
    places = _places(pickled, rng)
    parts = [pickled[begin:end] for begin, end in itertools.pairwise(places)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        one, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        match rng.randrange(5):
            case 0:
                parts[one] = b""
            case 1:
                parts.insert(other, parts[one])
            case 2:
                parts[one], parts[other] = parts[other], parts[one]
            case 3:
                parts[one] = rng.choice(OPCODES) + parts[one][1:]
            case 4:
                parts[one] *= rng.choice((2, 100, 10_000))
    return pickled[: places[0]] + b"".join(parts) + pickled[places[-1] :]


def _places(pickled: bytes, rng: random.Random) -> list[int]:
    """Where the opcodes of a pickle are, and its end; a legacy file has five."""
    begin, places = 0, []
    for _ in range(rng.randint(1, 5)):
        try:
            found = [begin + at for _, _, at in pickletools.genops(pickled[begin:])]
        except ValueError:  # that was the last one
            break
        begin = found[-1] + 1
        places = [*found, begin]
    return places


def _repacked(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """An archive whose pickle is another, with the checksum of that."""
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(packed, "w") as new,
    ):
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if name.endswith("data.pkl") else data)
    return packed.getvalue()


def _directory(content: bytes, rng: random.Random) -> bytes:
    """A field of a header, of the directory or of its end becomes another."""
    heads = [m.start() for m in re.finditer(b"PK[\1\3\5\6][\2\4\6\7]", content)]
    at = rng.choice(heads)
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2))):
        form = rng.choice(["<H", "<I"])
        field = at + rng.randrange(0, 46, 2)
        number = rng.choice((*LENGTHS, rng.choice(heads), rng.randrange(len(content))))
        if field + struct.calcsize(form) <= len(changed):
            mask = 2 ** (8 * struct.calcsize(form)) - 1
            struct.pack_into(form, changed, field, number & mask)
    return bytes(changed)


def _table(content: bytes, rng: random.Random) -> bytes:
    """A number or a word of the table becomes another, and its length is right."""
    (length,) = struct.unpack("<Q", content[:8])
    words = re.split(rb"(-?\d+|\"\w+\")", content[8 : 8 + length])
    at = rng.randrange(1, len(words), 2)
    words[at] = rng.choice(
        [
            words[rng.randrange(1, len(words), 2)],
            b"null",
            b"[]",
            b'"F64"',
            b"-1",
            b"1.5",
        ]
        + [str(number).encode() for number in LENGTHS]
    )
    table = b"".join(words)
    return struct.pack("<Q", len(table)) + table + content[8 + length :]
