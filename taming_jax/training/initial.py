"""Starting from weights that another run has learned, instead of from chance.

path --stored--> averaged weights, codebook's statistics, discriminator --> state
"""

from collections.abc import Mapping
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from taming_jax import processes, stored
from taming_jax.models.quantizers import kind_of
from taming_jax.training.initial_prior import fitted
from taming_jax.training.state import MEMORY, Adversary, TrainState


def start_from(
    path: str | None,
    state: TrainState,
    stage: str,
    settings: Mapping[str, Any] | None = None,
) -> TrainState:
    """The first state with the averaged weights of the model at `path`, if given.

    A tokenizer's discriminator comes along where it was kept and is of the same form;
    a new one begins otherwise, and it is said. Optimizers and counters are those of a
    new run. A prior's new classes begin with what its first ones are, and the positions
    of another grid lie between those that it learned.

    Args:
      path: of a run, an exported or a converted model, as `stored.find` takes it.
      state: at step 0.
      stage: whose weights they are.
      settings: of a tokenizer, the fields that it is built from; of a prior, keywords
        of `initial_prior.fitted`. None: shapes alone are compared.

    Raises:
      ValueError: if there are no weights, or they are another model's.
    """
    if path is None:
        return state
    model = _read(path, state.params, stage, settings)
    stage = model.stage  # of tokenizers the other kind, where only that is there
    params = _placed(model.variables["params"], state.params)
    state = state.replace(params=params, ema=jax.tree.map(lambda p: p.copy(), params))
    if _shapes(model.variables["codebook"]) == _shapes(state.codebook):
        state = state.replace(
            codebook=_placed(model.variables["codebook"], state.codebook)
        )
    elif "basis" in state.codebook.get("quantizer", {}):
        raise ValueError(
            f"init_from={path} brings not all that its quantizer carries along, and "
            "codes are made of its basis: give the run itself, or export it again"
        )
    if state.adversary is None:
        return state
    return state.replace(adversary=_adversary(path, state.adversary, stage))


def check_start(
    path: str, params: Any, stage: str, settings: Mapping[str, Any] | None = None
) -> None:
    """Raises ValueError where `start_from` would, for parameters given by shapes."""
    _read(path, params, stage, settings)


def _read(path, params, stage, settings) -> stored.Stored:
    model = stored.read(path, stored.stage_at(path, stage))
    if settings is not None and model.stage in stored.TOKENIZERS:
        _check_quantizer(path, model.config[model.stage]["model"], settings)
    elif settings is not None:
        model = fitted(path, model, params, **settings)
    theirs, ours = _shapes(model.variables["params"]), _shapes(params)
    odd = sorted(k for k in theirs.keys() | ours.keys() if theirs.get(k) != ours.get(k))
    if odd:
        raise ValueError(
            f"init_from={path} is another model: {len(odd)} parameters differ, "
            f"first {odd[0]}: {theirs.get(odd[0])} there, {ours.get(odd[0])} here"
        )
    return model


def _check_quantizer(path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Parameters may be alike where codes are not, or there may be none."""
    there, here = (kind_of(model.get("quantizer", {})) for model in (theirs, ours))
    if there != here:
        raise ValueError(
            f"init_from={path} has another quantizer: {there}, and here it is {here}; "
            "set model.quantizer as it is there, or start without init_from"
        )


def _adversary(path: str, new: Adversary, stage: str) -> Adversary:
    """The discriminator at `path`, or the new one.

    Its optimizer, and what its regularisation remembers, are new either way.
    """
    stats = dict(new.stats)
    memory = {MEMORY: stats.pop(MEMORY)} if MEMORY in stats else {}
    ours = {"params": new.params, **stats}
    theirs = stored.read_discriminator(path, stage)
    if theirs is None or _shapes(theirs) != _shapes(ours):
        reason = "brings no discriminator" if theirs is None else "has another one"
        if processes.is_first():
            print(f"init_from={path} {reason}: a new one begins to learn", flush=True)
        return new
    placed = dict(_placed(theirs, ours))
    return new.replace(params=placed.pop("params"), stats=placed | memory)


def _placed(arrays: Any, like: Any) -> Any:
    """The arrays where those of `like` lie, in their dtype."""
    return jax.tree.map(
        lambda new, old: jax.device_put(new.astype(old.dtype), old.sharding),
        arrays,
        like,
    )


def _shapes(tree: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in flatten_dict(tree, sep="/").items()}
