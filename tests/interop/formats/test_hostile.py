"""Files that somebody made to do harm: a right answer or one line, and nothing runs."""

import pickle
import struct

import numpy as np
import pytest
from torch_like import MAGIC, save_zip, write_zip

from taming_jax.interop.checkpoint import Opaque, Tensor


class Runs:
    """Unpickled by Python it would leave a file."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return open, (str(self.canary), "w")


# What would run.


def code(canary) -> dict[str, bytes]:
    """Programs that would make the file `canary`."""
    touch = short(f"touch {canary}")
    opening = short(f"open({str(canary)!r}, 'w')")
    inner = pickle.dumps(Runs(canary))
    return {
        "reduce": inner,
        "os.system": b"cos\nsystem\n(" + touch + b"tR.",
        "posix.system": b"(" + touch + b"iposix\nsystem\n.",
        "builtins.eval": b"cbuiltins\neval\n(" + opening + b"tR.",
        "builtins.exec": b"\x8c\x08builtins\x8c\x04exec\x93" + opening + b"\x85R.",
        "new": b"csubprocess\nPopen\n(" + touch + b"t\x81.",
        "chain": b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR"
        b"(" + touch + b"tR.",
        "build": b"cos\nsystem\n)\x81}S'__setstate__'\ncos\nsystem\nsb.",
        "torch": b"ctorch.storage\n_load_from_bytes\n(" + short(inner) + b"tR.",
    }  # fmt: skip


def short(text: str | bytes) -> bytes:
    """A string as an opcode."""
    data = text.encode() if isinstance(text, str) else text
    return b"U" + bytes([len(data)]) + data


@pytest.mark.parametrize("kind", code(""))
def test_what_would_run_is_only_named(tmp_path, judged, kind):
    write_zip(tmp_path / "file", code(tmp_path / "canary")[kind])
    assert isinstance(judged(), Opaque)


@pytest.mark.parametrize("kind", code(""))
@pytest.mark.parametrize("place", range(4))
def test_legacy_files_run_nothing_either(tmp_path, judged, refused, kind, place):
    parts = [pickle.dumps(each, 2) for each in (MAGIC, 1001, {}, "content", [])]
    parts[place] = code(tmp_path / "canary")[kind]
    (tmp_path / "file").write_bytes(b"".join(parts))
    if place < 2:
        assert "not of torch.save" in refused()
    else:
        judged()


def test_weights_beside_code_are_read(tmp_path, judged):
    numbers = np.arange(6, dtype=np.float32)
    save_zip(tmp_path / "file", {"a": numbers, "hook": Runs(tmp_path / "canary")})
    content = judged()
    np.testing.assert_array_equal(content["a"].read(), numbers)
    assert content["hook"].kind.name in ("_io.open", "io.open")


# What would take too much.

MILLION = 10**6
DEEP = 300_000
MANY = 1_100_000  # just more than there may be
LONG = b"X" + struct.pack("<I", MILLION) + b"a" * MILLION + b"q\x00"  # in the memo
ENDLESS = {
    "long": b"\x8b\xff\xff\xff\x7f.",
    "negative length": b"\x8b\xff\xff\xff\xff.",
    "longish": b"\x8b" + struct.pack("<i", MILLION) + b"\x01" * MILLION + b".",
    "digits": b"I" + b"9" * 60_000 + b"\n.",
    "string": b"\x8d" + struct.pack("<Q", 2**62) + b"a.",
    "bytes": b"\x8e" + struct.pack("<Q", 2**40) + b"a.",
    "frame": b"\x95" + struct.pack("<Q", 2**50) + b"N.",
    "opcodes": b"N0" * MANY + b"N.",
    "sets": b"\x8f" * MANY + b".",
    "marks": b"(" * MANY + b".",
    "lists": b"]" * DEEP + b"a" * (DEEP - 1) + b".",
    "tuples": b")" + b"\x85" * DEEP + b".",
    "dicts": b"}" + b"K\x00}" * DEEP + b"s" * DEEP + b".",
    "deep key": b"})" + b"\x85" * DEEP + b"Ns.",
    "long key": b"}(" + b"N" * MILLION + b"tq\x000" + b"h\x00Ns" * 1000 + b".",
    "itself": b"]q\x00h\x00a.",
    "itself by a tuple": b"]q\x00h\x00\x85a.",
    "itself by a dict": b"}q\x00K\x00h\x00s.",
    "laughs": b"]" + b"q\x00]" + b"h\x00h\x00\x86q\x00" * 300 + b".",
    "laughing key": b"})" + b"q\x000h\x00h\x00\x86" * 300 + b"Ns.",
    "laughing set": b"\x8f()" + b"q\x000h\x00h\x00\x86" * 300 + b"\x90.",
    "copied lists": b"](" + b"K\x01" * MILLION + b"eq\x00c__builtin__\nset\nq\x01("
    + b"h\x01h\x00\x85R" * 1000 + b"t.",
    "copied strings": LONG + b"c_codecs\nencode\nq\x01("
    + b"h\x01h\x00\x85R" * 1000 + b"t.",
    "copied names": LONG + b"U\x01a\x930(" + b"h\x00U\x01a\x930" * 10_000 + b".",
    "compared keys": LONG.replace(b"q\x00", b"q\x01") + LONG + b"}h\x01Ns"
    + b"h\x00Ns" * 10_000 + b".",
    "long ids": b"(U\x07storagectorch\nFloatStorage\n" + LONG + b"NK\x01"
    + b"N" * (MILLION // 2) + b"tq\x01Q0" + b"h\x01Q0" * 10_000 + b"N.",
    "bytearray": b"c__builtin__\nbytearray\n\x8a\x06\0\0\0\0\0\x01\x85R.",
    "collisions": b"}(" + b"".join(
        b"\x8a\x0b" + (n * (2**61 - 1)).to_bytes(11, "little") + b"N"
        for n in range(1, 10_000)
    ) + b"u.",
    "ever more memo": b"N" + b"\x94" * MANY + b".",
}  # fmt: skip


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_takes_too_much_is_refused(tmp_path, refused, kind):
    write_zip(tmp_path / "file", ENDLESS[kind])
    refused()


@pytest.mark.parametrize(
    "opcodes", [b")" + b"\x85" * DEEP, b"]" * DEEP + b"a" * (DEEP - 1)]
)
def test_depth_inside_of_what_is_read_past_does_no_harm(tmp_path, judged, opcodes):
    write_zip(tmp_path / "file", b"ca\nb\n" + opcodes + b"\x85R.")
    assert isinstance(judged(), Opaque)


def test_long_arguments_are_not_copied(tmp_path, judged):
    arguments, call = b"(" + b"N" * DEEP + b"tq\x00", b"ca\nb\nh\x00}U\x01aNs\x92"
    write_zip(tmp_path / "file", arguments + call * 10_000 + b".")
    assert isinstance(judged(), Opaque)


def test_a_chain_of_calls_does_no_harm(tmp_path, judged):
    write_zip(tmp_path / "file", b"ca\nb\n" + b")R" * DEEP + b".")
    assert isinstance(judged(), Opaque)


def test_the_limits_are_not_in_the_way(tmp_path, judged):
    numbers = {f"block.{n}.weight": np.full(1, n, np.float32) for n in range(5_000)}
    save_zip(tmp_path / "file", {"state_dict": numbers, "losses": list(range(50_000))})
    content = judged()["state_dict"]
    assert all(isinstance(each, Tensor) for each in content.values())
    assert content["block.777.weight"].read() == 777
