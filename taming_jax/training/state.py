"""The train state: everything that changes from step to step, in one pytree.

What is not in here is not remembered: a run continues from this and its recipe
alone. There is no random key, because every key is made from (seed, step, purpose).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from taming_jax.training.usage import CodeWindow

# Of `Adversary.stats`, what is no variable of the discriminator.
MEMORY = "memory"


@struct.dataclass
class Adversary:
    """The discriminator's part of the state."""

    params: Any
    stats: Any  # what its modules keep, and what its regularisation remembers
    opt_state: Any


@struct.dataclass
class TrainState:
    """State of a stage; what a stage does not have is None."""

    step: jax.Array  # int32 [], also the position in the data
    params: Any
    codebook: Any  # what the quantizer carries along besides parameters
    opt_state: Any
    ema: Any  # like params: their exponential moving average
    adversary: Adversary | None
    usage: CodeWindow | None
    nonfinite: jax.Array  # int32 [], steps that were thrown away


def ema_update(ema: Any, params: Any, decay: float, step: jax.Array) -> Any:
    """Exponential moving average, with a shorter memory in the first steps."""
    decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda e, p: e + (1.0 - decay) * (p - e), ema, params)


def where_tree(condition: jax.Array, if_true: Any, if_false: Any) -> Any:
    """`jnp.where` leaf by leaf, for a scalar condition."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), if_true, if_false)


def advance(
    state: TrainState, renewed: TrainState, terms: list[jax.Array]
) -> tuple[TrainState, jax.Array]:
    """The next state: `renewed`, or the old one where a term is NaN or infinite.

    Terms are scalars; the second result is the index of the first bad one, -1 if all
    are finite. `step` goes on either way, so that the data do.
    """
    finite = jnp.isfinite(jnp.stack(terms))
    good = finite.all()
    kept = where_tree(good, renewed, state)
    kept = kept.replace(step=state.step + 1, nonfinite=state.nonfinite + ~good)
    return kept, jnp.where(good, -1, jnp.argmin(finite)).astype(jnp.int32)
