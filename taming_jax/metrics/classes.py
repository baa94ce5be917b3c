"""How far two batches of class maps agree: pixel accuracy and mean IoU.

Maps are int [B,H,W] with classes in [0, n). Counts are of each picture, so that they
can be added up over a data set: its IoU is of the sums, not a mean over pictures.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def pixel_accuracy(truth, found) -> jax.Array:
    """The share of pixels whose class is right: float32 [B]."""
    return jnp.mean(truth == found, axis=(1, 2))


def overlaps(truth, found, classes: int) -> tuple[jax.Array, jax.Array]:
    """Pixels in the intersection and in the union of each class: float32 [B,n] both."""
    count = jax.vmap(functools.partial(jnp.bincount, length=classes + 1))
    rows = len(truth), -1
    both = jnp.where(truth == found, truth, classes)  # one class more: the rest
    both, truth, found = (
        count(maps.reshape(rows))[:, :classes].astype(jnp.float32)
        for maps in (both, truth, found)
    )
    return both, truth + found - both


def mean_iou(intersections, unions) -> float:
    """Mean over the classes of [n] that occur at all, in [0, 1]."""
    intersections, unions = np.asarray(intersections), np.asarray(unions)
    occurs = unions > 0
    return float(np.mean(intersections[occurs] / unions[occurs]))
