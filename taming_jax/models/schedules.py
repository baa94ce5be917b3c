"""Quantities that change with the step, as functions of a step that may be traced."""

import jax
import jax.numpy as jnp


def ramp(step: int | jax.Array, *, start: int, length: int) -> jax.Array:
    """Rise linearly from 0 before `start` to 1, reached `length` steps later.

    The step `start` itself is the first above 0; `length` 0 or 1 is a plain switch.
    float32 [] in [0, 1].
    """
    return jnp.clip((step - start + 1) / max(length, 1), 0.0, 1.0)
