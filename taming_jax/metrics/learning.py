"""How the small networks that measure are trained: the same way, whatever they learn.

network, loss, source --batches of what it keeps, AdamW--> parameters
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import optax

from taming_jax import data
from taming_jax.compilation import jit
from taming_jax.units import from_uint8


def trained(
    network: nn.Module,
    loss: Callable[[Any, Mapping], jax.Array],
    recipe: Any,
    source: data.Source,
    *,
    keep: Sequence[str],
    seed: int,
) -> Any:
    """AdamW with warm-up and cosine over batches of the source.

    Args:
      network: called with images.
      loss: (params, batch) -> float32 [].
      recipe: its steps, batch_size, learning_rate and weight_decay.
      source: of what it learns from.
      keep: what a batch brings; "image" among them.
      seed: of the initial weights and of the order of the examples.

    Returns:
      The parameters.
    """
    optimizer = optax.adamw(
        optax.warmup_cosine_decay_schedule(
            0.0, recipe.learning_rate, recipe.steps // 20, recipe.steps
        ),
        weight_decay=recipe.weight_decay,
    )

    @partial(jit, convolutions=True, donate_argnums=(0, 1))
    def step(params, opt_state, batch):
        grads = jax.grad(loss)(params, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    size = min(recipe.batch_size, len(source))
    batches = data.train_batches(source, batch_size=size, seed=seed, keep=keep)
    batch = next(batches)
    init = jit(lambda key: network.init(key, from_uint8(batch["image"]))["params"])
    params = init(jax.random.key(seed))
    opt_state = optimizer.init(params)
    for _ in range(recipe.steps):
        params, opt_state = step(params, opt_state, batch)
        batch = next(batches)
    return params
