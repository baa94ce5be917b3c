"""Which codes of a published tokenizer are used, where not all of them are.

The original keeps their numbers twice: in a file that the configuration names, and
among the tensors. Either is enough; both must agree.
"""

import dataclasses
from pathlib import Path

import numpy as np

from taming_jax.interop.contents import Tensors
from taming_jax.interop.original import Tokenizer
from taming_jax.models.vqgan import VQGAN

_TENSOR = "quantize.used"


def with_used_codes(tokenizer: Tokenizer, tensors: Tensors) -> Tokenizer:
    """The configuration with the list of used codes, if there is one.

    Raises:
      ValueError: if the list is wanted and not there, does not fit the codebook, or is
        another one in the file than among the tensors.
    """
    lists = []
    if _TENSOR in tensors:
        lists.append(tensors[_TENSOR].read())
    if tokenizer.remap and (not lists or Path(tokenizer.remap).is_file()):
        lists.append(_read(tokenizer.remap))
    if not lists:
        return tokenizer
    if not np.array_equal(lists[0], lists[-1]):
        raise ValueError(
            f"the codes that {tokenizer.remap} lists are not those of the checkpoint's "
            f"{_TENSOR}: it was made for another model; remove it, or its line in the "
            "configuration"
        )
    quantizer = {**tokenizer.model["quantizer"], "used": lists[0].tolist()}
    model = {**tokenizer.model, "quantizer": {**quantizer, "unknown": "random"}}
    VQGAN(**model)  # or what does not fit is said here
    return dataclasses.replace(tokenizer, model=model)


def _read(path: str) -> np.ndarray:
    if not Path(path).is_file():
        raise ValueError(
            f"the configuration's remap is {path!r}, and there is no such file; put it "
            "beside the .yaml"
        )
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is no list of used codes: {error}") from error
