"""Tables of names: what a tensor is called, and how it lies, there and here.

    {"conv_in.weight": [O,I,h,w], ...} <-> {"conv_in": {"kernel": [h,w,I,O]}, ...}

A row is (ours, theirs, transform). Placeholders such as `{i}` stand for a number that
is the same on both sides, so that rows can be read in either direction; each tensor
must be met by exactly one. A row whose `ours` is None names what is of no use here.

`{layer}` stands on their side only: tensors with the numbers 0, 1, ... there are one
array here, stacked along a new axis 0.

    {"blocks.0.ln1.bias": [D], "blocks.1.ln1.bias": [D]}
    <-> {"blocks": {"norm1": {"bias": [2,D]}}}
"""

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict


class Transform(NamedTuple):
    """How a tensor is laid out anew: from theirs to ours, and back."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


class Row(NamedTuple):
    """One entry of a table."""

    ours: str | None
    theirs: str
    transform: Transform

    @property
    def stacks(self) -> bool:
        """Whether their numbered tensors lie in one array of ours."""
        return self.ours is not None and "{layer}" in self.theirs


Table = tuple[Row, ...]


def to_ours(table: Table, tensors: Mapping[str, np.ndarray]) -> dict:
    """Their flat names to tensors -> our nested tree.

    ValueError where a name is met by no row, or by more than one, and where a layer is
    missing.
    """
    found, layers = {}, defaultdict(dict)
    for name, tensor in tensors.items():
        ours, layer, transform = place(table, name)
        if ours is None:
            continue
        tensor = transform.to_ours(np.asarray(tensor))
        if layer is None:
            found[ours] = tensor
        else:
            layers[ours][layer] = tensor
    stacked = {ours: _stack(ours, numbered) for ours, numbered in layers.items()}
    return unflatten_dict(found | stacked, sep="/")


def to_theirs(table: Table, tree: Mapping) -> dict[str, np.ndarray]:
    """Our nested tree -> their flat names to tensors; errors as in `to_ours`."""
    found = {}
    for name, tensor in flatten_dict(tree, sep="/").items():
        row, numbers = _match(table, name, side="ours")
        tensor = np.asarray(tensor)
        if not row.stacks:
            found[row.theirs.format(**numbers)] = row.transform.to_theirs(tensor)
            continue
        for layer, part in enumerate(tensor):
            theirs = row.theirs.format(**numbers, layer=layer)
            found[theirs] = row.transform.to_theirs(part)
    return found


class Place(NamedTuple):
    """Where one tensor of theirs goes.

    ours: the array's name, None for what is of no use here.
    layer: its number in a stacked array, None where the tensor is all of the array.
    """

    ours: str | None
    layer: int | None
    transform: Transform


def place(table: Table, name: str) -> Place:
    """Where the tensor of that name goes; ValueError as in `to_ours`."""
    row, numbers = _match(table, name, side="theirs")
    ours = row.ours and row.ours.format(**numbers)
    layer = int(numbers["layer"]) if row.stacks else None
    return Place(ours, layer, row.transform)


def under(ours: str, theirs: str, table: Iterable[Row]) -> Table:
    """Return the table with these prefixes set before the names in every row."""
    return tuple(
        Row(row.ours and ours + row.ours, theirs + row.theirs, row.transform)
        for row in table
    )


def _match(table, name, *, side) -> tuple[Row, dict[str, str]]:
    """Return the one row that meets `name`, and what its placeholders stand for."""
    met = [(row, _pattern(getattr(row, side)).fullmatch(name)) for row in table]
    met = [(row, match) for row, match in met if match]
    if len(met) != 1:
        raise ValueError(
            f"the table of names has {len(met)} rows for {name!r}, and needs one: "
            "is this another kind of model?"
        )
    row, match = met[0]
    return row, match.groupdict()


def _stack(ours, numbered):
    if sorted(numbered) != list(range(len(numbered))):
        raise ValueError(
            f"{ours} is stacked from layers {sorted(numbered)}, and needs all from 0 "
            f"to {max(numbered)}: is the checkpoint whole?"
        )
    return np.stack([numbered[layer] for layer in range(len(numbered))])


@functools.cache
def _pattern(template: str | None) -> re.Pattern:
    """Turn "down.{i}.bias" into a pattern whose groups are the placeholders."""
    if template is None:
        return re.compile(r"(?!)")  # meets nothing
    pieces = re.split(r"\{(\w+)\}", template)  # text, placeholder, text, ..., text
    pieces[0::2] = map(re.escape, pieces[0::2])
    pieces[1::2] = [rf"(?P<{name}>\d+)" for name in pieces[1::2]]
    return re.compile("".join(pieces))
