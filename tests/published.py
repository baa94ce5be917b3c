"""Weights of ours as others publish theirs: by their names, in their layout."""

import re
from collections.abc import Mapping

import numpy as np

from taming_jax.interop.names import (
    AVERAGES,
    GENERATOR,
    PERCEPTUAL,
    VQ_QUANTIZER,
    whole,
)
from taming_jax.interop.tables import to_theirs, under

# A checkpoint of the original's VQModel, with the networks of its loss.
VQ_MODEL = whole(GENERATOR)
# Its EMA quantizer alone; our side: variables by collection.
EMA_QUANTIZER = (
    *under("params/", "", VQ_QUANTIZER),
    *under("codebook/", "", AVERAGES),
)

Tensors = dict[str, np.ndarray]


def published_perceptual(params: Mapping) -> tuple[Tensors, Tensors]:
    """(torchvision's VGG16, the heads of LPIPS v0.1) with these weights of LPIPS."""
    theirs = to_theirs(PERCEPTUAL, params)
    vgg = {
        re.sub(r"net\.slice\d", "features", name): array
        for name, array in theirs.items()
        if name.startswith("net.")
    }
    vgg["classifier.0.weight"] = np.ones((4, 4), np.float32)  # of no use to LPIPS
    heads = {name: array for name, array in theirs.items() if "lin" in name}
    return vgg, heads


def actnorm_completed(variables: Mapping) -> dict:
    """A discriminator's ActNorm as published -> ours: all is in the learned half."""
    stats = {}
    for layer, theirs in variables["batch_stats"].items():
        none = np.zeros_like(variables["params"][layer]["loc"])
        stats[layer] = {
            "loc": none,
            "scale": none.copy(),
            "seen": np.asarray(theirs["seen"]).astype(bool),
        }
    return {**variables, "batch_stats": stats}
