"""What tells models apart: digests, 32 hex digits.

    a tokenizer's section, weights --of_codes--> of all that turns a picture into codes
    weights --of_weights--> of all of them

A prior, its codes on disk and the tokenizer that decodes them are held together by the
first, pictures that are drawn bit by bit by the second.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

# What of a tokenizer's settings and parameters turns pictures into codes.
_CODING_SETTINGS = ("encoder", "quantizer")
_CODING_PARAMS = ("encoder", "quant_conv", "quantizer")
# What of the quantizer's collection does, too: no count, and never changed.
_CODING_CONSTANTS = ("basis",)


def of_codes(section: Mapping[str, Any], variables: Mapping[str, Any]) -> str:
    """A tokenizer's fingerprint: 32 hex digits.

    Codes of equal fingerprints mean the same. The decoder does not enter, for it may be
    trained further while the codes are frozen; and of the encoder enters what half
    precision keeps, so that an exported model has the fingerprint of its run.

    Args:
      section: of the recipe, `config.vqgan`: the tokenizer's fields, and what it reads.
      variables: its weights.
    """
    settings = section["model"]
    made_by = {name: settings.get(name) for name in _CODING_SETTINGS}
    made_by["dtype"] = settings.get("dtype", "float32")
    made_by |= _reading(section)
    digest = hashlib.blake2b(json.dumps(made_by, sort_keys=True).encode())
    params = {part: variables["params"].get(part, {}) for part in _CODING_PARAMS}
    carried = variables.get("codebook", {}).get("quantizer", {})
    constants = {name: carried[name] for name in _CODING_CONSTANTS if name in carried}
    params["quantizer"] = {**params["quantizer"], **constants}
    for name, array in sorted(flatten_dict(params, sep="/").items()):
        kept = "float32" if name.startswith("quantizer/") else "float16"
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array, kept)
        digest.update(f"{name} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()[:32]


def of_weights(params: Mapping[str, Any]) -> str:
    """Of all parameters, by name, form and bytes, wherever they lie."""
    digest = hashlib.blake2b()
    for name, array in sorted(flatten_dict(params, sep="/").items()):
        array = np.ascontiguousarray(array)
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()[:32]


def _reading(section: Mapping[str, Any]) -> dict[str, Any]:
    """How a tokenizer reads what it is for, as far as that is not how it reads images.

    Those of images, by far the most, so have the fingerprints that they had before
    there were others.
    """
    reading = {name: section.get(name) for name in ("input", "stretch")}
    reading["classes"] = section["model"].get("classes")
    if reading["input"] in ("image", "segmentation"):  # which `classes` says as well
        del reading["input"]
    return {name: value for name, value in reading.items() if value}
