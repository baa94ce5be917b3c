"""Starting from weights that another run has learned, instead of from chance."""

from typing import Any

import jax
from flax.traverse_util import flatten_dict

from taming_jax import stored
from taming_jax.training.state import TrainState


def start_from(path: str | None, state: TrainState, stage: str) -> TrainState:
    """The first state with the averaged weights of the model at `path`, if given.

    Optimizers, adversary and counters are those of a new run.

    Args:
      path: of a run or an exported model, as `stored.find` takes it.
      state: at step 0.
      stage: whose weights they are.

    Raises:
      ValueError: if there are no weights, or they are another model's.
    """
    if path is None:
        return state
    params = jax.tree.map(
        lambda new, old: jax.device_put(new, old.sharding),
        read_params(path, state.params, stage),
        state.params,
    )
    return state.replace(params=params, ema=jax.tree.map(lambda p: p.copy(), params))


def read_params(path: str, params: Any, stage: str) -> Any:
    """The averaged parameters of the model at `path`, if they are like `params`.

    Raises:
      ValueError: as `start_from`.
    """
    theirs = stored.read(path, stage).variables["params"]
    _check_same(path, theirs, params)
    return theirs


def _check_same(path: str, theirs, ours) -> None:
    theirs = {k: v.shape for k, v in flatten_dict(theirs, sep="/").items()}
    ours = {k: v.shape for k, v in flatten_dict(ours, sep="/").items()}
    odd = sorted(k for k in theirs.keys() | ours.keys() if theirs.get(k) != ours.get(k))
    if odd:
        raise ValueError(
            f"init_from={path} is another model: {len(odd)} parameters differ, "
            f"first {odd[0]}: {theirs.get(odd[0])} there, {ours.get(odd[0])} here"
        )
