"""Tensors that still lie in their file, and the bytes that they are read from.

    Extent    a stretch of a file, with its checksum where the format has one
    view      Extent, dtype, shape, strides --> Tensor, if they fit each other
    Tensor    dtype, shape, and the array when it is asked for

Offsets and strides are counted in elements. Nothing of the data is in memory before
`Tensor.read`, and what that takes is known to fit before.
"""

import contextlib
import functools
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

# What numpy and its extension by small floats hold; torch's names are the same.
DTYPES = {
    name: np.dtype(getattr(ml_dtypes, name, name))
    for name in (
        "float64", "float32", "float16", "bfloat16", "complex64", "complex128", "bool",
        "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8",
        "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
    )
}  # fmt: skip
# A view with strides of 0 is larger than what it looks at; this much is never refused.
REPEATED_BYTES = 2**20
_AXES = 32
_PIECE = 2**22  # bytes that are checked at once


@dataclass(frozen=True, eq=False)
class Tensor:
    """An array that is read when it is asked for.

    Attributes:
      dtype: numpy's, or ml_dtypes' for what numpy lacks (bfloat16).
      shape: of the array.
      read: gives the array, one of its own each time; ValueError if the file has
        changed, or is not what its checksum says.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """What the array takes in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Extent:
    """A stretch of a file.

    Attributes:
      path: of the file.
      begin: the first byte.
      size: in bytes.
      checksum: CRC-32 of them, or None.
    """

    path: Path
    begin: int
    size: int
    checksum: int | None = None

    def read_all(self, limit: int) -> bytes:
        """All of it, if it is not larger than `limit`."""
        if self.size > limit:
            raise ValueError(f"{self.size} bytes are where {limit} are the most")
        return self.read(0, self.size).tobytes()

    def read(self, begin: int, count: int) -> np.ndarray:
        """Some of its bytes, uint8 [count]; the checksum is that of all of them."""
        if count < self.size and self.checksum is not None:
            _ = self._sound
        data = np.empty(count, np.uint8)
        with _opened(self.path) as file:
            file.seek(self.begin + begin)
            if file.readinto(data) != count:
                raise ValueError(f"{self.path} has become shorter while it was read")
        if count == self.size and self.checksum is not None:
            self._compare(zlib.crc32(data))
        return data

    @functools.cached_property
    def _sound(self) -> bool:
        """True: many tensors may look at parts of it, and it is checked once."""
        crc = 0
        with _opened(self.path) as file:
            file.seek(self.begin)
            for done in range(0, self.size, _PIECE):
                crc = zlib.crc32(file.read(min(_PIECE, self.size - done)), crc)
        self._compare(crc)
        return True

    def _compare(self, crc: int) -> None:
        if crc != self.checksum:
            raise ValueError(
                f"bytes {self.begin} to {self.begin + self.size} of {self.path} are "
                "not what their checksum says: it is damaged, get another copy"
            )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def view(
    extent: Extent,
    dtype: np.dtype,
    shape: Sequence[int],
    strides: Sequence[int] | None = None,
    offset: int = 0,
    big_endian: bool = False,
) -> Tensor:
    """A tensor that looks at bytes of a file.

    Args:
      extent: the bytes.
      dtype: of the elements.
      shape: of the tensor.
      strides: in elements; None is C's order.
      offset: of the first element.
      big_endian: the order of bytes within an element.

    Raises:
      ValueError: if it would reach out of the bytes, or be much larger than they are.
    """
    if len(shape) > _AXES or (strides is not None and len(strides) != len(shape)):
        raise ValueError("a tensor's shape and strides do not fit, or are too long")
    numbers = (*shape, *(strides or ()), offset)
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise ValueError("a tensor's shape, strides or offset is negative or no number")
    shape = tuple(shape)
    strides = c_order(shape) if strides is None else tuple(strides)
    largest = max(extent.size, REPEATED_BYTES)
    if math.prod(max(1, n) for n in shape) * dtype.itemsize > largest:
        raise ValueError(f"a tensor {list(shape)} looks at {extent.size} bytes only")
    reach = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1
    count = 0 if 0 in shape else reach
    if (offset + count) * dtype.itemsize > extent.size:
        raise ValueError(
            f"a tensor {list(shape)} needs {(offset + count) * dtype.itemsize} bytes "
            f"of a storage of {extent.size}"
        )
    begin, length = offset * dtype.itemsize, count * dtype.itemsize

    def read() -> np.ndarray:
        flat = _elements(extent.read(begin, length), dtype, big_endian)
        if strides == c_order(shape) or not count:
            return flat.reshape(shape)
        steps = [stride * dtype.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(flat, shape, steps).copy()

    return Tensor(dtype, shape, read)


def written(leaf: Any) -> np.ndarray:
    """The bytes of a tensor or an array, as files hold them: uint8, C's order.

    Raises:
      ValueError: if it is of a dtype that files do not hold, big-endian for example.
    """
    array = leaf.read() if isinstance(leaf, Tensor) else np.asarray(leaf)
    if (array.dtype, array.shape) != (leaf.dtype, tuple(leaf.shape)):
        raise ValueError(
            f"an array that was said to be {leaf.dtype}{list(leaf.shape)} is "
            f"{array.dtype}{list(array.shape)}"
        )
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def c_order(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides, in elements, of an array whose last axis runs fastest."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _elements(data: np.ndarray, dtype: np.dtype, big_endian: bool) -> np.ndarray:
    """Bytes as elements in this machine's order of bytes."""
    size = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
    if big_endian:
        data.view(f"u{size}").byteswap(inplace=True)
    if dtype.kind == "b":
        return data != 0  # a bool of another byte than 0 and 1 is neither
    return data.view(dtype)
