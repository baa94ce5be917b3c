"""What torch's versions write in their own ways, and what is written for them."""

import collections
import io
import pickle
import pickletools
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
from torch_like import MAGIC, write_zip

from taming_jax.interop.checkpoint import Opaque, open_checkpoint, write_torch
from taming_jax.interop.formats import archives

NUMBERS = np.arange(6, dtype=np.float32)
UNTYPED = b"(U\x07storagectorch.storage\nUntypedStorage\nU\x010U\x03cpuK\x18tQ"
FLOATS = b"(U\x07storagectorch.cuda\nFloatStorage\nU\x010U\x03cpuK\x06tQ"
SMALL = b"K\x01K\x02K\x02\x86K\x02K\x01\x86"  # offset 1, [2, 2], strides [2, 1]
PLAIN = b"ctorch._utils\n_rebuild_tensor\n(" + FLOATS + SMALL + b"tR"
PROGRAMS = {
    "before 0.4": PLAIN + b".",
    "storages without a type": b"ctorch._utils\n_rebuild_tensor_v3\n("
    + UNTYPED + SMALL + b"\x89Nctorch\nfloat32\ntR.",
    "metadata": b"ctorch._utils\n_rebuild_tensor_v2\n(" + FLOATS + SMALL + b"\x89N}tR.",
    "parameters with a state": b"ctorch._utils\n_rebuild_parameter_with_state\n("
    + PLAIN + b"\x88N}tR.",
    "subclasses": b"ctorch._tensor\n_rebuild_from_type_v2\n("
    b"ctorch._utils\n_rebuild_tensor\ncmine\nTensor\n(" + FLOATS + SMALL + b"t}tR.",
}  # fmt: skip


@pytest.mark.parametrize("kind", PROGRAMS)
def test_tensors_of_all_times_are_read(tmp_path, kind):
    write_zip(tmp_path / "file", PROGRAMS[kind], {"0": NUMBERS.tobytes()})
    tensor = open_checkpoint(tmp_path / "file")
    np.testing.assert_array_equal(tensor.read(), [[1, 2], [3, 4]])
    assert tensor.dtype == np.float32


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "bfloat16"])
def test_storages_without_a_type_have_the_dtypes_of_their_tensors(tmp_path, name):
    program = PROGRAMS["storages without a type"].replace(b"float32", name.encode())
    write_zip(tmp_path / "file", program, {"0": bytes(range(24))})
    dtype = np.dtype(getattr(ml_dtypes, name))
    expected = np.frombuffer(bytes(range(24)), dtype)[1:5].reshape(2, 2)
    np.testing.assert_array_equal(open_checkpoint(tmp_path / "file").read(), expected)


def test_what_subclasses_do_otherwise_is_read_past(tmp_path):
    program = PROGRAMS["subclasses"].replace(b"_rebuild_tensor", b"_rebuild_q")
    write_zip(tmp_path / "file", program, {"0": NUMBERS.tobytes()})
    assert open_checkpoint(tmp_path / "file").name == "torch._utils._rebuild_q"


def test_files_without_an_order_of_bytes_are_little_endian(tmp_path):
    stored = {"0": NUMBERS.tobytes()}
    write_zip(tmp_path / "file", PROGRAMS["before 0.4"], stored, order="")
    assert open_checkpoint(tmp_path / "file").read()[0, 0] == 1


def test_sizes_and_devices(tmp_path):
    program = b"(ctorch\nSize\n(K\x02K\x03\x86tRctorch\ndevice\n(U\x04cudatRt."
    write_zip(tmp_path / "file", program)
    size, device = open_checkpoint(tmp_path / "file")
    assert (size, device.name, device.args) == ((2, 3), "torch.device", ("cuda",))


@pytest.mark.parametrize("protocol", range(1, 6))
def test_numbers_of_numpy_are_numbers(tmp_path, protocol):
    numbers = [np.float64(1.5), np.int32(-7), np.bool(True), np.float32(0.25)]
    pickled = pickle.dumps(numbers, protocol)
    for each in (pickled, pickled.replace(b"cnumpy._core", b"cnumpy.core")):
        write_zip(tmp_path / "file", each)
        assert open_checkpoint(tmp_path / "file") == [1.5, -7, True, 0.25]


def test_other_things_of_numpy_are_read_past(tmp_path):
    write_zip(tmp_path / "file", pickle.dumps([np.str_("a"), NUMBERS], 2))
    assert all(isinstance(each, Opaque) for each in open_checkpoint(tmp_path / "file"))


# Legacy files.


def legacy(path, pickled: bytes, *storages: tuple[str, np.ndarray]) -> None:
    heads = [pickle.dumps(each, 2) for each in (MAGIC, 1001, {"little_endian": True})]
    keys = pickle.dumps([key for key, _ in storages], 2)
    stored = [struct.pack("<q", each.size) + each.tobytes() for _, each in storages]
    path.write_bytes(b"".join([*heads, pickled, keys, *stored]))


def in_part(offset: int, count: int) -> bytes:
    """A tensor [2, 2] of a storage that is part of another."""
    part = b"U\x04partK" + bytes([offset]) + b"K" + bytes([count]) + b"\x87"
    return PLAIN.replace(b"K\x06t", b"K\x06" + part + b"t") + b"."


def test_storages_may_be_parts_of_others(tmp_path):
    legacy(tmp_path / "file", in_part(1, 5), ("0", NUMBERS))
    tensor = open_checkpoint(tmp_path / "file")
    np.testing.assert_array_equal(tensor.read(), [[2, 3], [4, 5]])


@pytest.mark.parametrize(("offset", "count"), [(1, 6), (2, 4), (200, 1)])
def test_parts_that_reach_out_are_refused(tmp_path, offset, count):
    legacy(tmp_path / "file", in_part(offset, count), ("0", NUMBERS))
    with pytest.raises(ValueError, match="storage"):
        open_checkpoint(tmp_path / "file")


def test_sources_of_modules_are_not_looked_at(tmp_path):
    module = b"(U\x06modulecmine\nNet\nU\x04pathU\x06sourcetQ"
    legacy(tmp_path / "file", module + b"(K\x01t\x81.")
    assert open_checkpoint(tmp_path / "file").name == "mine.Net"


@pytest.mark.parametrize(
    ("pickled", "storages", "reason"),
    [
        (FLOATS + b".", [("0", NUMBERS[:5])], "does not follow"),
        (FLOATS + b".", [("1", NUMBERS)], "no class"),
        (FLOATS + b".", [], "not in it"),
        (b"(" + FLOATS + UNTYPED + b"t.", [("0", NUMBERS)], "two kinds"),
        (FLOATS.replace(b"Float", b"QInt8") + b".", [("0", NUMBERS)], "no class"),
        (b"U\x04elsePN\nt.", [], "no storage"),
    ],
)
def test_storages_that_disagree_are_refused(tmp_path, pickled, storages, reason):
    legacy(tmp_path / "file", pickled, *storages)
    with pytest.raises(ValueError, match=f"file cannot be read: .*{reason}"):
        open_checkpoint(tmp_path / "file")


# What is written.

CONTENT = {"weights": {"a": NUMBERS.reshape(2, 3).T, "b": NUMBERS[0]}, "rest": [1, "é"]}


def test_pickles_are_of_protocol_2_and_python_reads_them_alike(tmp_path):
    write_torch(tmp_path / "file", CONTENT)
    with zipfile.ZipFile(tmp_path / "file") as archive:
        pickled = archive.read("archive/data.pkl")
    assert max(opcode.proto for opcode, _, _ in pickletools.genops(pickled)) == 2
    unpickler = Independent(io.BytesIO(pickled))
    assert unpickler.load() == {
        "weights": {
            "a": (("storage", "FloatStorage", "0", "cpu", 6), 0, (3, 2), (2, 1), False),
            "b": (("storage", "FloatStorage", "1", "cpu", 1), 0, (), (), False),
        },
        "rest": [1, "é"],
    }


class Independent(pickle.Unpickler):
    """Python's own, to which tensors are what they were called with."""

    def find_class(self, module, name):
        if name == "_rebuild_tensor_v2":
            return lambda *args: args[:-1]
        if name == "OrderedDict":
            return collections.OrderedDict
        return name

    def persistent_load(self, pid):
        return pid


def test_entries_are_stored_and_aligned(tmp_path):
    write_torch(tmp_path / "file", CONTENT)
    extents = archives.entries(tmp_path / "file")
    assert all(extent.begin % 64 == 0 for extent in extents.values())
    with zipfile.ZipFile(tmp_path / "file") as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {0}
        assert archive.read("archive/byteorder") == b"little"
        assert archive.read("archive/version") == b"3\n"


def test_sizes_of_more_than_32_bits(tmp_path, monkeypatch):
    """As if 32 bits ended at 300: both we and the standard library read it."""
    monkeypatch.setattr(archives, "_MOST", 300)
    write_torch(tmp_path / "file", {"large": np.arange(500.0), "small": NUMBERS})
    read = open_checkpoint(tmp_path / "file")
    np.testing.assert_array_equal(read["large"].read(), np.arange(500.0))
    with zipfile.ZipFile(tmp_path / "file") as archive:
        assert archive.testzip() is None
        assert archive.getinfo("archive/data/0").file_size == 4000


def test_archives_of_more_than_32_bits_are_read(tmp_path):
    """A sparse file: its entry lies behind 5 GB of nothing."""
    with (tmp_path / "file").open("wb") as file:
        file.write(b"PK\3\4")
        file.seek(5 * 2**30)
        writer = archives.Writer(file)
        writer.add("model/data.pkl", b"K\x07.")
        writer.finish()
    assert open_checkpoint(tmp_path / "file") == 7
