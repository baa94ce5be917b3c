"""From a recipe's numbers to an optimizer, and from gradients to new parameters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from taming_jax.training.recipe import Optimizer


def make_schedule(settings: Optimizer, steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then constant or cosine to the end."""
    if settings.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            init_value=settings.learning_rate / max(1, settings.warmup_steps),
            peak_value=settings.learning_rate,
            warmup_steps=settings.warmup_steps,
            decay_steps=max(steps, settings.warmup_steps + 1),
            end_value=settings.learning_rate * settings.final_share,
        )
    if settings.warmup_steps:
        return optax.linear_schedule(
            settings.learning_rate / settings.warmup_steps,
            settings.learning_rate,
            settings.warmup_steps,
        )
    return optax.constant_schedule(settings.learning_rate)


def make_optimizer(
    settings: Optimizer, steps: int, decays: Callable[[Any], Any] | None = None
) -> optax.GradientTransformation:
    """AdamW (Adam where the decay is 0) after clipping by the global norm.

    `decays` says which parameters the weight decay is for, as a function from their
    tree to one of booleans; None: all of them.

    The state has the same form whatever the rate, the schedule, the decay and the
    clip are, so that all of them may change when a run is continued.
    """
    clip = (
        optax.clip_by_global_norm(settings.clip) if settings.clip else optax.identity()
    )
    return optax.chain(
        clip,
        optax.scale_by_adam(b1=settings.b1, b2=settings.b2),
        optax.add_decayed_weights(settings.weight_decay, mask=decays),
        optax.scale_by_learning_rate(make_schedule(settings, steps)),
    )


def apply_gradients(
    optimizer: optax.GradientTransformation,
    grads: Any,
    opt_state: Any,
    params: Any,
    learning: Any = None,
) -> tuple[Any, Any, jax.Array]:
    """-> (params, opt_state, global norm of the gradients before clipping).

    `learning`, like params, is 1.0 where a parameter learns and 0.0 where it must not
    move at all, neither by its gradient nor by momentum or decay.
    """
    if learning is not None:
        grads = jax.tree.map(jnp.multiply, grads, learning)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    if learning is not None:
        updates = jax.tree.map(jnp.multiply, updates, learning)
    return optax.apply_updates(params, updates), opt_state, optax.tree.norm(grads)
