"""A trained model as it lies on disk: where it is, what it is, and its weights.

    path, stage --find--> directory --read--> Stored --write--> another directory

    W/STAGE/{config.json, checkpoints/}     a stage of a run, as training leaves it
    DIR/STAGE/{config.json, weights.npz}    exported: its averaged weights alone
    "shapes"                                a name: exported, and part of this package

Variables are {"params": ..., "codebook": ...}, trees of numpy arrays. Nothing here
knows what the models are.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from taming_jax import fingerprint, npz
from taming_jax.files import located, reached, write_json
from taming_jax.ranking import Best, best_by, read_parts

ASSETS = epath.Path(__file__).parent / "assets"
TOKENIZERS = ("vqgan", "condition_vqgan")
# What is never rounded.
_EXACT = ("params/quantizer/", "codebook/")


@dataclasses.dataclass(frozen=True)
class Stored:
    """A model with its weights.

    Attributes:
      directory: where it was found, W/STAGE for example.
      stage: "vqgan", "condition_vqgan" or "prior".
      record: all of its config.json.
      step: of the checkpoint.
      variables: the averaged (EMA) weights; floating ones are float32.
    """

    directory: epath.Path
    stage: str
    record: Mapping[str, Any]
    step: int
    variables: Mapping[str, Any]

    @property
    def config(self) -> Mapping[str, Any]:
        """The whole recipe card that it was trained with."""
        return self.record["config"]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of a tokenizer: see `fingerprint.of_codes`."""
        return fingerprint.of_codes(self.config[self.stage], self.variables)


def find(path: str | PurePath, stage: str) -> epath.Path:
    """The directory of a stage: one that has its config.json.

    Args:
      path: of a run, an exported model, or a stage of either; gs:// too. What is no
        path may be the name of a model that the package brings along.
      stage: "vqgan", "condition_vqgan" or "prior".

    Raises:
      ValueError: if there is none, or a bucket cannot be looked into.
    """
    directory = _directory(path, stage)
    if directory is not None:
        return directory
    there = located(path).exists() or str(path) in bundled()
    state = f"it has no trained {stage}" if there else "it does not exist"
    names = ", ".join(bundled())
    raise ValueError(
        f"no model at {str(path)!r}: {state}; give the directory of a run or of an "
        f"exported model, W or W/{stage}"
        + (f", or a name out of {names}" if names else "")
    )


def read_record(path: str | PurePath, stage: str) -> dict[str, Any]:
    """All of a stage's config.json; raises ValueError as `find` does."""
    return json.loads((find(path, stage) / "config.json").read_text())


def is_there(path: str | PurePath, stage: str) -> bool:
    """Whether `find` finds it."""
    return _directory(path, stage) is not None


def stage_at(path: str | PurePath, wanted: str = "vqgan") -> str:
    """The wanted stage; of tokenizers the other kind, where only that is there."""
    if wanted not in TOKENIZERS:
        return wanted
    there = (stage for stage in (wanted, *TOKENIZERS) if is_there(path, stage))
    return next(there, wanted)


def bundled() -> tuple[str, ...]:
    """The names of the models that the package brings along."""
    if not ASSETS.is_dir():
        return ()
    return tuple(sorted(entry.name for entry in ASSETS.iterdir() if entry.is_dir()))


def read(
    path: str | PurePath,
    stage: str,
    best: bool = False,
    *,
    dtype: Any = np.float32,
    put: Callable[[str, np.ndarray], Any] = lambda _, array: array,
) -> Stored:
    """Reads the averaged weights of a stage's newest checkpoint.

    Args:
      path: as `find` takes it.
      stage: "vqgan", "condition_vqgan" or "prior".
      best: the best checkpoint by `best_by` instead; an exported model has only one.
      dtype: of floating arrays.
      put: what becomes of an array as soon as it is read, by its name: "params/...".
        Of an exported model there is never more than one array besides what this
        gives, so that a large one takes no more memory than it has to.

    Raises:
      ValueError: if there is none, or it is damaged.
    """
    directory = find(path, stage)
    record = json.loads((directory / "config.json").read_text())
    if (directory / "weights.npz").exists():
        variables = {"params": {}, "codebook": {}}
        variables |= unflatten_dict(
            npz.read(directory / "weights.npz", dtype, put), sep="/"
        )
        step = record["step"]
    else:
        metric = best_by(record["config"], stage) if best else None
        step, variables = read_checkpoint(directory, metric)
        flat = flatten_dict(variables, sep="/", keep_empty_nodes=True)
        for name, array in flat.items():
            if isinstance(array, np.ndarray):
                flat[name] = put(name, _floating_as(array, dtype))
        variables = unflatten_dict(flat, sep="/")
    return Stored(directory, stage, record, step, variables)


def read_checkpoint(
    stage_dir: str | PurePath, best: Best | None = None
) -> tuple[int, dict[str, Any]]:
    """The averaged weights of the newest checkpoint, or of the best by a metric.

    Returns:
      (step, variables) as numpy arrays: see `ranking.read_parts`.

    Raises:
      ValueError: if there is no checkpoint, or none that is sound.
    """
    step, parts = read_parts(stage_dir, ("ema", "codebook"), best)
    return step, {"params": parts["ema"], "codebook": parts["codebook"]}


def read_discriminator(path: str | PurePath, stage: str) -> dict[str, Any] | None:
    """The discriminator that a tokenizer was trained against.

    Its variables, {"params": ..., "batch_stats": ...}; None where there was none, or it
    was not kept. `path` and `stage` are as `find` takes them; raises ValueError as
    `read` does.
    """
    directory = find(path, stage)
    if (directory / "weights.npz").exists():
        kept = directory / "discriminator.npz"
        return unflatten_dict(npz.read(kept), sep="/") if kept.exists() else None
    _, parts = read_parts(directory, ("adversary",))
    adversary = parts["adversary"]
    if not adversary:
        return None
    kept = adversary.get("stats", {}).get("batch_stats")
    return {"params": adversary["params"], **({"batch_stats": kept} if kept else {})}


def write(
    directory: str | PurePath, model: Stored, *, dtype: str, card: Mapping[str, Any]
) -> None:
    """Writes an exported model, config.json and weights.npz, into a directory.

    Args:
      directory: made if it is not there.
      model: what is written; its record is kept.
      dtype: of the weights, one of `npz.DTYPES`. The quantizer's stay float32 in any
        case: half a bit in its distances flips codes.
      card: what else people should know of it, in JSON's types.

    Raises:
      ValueError: for another dtype, or one that does not hold the weights.
    """
    about = {"stage": model.stage, "step": model.step, "card": dict(card)}
    arrays = flatten_dict(dict(model.variables), sep="/").items()
    write_parts(directory, {**model.record, **about}, arrays, dtype=dtype)


def write_parts(
    directory: str | PurePath,
    record: Mapping[str, Any],
    arrays: Iterable[tuple[str, np.ndarray]],
    *,
    dtype: str,
) -> None:
    """As `write`; of the arrays, by flat names, only one need be in memory at a time.

    Args:
      directory: as for `write`.
      record: all of config.json; it says stage and step.
      arrays: "params/..." and "codebook/...".
      dtype: as for `write`.

    Raises:
      ValueError: as `write`.
    """
    if dtype not in npz.DTYPES:
        raise ValueError(
            f"dtype is {dtype!r}; weights are kept as {' or '.join(npz.DTYPES)}"
        )
    rounded = (
        (name, array if name.startswith(_EXACT) else npz.rounded(name, array, dtype))
        for name, array in arrays
    )
    directory = located(directory)
    directory.mkdir(parents=True, exist_ok=True)
    npz.write(directory / "weights.npz", rounded)
    write_json(directory / "config.json", record)


def _directory(path: str | PurePath, stage: str) -> epath.Path | None:
    given = located(path)
    with reached(given, "the model"):
        if not given.exists() and str(path) in bundled():
            given = ASSETS / str(path)
        for directory in (given / stage, given):
            if (directory / "config.json").exists() and _holds(directory, stage):
                return directory
    return None


def _holds(directory: epath.Path, stage: str) -> bool:
    """Whether it is of this stage, by its name or, if exported, by what it says."""
    if directory.name == stage:
        return True
    return json.loads((directory / "config.json").read_text()).get("stage") == stage


def _floating_as(array: np.ndarray, dtype) -> np.ndarray:
    floating = array.dtype.kind == "f"
    return array.astype(dtype, copy=False) if floating else array
