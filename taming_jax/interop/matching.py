"""Whether the tensors of a file are those of a model, before any of them is read.

match(table, tensors, expected) -> {our name: Source, Stacked or Zeros}

table      of names, see `tables`
tensors    {their name: Tensor}, of the file
expected   {our name: jax.ShapeDtypeStruct}, of the model
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import unflatten_dict

from taming_jax.interop.formats.tensors import Tensor
from taming_jax.interop.tables import Table, place, to_theirs

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
        transform = place(self.table, self.name).transform
        array = transform.to_ours(self.tensor.read()).astype(self.dtype)
        if not np.isfinite(array).all():
            raise ValueError(
                f"{self.name} has numbers that are not finite: its training had "
                "failed, or the file is damaged; take another checkpoint"
            )
        return array


class Stacked(NamedTuple):
    """Where the layers of an array come from; they are read one by one."""

    layers: tuple[Source, ...]
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self) -> np.ndarray:
        """As `Source.read`."""
        array = np.empty(self.shape, self.dtype)
        for number, layer in enumerate(self.layers):
            array[number] = layer.read()
        return array


class Zeros(NamedTuple):
    """An array that their files do not have, since it counts what is yet to come."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self) -> np.ndarray:
        return np.zeros(self.shape, self.dtype)


def match(
    table: Table, tensors: Mapping[str, Tensor], expected: Mapping[str, Any]
) -> dict[str, Source | Stacked | Zeros]:
    """Where each expected array comes from; every tensor is used exactly once.

    Raises:
      ValueError: with the names and shapes of both sides that find no partner.
    """
    found, layers, strange = {}, defaultdict(dict), {}
    for name, tensor in tensors.items():
        try:
            ours, layer, transform = place(table, name)
            shape = transform.to_ours(_stand_in(tensor.shape)).shape
        except (ValueError, IndexError):  # no row, or another number of axes
            strange[name] = tensor.shape
            continue
        if ours is None:
            continue
        if ours not in expected or shape != _part(expected[ours].shape, layer):
            strange[name] = tensor.shape
            continue
        source = Source(table, name, tensor, shape, expected[ours].dtype)
        if layer is None:
            found[ours] = source
        else:
            layers[ours][layer] = source
    for ours, of in layers.items():
        like = expected[ours]
        if len(of) == like.shape[0]:
            ordered = tuple(of[layer] for layer in range(len(of)))
            found[ours] = Stacked(ordered, like.shape, like.dtype)
    missing = {}
    for ours in expected.keys() - found.keys():
        like = expected[ours]
        theirs = _their_shape(table, ours, like.shape)
        if theirs:
            odd = strange.keys() | (theirs.keys() - tensors.keys())
            missing |= {name: theirs[name] for name in theirs.keys() & odd}
        else:
            found[ours] = Zeros(like.shape, like.dtype)
    if strange or missing:
        raise ValueError(_differences(strange, missing))
    return {ours: found[ours] for ours in expected}


def sources_of(found: Mapping[str, Source | Stacked | Zeros]) -> list[Source]:
    """Every tensor that is used, once for each use."""
    used = []
    for source in found.values():
        if isinstance(source, Stacked):
            used += source.layers
        elif isinstance(source, Source):
            used.append(source)
    return used


def _part(shape: tuple[int, ...], layer: int | None):
    """The shape of one layer of an array, of all of it, or None: no such layer."""
    if layer is None:
        return shape
    return shape[1:] if layer < shape[0] else None


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
