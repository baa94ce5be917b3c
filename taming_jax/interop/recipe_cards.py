"""The recipe of published models, and a card that trains them further.

published(models) -> recipe, whole, as in a run's config.json
write_card(path, recipe, brought, ...)    a card in the manner of configs/*.py
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from taming_jax.conditions.table import coded, requested
from taming_jax.files import whole_file
from taming_jax.interop.original import Tokenizer
from taming_jax.interop.prior_form import Prior

_FOLDER = {
    "name": "folder",
    "train": None,
    "val": None,
    "crop": "random",
    "zoom": 1.0,
    "flip": True,
}
_WIDTH = 60
_BATCH_SIZE = 12  # of the paper's tokenizers
_PRIOR_FURTHER = {
    "learning_rate": 3e-5,
    "optimizer": {
        "b1": 0.9,
        "b2": 0.95,
        "weight_decay": 0.01,
        "clip": 1.0,
        "warmup_steps": 500,
    },
    "steps": 20_000,
    "batch_size": 8,
    "image_every": 500,
    "eval_every": 1_000,
    "eval_examples": 1_000,
    "checkpoint_every": 1_000,
}
_FURTHER = {
    "disc_start": 0,
    "adversarial_ramp": 2_000,
    "learning_rate": 5e-5,
    "disc_learning_rate": 5e-5,
    "optimizer": {"b1": 0.5, "b2": 0.9, "clip": 1.0, "warmup_steps": 500},
    "steps": 20_000,
    "batch_size": 8,
    "image_every": 500,
    "eval_every": 1_000,
    "eval_examples": 1_000,
    "checkpoint_every": 1_000,
}


def published(models: Mapping[str, Tokenizer | Prior]) -> dict[str, Any]:
    """The recipe by which models, by their stage, were trained.

    What nobody published, such as the number of steps, is as in configs/imagenet.py.
    """
    return {
        "seed": 0,
        "data": {**_FOLDER, "image_size": next(iter(models.values())).resolution},
        **{
            stage: model.section() if isinstance(model, Prior) else _section(model)
            for stage, model in models.items()
        },
        "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
    }


def write_card(
    path: Path,
    recipe: Mapping[str, Any],
    brought: Mapping[str, Collection[str]],
    *,
    condition: Any = None,
    has_tokenizer: bool = True,
) -> None:
    """Writes a card that trains a converted model further, on other pictures.

    Args:
      path: of the card, in the model's directory; both may be moved together.
      recipe: as the model was trained.
      brought: what there is besides the model, by stage: "discriminator", "perceptual".
      condition: what a prior is told when it learns on; None: there is none, or nothing
        reads what it is told.
      has_tokenizer: whether a prior's tokenizer is there.
    """
    sections = {
        stage: _further(recipe[stage], stage, parts)
        for stage, parts in brought.items()
        if stage != "prior"
    }
    data, flags, maps = dict(recipe["data"]), "--config.data.train=DIR", ""
    if "prior" in brought and condition is not None:
        section = {**recipe["prior"], "condition": condition}
        sections["prior"] = _prior_further(section, has_tokenizer)
        if kinds := coded(name for name, _ in requested(condition)):
            sections["prior"]["condition_tokenizer"] = _Code("str(HERE)")
            data["train_maps"] = data["val_maps"] = dict.fromkeys(kinds)
            flags += f" \\\n      --config.data.train_maps.{kinds[0]}=MAPS"
            maps = _OF_MAPS
    text = _CARD.format(
        commands="\n".join(
            f"    python train_{'prior' if stage == 'prior' else 'vqgan'}.py --config "
            f"{path.name} --workdir W {flags}"
            for stage in sections
            if stage != "condition_vqgan"
        ),
        maps=maps,
        seed=recipe["seed"],
        data=_source(data, 1),
        sections="\n".join(f"    config.{stage} = _{stage}()" for stage in sections),
        mesh=_source(recipe["mesh"], 1),
        functions="\n\n".join(
            f"\ndef _{stage}() -> dict:\n    return {_source(section, 1)}"
            for stage, section in sections.items()
        ),
    )
    with whole_file(path) as file:
        file.write(text.encode())


class _Code(str):
    """What stands in a card as it is."""


def _section(tokenizer: Tokenizer) -> dict[str, Any]:
    images = {} if tokenizer.model["classes"] else _OF_IMAGES
    trained = {"optimizer": {"b1": 0.5, "b2": 0.9}, **tokenizer.trained}
    optimizer = trained.pop("optimizer")
    start, rate = trained.get("disc_start", 0), tokenizer.rate * _BATCH_SIZE
    return {
        "model": {**tokenizer.model, "dtype": "float32", "remat": False},
        "discriminator": trained.pop("discriminator"),
        **images,
        "adaptive_weight": True,
        **trained,
        "disc_start": start,
        "adversarial_start": start,
        "adversarial_ramp": 0,
        "learning_rate": rate,
        "disc_learning_rate": rate,
        "optimizer": optimizer,
        "ema_decay": 0.999,
        "steps": 1_000_000,
        "batch_size": _BATCH_SIZE,
        "accumulate": 1,
        "log_every": 100,
        "image_every": 5_000,
        "eval_every": 10_000,
        "eval_examples": 2_000,
        "checkpoint_every": 5_000,
        "keep_checkpoints": 3,
        "stall_seconds": 1_800,
        "on_nonfinite": "stop",
        "init_from": None,
    }


_OF_IMAGES = {"l1_weight": 1.0, "l2_weight": 0.0, "perceptual_weights": None}


def _further(section: Mapping[str, Any], stage: str, parts: Collection[str]) -> dict:
    """The section with what training on needs; `parts` are those that are there.

    A discriminator that is new, or knows other pictures, learns before it counts.
    """
    further = {**section, **_FURTHER, "init_from": _Code("str(HERE)")}
    further["adversarial_start"] = 500 if "discriminator" in parts else 2_000
    if "perceptual" in parts:
        weights = f'str(HERE / "{stage}" / "perceptual.npz")'
        further["perceptual_weights"] = _Code(weights)
    return further


def _prior_further(section: Mapping[str, Any], has_tokenizer: bool) -> dict:
    """Of a prior, likewise; DIR's classes are said with the first of its labels."""
    tokenizer = _Code("str(HERE)") if has_tokenizer else None
    return {
        **section,
        **_PRIOR_FURTHER,
        "tokenizer": tokenizer,
        "init_from": _Code("str(HERE)"),
    }


# What stands above an entry.
_HEADINGS = {"learning_rate": "# optimizer", "steps": "# run"}


def _source(value: Any, depth: int) -> str:
    """Python for a value; a dict takes a line for each entry unless one holds it.

    depth: of the line that it begins on, in steps of four.
    """
    match value:
        case _Code():
            return value
        case None:
            return "placeholder(str)"
        case bool() | float():
            return repr(value)
        case int():
            return f"{value:_}"
        case str():
            return json.dumps(value)
        case list() | tuple():
            comma = "," if len(value) == 1 else ""
            return f"({', '.join(_source(v, depth) for v in value)}{comma})"
    entries = {key: f"{key}={_source(v, depth + 1)}" for key, v in value.items()}
    in_line = f"dict({', '.join(entries.values())})"
    if len(in_line) < _WIDTH and "\n" not in in_line:
        return in_line
    indent, lines = "    " * (depth + 1), []
    for key, entry in entries.items():
        lines += [f"{indent}{_HEADINGS[key]}\n"] if key in _HEADINGS else []
        lines += [f"{indent}{entry},\n"]
    return f"dict(\n{''.join(lines)}{indent[4:]})"


_OF_MAPS = """
MAPS has what the prior is told: a map for each picture, of the same name but for its
ending.
"""
_CARD = '''r"""A published model, converted, and trained further.

{commands}

DIR has pictures, or what else there is a tokenizer of: class maps, depth. What it
begins with lies beside this card; move them together. Low rates, because most is known
already, and a discriminator that learns before it counts: a new one, or one that knows
other pictures, would blur what the model can do.
{maps}"""

from pathlib import Path

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

HERE = Path(__file__).resolve().parent


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = {seed}
    config.data = {data}
{sections}
    config.mesh = {mesh}
    return config

{functions}
'''
