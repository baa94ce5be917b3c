"""Small networks that measure, kept beside a run: weights and what is said of them.

    DIR/weights.npz   flat names -> arrays
    DIR/NAME.json     the card, with the weights' digest

The digest tells weights of an interrupted save from sound ones.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from flax import traverse_util

from taming_jax.files import whole_file, write_json


def save(
    directory: epath.Path, name: str, params: Mapping[str, Any], card: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes both files; returns the card as it is there."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = directory / "weights.npz"
    with whole_file(weights) as file:
        np.savez(file, **traverse_util.flatten_dict(params, sep="/"))
    card = {**card, "weights_sha256": _digest(weights.read_bytes())}
    write_json(directory / f"{name}.json", card)
    return card


def load(directory: epath.Path, name: str) -> tuple[dict, dict] | None:
    """(parameters, card); None if there is none, or not all of one."""
    paths = directory / f"{name}.json", directory / "weights.npz"
    if not all(path.exists() for path in paths):
        return None
    card, weights = (path.read_bytes() for path in paths)
    card = json.loads(card)
    if card["weights_sha256"] != _digest(weights):
        return None
    with np.load(io.BytesIO(weights)) as arrays:
        return traverse_util.unflatten_dict(dict(arrays), sep="/"), card


def as_read_back(mapping: Mapping) -> dict[str, Any]:
    """What JSON makes of it: tuples become lists."""
    return json.loads(json.dumps(mapping))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
