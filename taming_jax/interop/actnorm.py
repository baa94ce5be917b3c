"""The original's ActNorm and ours: one loc and scale there, two halves of each here.

    theirs  loc, scale                                         initialized
    ours    loc, scale, learned + loc, scale of the first batch    seen

A tree of names (`DISCRIMINATOR_ACTNORM`) has what is theirs. Here it becomes the
learned half, and the other one is zero; on the way back the halves are added.
"""

from collections.abc import Mapping

import numpy as np


def joined(variables: Mapping) -> dict:
    """Ours -> theirs: both halves in one, and whether a first batch was seen.

    Takes and gives {"params": {layer: ...}, "batch_stats": {layer: ...}}.
    """
    params, stats = dict(variables["params"]), {}
    for layer, ours in variables["batch_stats"].items():
        params[layer] = {k: params[layer][k] + ours[k] for k in ("loc", "scale")}
        stats[layer] = {"seen": np.asarray(ours["seen"]).astype(np.uint8)}
    return {**variables, "params": params, "batch_stats": stats}
