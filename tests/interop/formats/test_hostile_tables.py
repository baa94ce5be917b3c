"""Files whose tables lie: of tensors, of archives, of safetensors."""

import json
import struct
import zipfile

import numpy as np
import pytest
from torch_like import save_zip, write_zip

STORAGE = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x06tQ"  # of 6 numbers
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


def tensor(offset: bytes, shape: bytes, strides: bytes, storage: bytes = STORAGE):
    """A pickle of a tensor, its numbers as opcodes."""
    return TENSOR + b"(" + storage + offset + shape + strides + b"\x89NtR."


N0, N1 = b"K\x00", b"K\x01"
MINUS_1, LARGE, LARGER = (
    b"J\xff\xff\xff\xff",
    b"J\0\0\0\x70",
    b"\x8a\x10" + b"\x7f" * 16,
)
FIT = {
    "too large": tensor(N0, b"K\x07\x85", b"K\x01\x85"),
    "too far": tensor(N1, b"K\x06\x85", b"K\x01\x85"),
    "too wide": tensor(N0, b"K\x03\x85", b"K\x03\x85"),
    "negative offset": tensor(MINUS_1, N1 + b"\x85", N1 + b"\x85"),
    "negative stride": tensor(b"K\x05", b"K\x02\x85", MINUS_1 + b"\x85"),
    "negative size": tensor(N0, MINUS_1 + b"\x85", N1 + b"\x85"),
    "huge": tensor(N0, LARGE + LARGE + b"\x86", N0 + N0 + b"\x86"),
    "huge, empty": tensor(N0, LARGE + LARGE + N0 + b"\x87", N0 + N0 + N0 + b"\x87"),
    "more than int64": tensor(N0, LARGER + b"\x85", N0 + b"\x85"),
    "no number": tensor(N0, b"G?\xf0\0\0\0\0\0\0\x85", N1 + b"\x85"),
    "a string": tensor(N0, b"U\x01a", N1 + b"\x85"),
    "fewer strides": tensor(N0, N1 + N1 + b"\x86", N1 + b"\x85"),
    "many axes": tensor(N0, b"(" + N1 * 99 + b"t", b"(" + N1 * 99 + b"t"),
    "no storage": tensor(N0, b")", b")", b"N"),
    "not there": tensor(N0, b")", b")", STORAGE.replace(b"\x010", b"\x011")),
    "other size": tensor(N0, b")", b")", STORAGE.replace(b"K\x06", b"K\x07")),
    "outside": tensor(N0, b")", b")", STORAGE.replace(b"\x010", b"\x0b../data.pkl")),
    "no known kind": tensor(N0, b")", b")", STORAGE.replace(b"Float", b"QInt8")),
    "conjugated": TENSOR + b"(" + STORAGE + N0 + b"))\x89N}U\x04conj\x88stR.",
}


@pytest.mark.parametrize("kind", FIT)
def test_tensors_that_do_not_fit_are_refused(tmp_path, refused, kind):
    write_zip(tmp_path / "file", FIT[kind], {"0": bytes(24)})
    refused()


def test_a_repeated_number_may_be_much_larger_than_its_storage(tmp_path, judged):
    repeated = tensor(b"K\x00", b"M\xff\xff\x85", b"K\x00\x85")
    write_zip(tmp_path / "file", repeated, {"0": bytes(24)})
    assert judged().read().shape == (65535,)


# Archives.


NAMES = [
    "../evil",
    "/etc/passwd",
    "m/../../evil",
    "m\\..\\evil",
    "m/\x1b[2J",
    "m" * 600,
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_elsewhere_are_refused(tmp_path, refused, name):
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        archive.writestr("m/data.pkl", b"N.")
        archive.writestr(name, b"")
    assert "lead out" in refused()


def test_bombs_are_refused(tmp_path, refused):
    with zipfile.ZipFile(tmp_path / "file", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", bytes(100 * 10**6))
    assert "compressed" in refused()


def test_entries_with_the_same_name_are_refused(tmp_path, refused):
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        archive.writestr("m/data.pkl", b"N.")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("m/data.pkl", b"K\x01.")
    assert "twice" in refused()


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (42, 0),  # the second entry begins where the first does
        (42, 2**31),  # or behind the end
        (42, 2**32 - 1),  # or where an extra field would say, which is missing
        (20, 2**30),  # it is larger than the file
        (24, 2**30),  # or unpacks to more
        (8, 1),  # it is encrypted
        (0, 0),  # it is no entry
    ],
)
def test_directories_that_lie_are_refused(tmp_path, refused, at, value):
    write_zip(tmp_path / "file", b"N.")
    content = bytearray((tmp_path / "file").read_bytes())
    second = content.index(b"PK\1\2", content.index(b"PK\1\2") + 1)
    struct.pack_into("<I", content, second + at, value)
    (tmp_path / "file").write_bytes(content)
    refused()


@pytest.mark.parametrize("at", [12, 16])
def test_ends_that_lie_are_refused(tmp_path, refused, at):
    write_zip(tmp_path / "file", b"N.")
    content = bytearray((tmp_path / "file").read_bytes())
    struct.pack_into("<I", content, len(content) - 22 + at, 2**31)
    (tmp_path / "file").write_bytes(content)
    refused()


def test_a_changed_number_is_noticed_when_it_is_read(tmp_path, judged):
    numbers = np.arange(6, dtype=np.float32)
    save_zip(tmp_path / "file", {"whole": numbers, "part": numbers[2:4]})
    content = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(content.replace(numbers.tobytes(), bytes(24)))
    for tensor in judged().values():
        with pytest.raises(ValueError, match=r"file are not what their checksum says"):
            tensor.read()


# Safetensors.

F32 = {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}
SAFE = {
    "larger": {"a": F32 | {"shape": [7]}},
    "smaller": {"a": F32 | {"shape": [5]}},
    "outside": {"a": F32 | {"shape": [12], "data_offsets": [0, 48]}},
    "negative": {"a": F32 | {"data_offsets": [-24, 0]}},
    "backwards": {"a": F32 | {"data_offsets": [24, 0]}},
    "overlap": {"a": F32, "b": F32},
    "hole": {"a": F32 | {"shape": [3], "data_offsets": [12, 24]}},
    "end": {"a": F32 | {"shape": [3], "data_offsets": [0, 12]}},
    "huge": {"a": F32 | {"shape": [2**62, 2**62, 0]}},
    "many axes": {"a": F32 | {"shape": [1] * 10**5 + [6]}},
    "true": {"a": F32 | {"shape": [True, 6]}},
    "float": {"a": F32 | {"shape": [6.0]}},
    "dtype": {"a": F32 | {"dtype": "F3"}},
    "nothing": {"a": {}},
    "string": {"a": "F32"},
}


@pytest.mark.parametrize("kind", SAFE)
def test_tables_of_safetensors_that_lie_are_refused(tmp_path, refused, kind):
    write_table(tmp_path / "file", json.dumps(SAFE[kind]).encode())
    refused()


@pytest.mark.parametrize(
    "table",
    [
        b'{"a":' + b"[" * 10**6,
        b'{"a":' + b'{"a":' * 10**6,
        b'{"a":' + b"9" * 10**6 + b"}",
        b'{"a":%b,"a":%b}' % (json.dumps(F32).encode(), json.dumps(F32).encode()),
        b'{"a":\xff}',
        b"{]",
    ],
    ids=["lists", "tables", "digits", "twice", "no text", "no table"],
)  # fmt: skip
def test_tables_that_are_none_are_refused(tmp_path, refused, table):
    write_table(tmp_path / "file", table)
    refused()


def test_a_table_longer_than_its_file_is_refused(tmp_path, refused):
    write_table(tmp_path / "file", b"{}", length=2**24)
    assert "cut short" in refused()


def write_table(path, table: bytes, length: int | None = None) -> None:
    length = len(table) if length is None else length
    path.write_bytes(struct.pack("<Q", length) + table + bytes(24))
