"""What the vector of a token says before the first block: itself, and where it is.

    tokens [B,t] at places [t] or [B,t] of the history [B,S] -> float [B,t,D]

A sum: the token, its position, and of the token to come its position, what the
condition says there and the code above it; each where the `Transformer` has it.
"""

import jax
import jax.numpy as jnp

from taming_jax.models import positions
from taming_jax.units import Tokens


def embed(
    model, tokens: Tokens, history: Tokens, places, embeddings=None, shuffle=None
) -> jax.Array:
    """The vectors of tokens, float32 [B,t,D].

    Args:
      model: a bound `Transformer`.
      tokens: int32 [B,t].
      history: int32 [B,S], all tokens up to the last of these; what comes after them
        is not looked at.
      places: int32 [t] or [B,t], where in the history they stand.
      embeddings: float [B,P,D], what comes before them in place of tokens; t of
        `places` counts these, too.
      shuffle: int32 [B,N], see `positions.homes`.
    """
    x = model.embedding[tokens]
    if embeddings is not None:
        x = jnp.concatenate([embeddings, x], axis=1)
    if model.learned_positions:
        x += model.positions[positions.homes(places, model.prefix, shuffle)]
    target = positions.targets(places, model.prefix, shuffle)
    if model.target_positions:
        at = jnp.clip(target, 0, len(model.targets) - 1)
        x += _where(target >= 0, model.targets[at])
    if model.condition_everywhere:
        for at in positions.told(model, target):
            x += _where(target >= 0, model.embedding[_taken(history, at)])
    if model.above:
        over = positions.above(model.grid, model.prefix, model.order)
        over = jnp.asarray(over)[places]
        codes = _taken(history, jnp.maximum(over, 0))
        x += _where(over >= 0, model.embedding_above[codes])
    return x


def _taken(history, at) -> jax.Array:
    """Tokens of the history [B,S] at [t] or [B,t] -> [B,t]."""
    at = jnp.broadcast_to(at, (len(history), at.shape[-1]))
    return jnp.take_along_axis(history, at, axis=1)


def _where(there, vectors) -> jax.Array:
    return jnp.where(there[..., None], vectors, 0.0)
