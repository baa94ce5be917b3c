"""Quantities that change with the step, as functions of a step that may be traced."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def ramp(step: int | jax.Array, *, start: int, length: int) -> jax.Array:
    """Rise linearly from 0 before `start` to 1, reached `length` steps later.

    The step `start` itself is the first above 0; `length` 0 or 1 is a plain switch.
    float32 [] in [0, 1].
    """
    return jnp.clip((step - start + 1) / max(length, 1), 0.0, 1.0)


def warm_up_cosine(
    step: int | jax.Array, values: Sequence[float], steps: Sequence[int]
) -> jax.Array:
    """Rise in a line from a first value to a second, fall by half a cosine to a third.

    values: where it starts, at its peak, at its end; float32 [] comes out.
    steps: when it is at its peak and at its end, where it stays.
    """
    (start, peak, end), (peak_at, end_at) = values, steps
    rising = start + (peak - start) * step / max(peak_at, 1)
    way = jnp.clip((step - peak_at) / max(end_at - peak_at, 1), 0.0, 1.0)
    # (1 + cos(pi way)) / 2, written so that what is left of it near the end is exact
    left = jnp.square(jnp.cos(jnp.pi / 2 * way))
    return jnp.where(step < peak_at, rising, end + (peak - end) * left)
