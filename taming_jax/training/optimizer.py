"""From a recipe's numbers to an optimizer, and from gradients to new parameters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from taming_jax.training.recipe import Optimizer

# Of the entries of a step, as AdamW usually has it (Liu et al. 2025, section 2.2).
_UPDATE_RMS = 0.2


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
    settings: Optimizer,
    steps: int,
    decays: Callable[[Any], Any] | None = None,
    matrices: Callable[[Any], Any] | None = None,
) -> optax.GradientTransformation:
    """AdamW (Adam where the decay is 0) after clipping by the global norm.

    With `settings.muon` matrices go orthogonalised steps instead (Jordan et al. 2024).

    The state has the same form whatever the rate, the schedule, the decay and the
    clip are, so that all of them may change when a run is continued; so may the factor
    of Muon, unless it becomes or leaves 0.

    Args:
      settings: of a recipe.
      steps: of the run, for the schedule.
      decays: which parameters the weight decay is for, as a function from their tree to
        one of booleans; None: all of them.
      matrices: likewise, which are matrices in their last two axes; None: nobody says.

    Raises:
      ValueError: for Muon where nobody says what the matrices are.
    """
    clip = (
        optax.clip_by_global_norm(settings.clip) if settings.clip else optax.identity()
    )
    directions = optax.scale_by_adam(b1=settings.b1, b2=settings.b2)
    if settings.muon and matrices is None:
        raise ValueError(
            f"optimizer.muon={settings.muon:g}, and only priors have it: leave it out"
        )
    if settings.muon:
        directions = optax.partition(
            {True: _orthogonal(settings.muon), False: directions}, matrices
        )
    return optax.chain(
        clip,
        directions,
        optax.add_decayed_weights(settings.weight_decay, mask=decays),
        optax.scale_by_learning_rate(make_schedule(settings, steps)),
    )


def _orthogonal(scale: float) -> optax.GradientTransformation:
    """Momentum made orthogonal, whose entries are as large as AdamW's, times a scale.

    Every leaf is a stack of matrices [..., in, out].
    """

    def last_two(updates):
        return jax.tree.map(lambda _: contrib.MuonDimensionNumbers(-2, -1), updates)

    def as_large(updates, params=None):
        del params
        return jax.tree.map(
            lambda u: scale * _UPDATE_RMS * max(u.shape[-2:]) ** 0.5 * u, updates
        )

    return optax.chain(
        contrib.scale_by_muon(weight_dimension_numbers=last_two),
        optax.stateless(as_large),
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
