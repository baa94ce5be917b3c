"""Does a prior of coordinates know what belongs where? Crops, and where they lie.

A held-out picture is cut in its upper left and its lower right corner. Each crop is
told where it lies, and where the other one does: a prior that knows finds it likelier
where it belongs.

    crops [2n,S,S,3], codes --told rightly, told wrongly--> share found likelier rightly
"""

import itertools
import math
from collections.abc import Mapping

import numpy as np

from taming_jax.conditions.table import Condition
from taming_jax.data.pipeline import ordered_batches
from taming_jax.metrics.likelihood import condition_of, nats_of
from taming_jax.units import from_uint8

# What is drawn of CHANCES in either corner: across, down, and no mirror.
_CORNERS = np.float32([[0.0, 0.0, 0.75], [0.999, 0.999, 0.75]])


def can_be_told_apart(told: Mapping[str, Condition], held_out) -> bool:
    """Whether a prior is told where crops lie, and these data can be cut anywhere."""
    cut = "coordinates" in told and told["coordinates"].cut
    return cut and "down" in held_out.chances


def told_apart(prior, held_out, *, count: int, batch_size: int) -> float:
    """The share of crops that are likelier told rightly than wrongly; by chance 0.5.

    Equally likely ones count by half. Pictures that are no larger than a crop are left
    out; NaN of none. Every process measures all.

    Args:
      prior: one that is told coordinates of crops.
      held_out: a source of these.
      count: of the pictures, each of which is cut twice.
      batch_size: of everything that is computed; crops of a picture go together.
    """
    rows = 2 * max(1, batch_size // 2)
    keep = tuple(dict.fromkeys(("image", "index", *prior.vocabulary.entries)))
    batches = ordered_batches(held_out, batch_size=rows, views=_CORNERS, keep=keep)
    found, other = [], np.arange(rows) ^ 1
    for batch in itertools.islice(batches, math.ceil(2 * count / rows)):
        codes = prior.tokenizer().encode(from_uint8(batch["image"]))
        _, rightly = condition_of(prior, batch)
        where = np.asarray(rightly["coordinates"])
        wrongly = rightly | {"coordinates": where[other]}
        likelier = nats_of(prior, codes, wrongly) - nats_of(prior, codes, rightly)
        apart = batch["mask"] & (where != where[other]).any((1, 2))
        found += ((np.sign(likelier) + 1) / 2)[apart].tolist()
    return float(np.mean(found)) if found else float("nan")
