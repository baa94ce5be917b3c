"""The original's ActNorm and ours: one loc and scale there, two halves of each here.

    theirs  loc, scale                                         initialized
    ours    loc, scale, learned + loc, scale of the first batch    seen

A tree of names (`DISCRIMINATOR_ACTNORM`) has what is theirs. `completed` makes it ours,
with nothing in the second half; `joined` is the way back, by which the halves are
added. Both take and give {"params": {layer: ...}, "batch_stats": {layer: ...}}.
"""

from collections.abc import Mapping

import numpy as np


def completed(variables: Mapping) -> dict:
    """Theirs -> ours: all of it is in the learned half."""
    stats = {}
    for layer, theirs in variables["batch_stats"].items():
        none = np.zeros_like(variables["params"][layer]["loc"])
        stats[layer] = {
            "loc": none,
            "scale": none.copy(),
            "seen": np.asarray(theirs["seen"]).astype(bool),
        }
    return {**variables, "batch_stats": stats}


def joined(variables: Mapping) -> dict:
    """Ours -> theirs: both halves in one, and whether a first batch was seen."""
    params, stats = dict(variables["params"]), {}
    for layer, ours in variables["batch_stats"].items():
        params[layer] = {k: params[layer][k] + ours[k] for k in ("loc", "scale")}
        stats[layer] = {"seen": np.asarray(ours["seen"]).astype(np.uint8)}
    return {**variables, "params": params, "batch_stats": stats}
