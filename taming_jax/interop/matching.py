"""Whether the tensors of a file are those of a model, before any of them is read.

match(table, tensors, expected) -> {our name: Source or Zeros}, for each expected array

table      of names, see `tables`
tensors    {their name: Tensor}, of the file
expected   {our name: jax.ShapeDtypeStruct}, of the model
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from taming_jax.interop.formats.tensors import Tensor
from taming_jax.interop.tables import Table, to_ours, to_theirs

_SHOWN = 4  # names of each kind in an error


class Source(NamedTuple):
    """Where an array comes from: one tensor of a file."""

    table: Table
    name: str
    tensor: Tensor
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self) -> np.ndarray:
        """The array in our layout and dtype; ValueError if it is not finite."""
        (array,) = _placed(self.table, self.name, self.tensor.read()).values()
        array = array.astype(self.dtype)
        if not np.isfinite(array).all():
            raise ValueError(
                f"{self.name} has numbers that are not finite: its training had "
                "failed, or the file is damaged; take another checkpoint"
            )
        return array


class Zeros(NamedTuple):
    """An array that their files do not have, since it counts what is yet to come."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self) -> np.ndarray:
        return np.zeros(self.shape, self.dtype)


def match(
    table: Table, tensors: Mapping[str, Tensor], expected: Mapping[str, Any]
) -> dict[str, Source | Zeros]:
    """Where each expected array comes from; every tensor is used exactly once.

    Raises:
      ValueError: with the names and shapes of both sides that find no partner.
    """
    found, strange = {}, {}
    for name, tensor in tensors.items():
        try:
            placed = _placed(table, name, _stand_in(tensor.shape))
        except (ValueError, IndexError):  # no row, or another number of axes
            strange[name] = tensor.shape
            continue
        for ours, array in placed.items():
            like = expected.get(ours)
            if like is None or like.shape != array.shape:
                strange[name] = tensor.shape
            else:
                found[ours] = Source(table, name, tensor, like.shape, like.dtype)
    missing = {}
    for ours in expected.keys() - found.keys():
        like = expected[ours]
        missing |= (theirs := _their_shape(table, ours, like.shape))
        if not theirs:
            found[ours] = Zeros(like.shape, like.dtype)
    if strange or missing:
        raise ValueError(_differences(strange, missing))
    return {ours: found[ours] for ours in expected}


def _placed(table: Table, name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """Our name and the array in our layout; {} for what is of no use here."""
    return flatten_dict(to_ours(table, {name: array}), sep="/")


def _stand_in(shape: tuple[int, ...]) -> np.ndarray:
    """An array of this shape that takes no memory."""
    return np.broadcast_to(np.float32(0), shape)


def _their_shape(table: Table, ours: str, shape) -> dict[str, tuple[int, ...]]:
    """Their name and shape for an array of ours; {} if they have none."""
    try:
        theirs = to_theirs(table, unflatten_dict({ours: _stand_in(shape)}, sep="/"))
    except ValueError:
        return {}
    return {name: array.shape for name, array in theirs.items()}


def _differences(strange: Mapping, missing: Mapping) -> str:
    sides = (("the file has", strange), ("the configuration wants", missing))
    return "; ".join(f"{which} {_some(names)}" for which, names in sides if names)


def _some(shapes: Mapping[str, tuple[int, ...]]) -> str:
    shown = [f"{name} {list(shapes[name])}" for name in sorted(shapes)[:_SHOWN]]
    rest = len(shapes) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
