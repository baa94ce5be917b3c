"""Files as torch.save writes them, made by Python's own pickler.

    save_zip(path, content)   save_legacy(path, content)

Content is what torch.save would be given, with numpy arrays for tensors. Stand-ins for
torch's classes and functions are where a pickler looks for them while it writes; their
names are all that gets into the file. Arrays that look at the same memory share a
storage, with the strides that they have.
"""

import contextlib
import io
import itertools
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from unittest import mock

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "float64": "Double", "float32": "Float", "float16": "Half", "bfloat16": "BFloat16",
    "int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte",
    "bool": "Bool", "complex64": "ComplexFloat", "complex128": "ComplexDouble",
}  # fmt: skip


def named(name: str, module: str, kind: type = type) -> type:
    """A class or function of that name, as far as a pickler sees."""
    if kind is type:
        return type(name, (), {"__module__": module})
    function = types.FunctionType(compile("0", "", "eval"), {}, name)
    function.__module__, function.__qualname__ = module, name
    return function


_KINDS = {name: named(f"{name}Storage", "torch") for name in STORAGES.values()}
_REBUILD = named("_rebuild_tensor_v2", "torch._utils", types.FunctionType)
_PARAMETER = named("_rebuild_parameter", "torch._utils", types.FunctionType)


class Parameter:
    """A tensor that is trained."""

    def __init__(self, array: np.ndarray):
        self.array = array


class _Pickler(pickle.Pickler):
    """Writes arrays as torch does tensors, and notes their storages by key."""

    def __init__(self, file, protocol: int, legacy: bool = False):
        super().__init__(file, protocol)
        self._legacy, self._keys, self.storages = legacy, {}, {}

    def reducer_override(self, value):
        """Tensors are calls; all else is the pickler's own business."""
        if isinstance(value, Parameter):
            return _PARAMETER, (value.array, True, OrderedDict())
        if not isinstance(value, np.ndarray):
            return NotImplemented
        base = value
        while isinstance(base.base, np.ndarray):
            base = base.base
        key = self._keys.setdefault(id(base), str(len(self._keys)))
        self.storages[key] = base
        size = value.itemsize
        begin = value.__array_interface__["data"][0]
        offset = (begin - base.__array_interface__["data"][0]) // size
        strides = tuple(stride // size for stride in value.strides)
        rest = offset, value.shape, strides, False, OrderedDict()
        return _REBUILD, (_Stored(key), *rest)

    def persistent_id(self, value):
        if not isinstance(value, _Stored):
            return None
        base = self.storages[value.key]
        kind = _KINDS[STORAGES[str(base.dtype)]]
        known = ("storage", kind, value.key, "cpu", base.size)
        return (*known, None) if self._legacy else known


class _Stored:
    def __init__(self, key: str):
        self.key = key


def save_zip(
    path: Path, content, *, protocol: int = 2, order: str = "little", top: str = "model"
) -> None:
    """As torch.save since 1.6; `order`: of the bytes, as big-endian machines write."""
    pickled, arrays = pickled_with_storages(content, protocol)
    storages = {
        key: (base if order == "little" else base.byteswap()).tobytes()
        for key, base in arrays.items()
    }
    write_zip(path, pickled, storages, order=order, top=top)


def write_zip(
    path: Path, pickled: bytes, storages=None, *, order: str = "little", top="model"
) -> None:
    """An archive around a pickle and storages, whatever they are."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{top}/data.pkl", pickled)
        if order:  # which torch has written since 2.1
            archive.writestr(f"{top}/byteorder", order)
        for key, data in (storages or {}).items():
            archive.writestr(f"{top}/data/{key}", data)
        archive.writestr(f"{top}/version", "3\n")


def save_legacy(path: Path, content, *, protocol: int = 2) -> None:
    """As torch.save before 1.6, or with _use_new_zipfile_serialization=False."""
    pickled, storages = pickled_with_storages(content, protocol, legacy=True)
    system = {"protocol_version": 1001, "little_endian": True}
    with path.open("wb") as file:
        for head in (MAGIC, 1001, system):
            pickle.dump(head, file, protocol)
        file.write(pickled)
        pickle.dump(sorted(storages), file, protocol)
        for _, base in sorted(storages.items()):
            file.write(struct.pack("<q", base.size) + base.tobytes())


def pickled_with_storages(content, protocol: int, legacy: bool = False):
    """(pickle, {key: the array that is stored})."""
    file = io.BytesIO()
    pickler = _Pickler(file, protocol, legacy)
    with torch_is_there():
        pickler.dump(content)
    return file.getvalue(), pickler.storages


@contextlib.contextmanager
def torch_is_there(*more: type):
    """While a pickler works, its look-ups find the stand-ins, and `more`."""
    modules = {}
    for each in (*_KINDS.values(), _REBUILD, _PARAMETER, *more):
        *parents, last = itertools.accumulate(
            each.__module__.split("."), "{}.{}".format
        )
        for name in (*parents, last):
            modules.setdefault(name, types.ModuleType(name))
        setattr(modules[last], each.__name__, each)
    with mock.patch.dict(sys.modules, modules):
        yield
