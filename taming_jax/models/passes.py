"""Passes through a transformer in which each row stands at a place of its own.

    tokens [B,T], last [B] --next_logits--> logits [B,V] of what follows `last`
    tokens [B,t], places [B,t], keys and values --feed--> logits [B,V], keys and values

Windows need these: what is drawn together lies at different places of its windows.
They are functions of a bound `Transformer`: `model.apply(params, ..., method=feed)`.

Legend: as in `transformer`, with S places that keys and values are kept of.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from taming_jax.models import positions
from taming_jax.models.attention import Rotation
from taming_jax.models.transformer import UNROLLED, Transformer
from taming_jax.units import Tokens


def next_logits(model: Transformer, tokens: Tokens, last: jax.Array) -> jax.Array:
    """Logits float32 [B,V] of what follows place `last` [B] of tokens [B,T].

    What comes after it does not matter. The last block, the norm and the head are
    computed at this one place.
    """
    places = jnp.arange(tokens.shape[1])
    x = model._embed(tokens, tokens, places, train=False)
    rotation = positions.rotation(model, places)
    mask = model._mask(places, places) if model.unmasked else None
    block = model._block()

    def layer(x, params):
        return block.apply({"params": params}, x, rotation, mask, train=False)

    x = _through(model, layer, x, model.layers - 1)
    apply = partial(block.apply, {"params": _layer(model, model.layers - 1)})
    _, k, v = apply(x, rotation, method="project")
    x = jnp.take_along_axis(x, last[:, None, None], axis=1)  # [B,1,D]
    if rotation is not None:
        rotation = Rotation(*(part[last][:, None] for part in rotation))
    q, _, _ = apply(x, rotation, method="project")
    mask = (places <= last[:, None])[:, None, None]  # [B,1,1,T]
    x = apply(x, q, k, v, mask, train=False, method="combine")
    return model._logits(x)[:, 0]


def feed(
    model: Transformer,
    tokens: Tokens,
    places: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    history: Tokens,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Tokens [B,t] at places [B,t] -> (logits [B,V] after the last, keys, values).

    Args:
      model: bound.
      tokens: int32 [B,t]; none of the condition.
      places: int32 [B,t]; of those from S on nothing is kept.
      keys: [L,B,G,S,E], of all places before.
      values: likewise.
      history: int32 [B,S], the tokens there, these among them.
    """
    x = model._embed(tokens, history, places, train=False)
    rotation = positions.rotation(model, places)
    mask = places[:, None, :, None] >= jnp.arange(history.shape[1])  # [B,1,t,S]
    block = model._block()

    def layer(carry, params, i):
        x, keys, values = carry
        apply = partial(block.apply, {"params": params}, x)
        q, k, v = apply(rotation, method="project")
        keys, values = _written(keys, i, places, k), _written(values, i, places, v)
        k = lax.dynamic_index_in_dim(keys, i, keepdims=False)
        v = lax.dynamic_index_in_dim(values, i, keepdims=False)
        return apply(q, k, v, mask, train=False, method="combine"), keys, values

    x, keys, values = model._over_layers(layer, (x, keys, values))
    return model._logits(x[:, -1:])[:, 0], keys, values


def _written(kept, i, places, new):
    """[L,B,G,S,E] with [B,G,t,E] of layer i at places [B,t], where there are such.

    A scatter that says that sequences are apart: devices that share them need not ask.
    """
    at = jnp.stack([jnp.broadcast_to(i, places.shape), places], axis=-1)  # [B,t,2]
    which = lax.ScatterDimensionNumbers(
        update_window_dims=(2, 3),
        inserted_window_dims=(0, 3),
        scatter_dims_to_operand_dims=(0, 3),
        operand_batching_dims=(1,),
        scatter_indices_batching_dims=(0,),
    )
    return lax.scatter(kept, at, new.swapaxes(1, 2), which, mode="drop")


def _layer(model: Transformer, i):
    """The parameters of one block."""
    if isinstance(model.blocks, tuple):
        return model.blocks[i]
    return jax.tree.map(
        lambda a: lax.dynamic_index_in_dim(a, i, keepdims=False), model.blocks
    )


def _through(model: Transformer, layer, x, count: int):
    """Apply `layer(x, params) -> x` for the first blocks, in a loop if they are many.

    The loop takes them out of all: a slice of the first ones would be copied.
    """
    if model.layers > UNROLLED:
        return lax.fori_loop(0, count, lambda i, x: layer(x, _layer(model, i)), x)
    for i in range(count):
        x = layer(x, _layer(model, i))
    return x
