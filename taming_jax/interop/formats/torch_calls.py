"""What the functions of torch that a pickle calls return here.

    CALLS["torch._utils._rebuild_tensor_v2"](Storage, 0, (3, 4), (4, 1), ...) -> Tensor

What is not among them is read past: torch.device, optimizers, callbacks.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from taming_jax.interop.formats.pickles import Global, Opaque
from taming_jax.interop.formats.tensors import DTYPES, Extent, Tensor, view

_NUMPY_NUMBER = re.compile(r"[biufc]\d{1,2}")


@dataclass(frozen=True, eq=False)
class Storage:
    """What tensors look at.

    Attributes:
      dtype: of its elements; None if its class is not known here.
      extent: where its bytes are.
      big_endian: the order of the bytes of an element.
    """

    dtype: np.dtype | None
    extent: Extent
    big_endian: bool = False


def _tensor(
    storage: Storage,
    offset: int,
    shape: Sequence[int],
    strides: Sequence[int],
    requires_grad: bool = False,
    hooks: Any = None,
    metadata: Any = None,
) -> Tensor:
    return _typed_tensor(storage, offset, shape, strides, False, None, None, metadata)


def _typed_tensor(
    storage: Storage,
    offset: int,
    shape: Sequence[int],
    strides: Sequence[int],
    requires_grad: bool,
    hooks: Any,
    dtype: Global | None,
    metadata: Any = None,
) -> Tensor:
    """A tensor; its dtype is its storage's unless it says another."""
    if not isinstance(storage, Storage):
        raise TypeError(
            "a tensor has its numbers inside of the pickle: use torch.save, not pickle"
        )
    known = DTYPES.get(dtype.name.removeprefix("torch.")) if dtype else storage.dtype
    if known is None:
        raise ValueError("a tensor's dtype is not known here, quantized perhaps")
    if isinstance(metadata, dict) and any(metadata.values()):
        raise ValueError("a tensor is to be conjugated or negated when it is read")
    return view(storage.extent, known, shape, strides, offset, storage.big_endian)


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _of_type(function: Global, kind: Any, args: tuple, *_: Any) -> Any:
    """A subclass of Tensor, or a tensor with attributes: the tensor in it."""
    if function.name not in _TENSORS:
        return Opaque(function, args)
    return _TENSORS[function.name](*args)


def _size(axes: Sequence[int] = ()) -> tuple[int, ...]:
    return tuple(axes)


def _numpy_number(dtype: Opaque, data: bytes) -> Any:
    """A number of numpy as one of Python."""
    code, order = dtype.args[0], dtype.state[1]
    if not _NUMPY_NUMBER.fullmatch(code) or order not in tuple("<>|="):
        return Opaque(dtype, (data,))
    return np.frombuffer(data, f"{order}{code}")[0].item()


_TENSORS = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
}
CALLS = _TENSORS | {
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type": _of_type,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.Size": _size,
    "numpy.core.multiarray.scalar": _numpy_number,
    "numpy._core.multiarray.scalar": _numpy_number,
}
