"""What CONFIG may be: a published model's .yaml, its name, or LlamaGen's arguments.

read(config) -> {"vqgan": Tokenizer}             a tokenizer's
                {"vqgan": ..., "condition_vqgan": ..., "prior": Prior}
                                                 a transformer's of the original, which
                                                 carries its tokenizers along
                {"prior": Prior}                 LlamaGen's transformer
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taming_jax.interop.known import KNOWN
from taming_jax.interop.llamagen import from_llamagen
from taming_jax.interop.llamagen_prior import from_llamagen_gpt
from taming_jax.interop.original import TARGETS, Tokenizer, from_original
from taming_jax.interop.prior_form import Prior
from taming_jax.interop.priors import from_net2net

Configuration = str | os.PathLike | Mapping[str, Any]

# Of models that are made on top of a tokenizer, whose weights are in the same file.
_TRANSFORMER = "Net2NetTransformer"
_UPON = (_TRANSFORMER, "LatentDiffusion")
_EXPONENTIAL = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
_STAGES = {"first_stage_config": "vqgan", "cond_stage_config": "condition_vqgan"}


def read(config: Configuration) -> dict[str, Tokenizer | Prior]:
    """The models that a configuration describes, by their stage.

    Args:
      config: the path of a .yaml in the original's form, what is in such a file, a name
        out of `KNOWN`, or {"vq": ...} and {"gpt": ...} as LlamaGen has it.

    Raises:
      ValueError: if it is none of these, or describes no model that is known.
    """
    folder = Path()
    if not isinstance(config, Mapping):
        folder = Path(config).expanduser().parent
        config = _named(str(config))
    return {
        stage: dataclasses.replace(model, remap=_beside(model.remap, folder))
        if isinstance(model, Tokenizer)
        else model
        for stage, model in _described(config).items()
    }


def _described(config: Mapping[str, Any]) -> dict[str, Tokenizer | Prior]:
    llamagen = {}
    if "vq" in config:
        llamagen["vqgan"] = from_llamagen(config["vq"])
    if "gpt" in config:
        llamagen["prior"] = from_llamagen_gpt(config["gpt"])
    if llamagen:
        return llamagen
    node = config.get("model", config)
    if not isinstance(node, Mapping) or "target" not in node:
        raise ValueError(
            "the configuration has no model.target: give the .yaml that came with the "
            f"weights, or a name out of {', '.join(KNOWN)}"
        )
    if str(node["target"]).rpartition(".")[2] not in _UPON:
        return {"vqgan": from_original(node)}
    return _beneath(node)


def _named(name: str) -> Mapping[str, Any]:
    """What a known name stands for, or what is in a .yaml."""
    if name in KNOWN:
        return KNOWN[name].configuration
    path = Path(name).expanduser()
    if not path.is_file():
        raise ValueError(
            f"{name!r} is no configuration: give a .yaml, or a name out of "
            f"{', '.join(KNOWN)}"
        )
    import yaml

    try:
        content = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is no .yaml: {reason[:200]}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds no mapping: is it a configuration?")
    return _with_numbers(content)


def _with_numbers(content: Any) -> Any:
    """The same with 1e-6 as a number: text in YAML 1.1, but not to the original."""
    if isinstance(content, Mapping):
        return {key: _with_numbers(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_with_numbers(value) for value in content]
    number = isinstance(content, str) and _EXPONENTIAL.fullmatch(content)
    return float(content) if number else content


def _beneath(node: Mapping[str, Any]) -> dict[str, Tokenizer | Prior]:
    """The tokenizers of a model that is made on top of them, and a transformer."""
    found = {}
    params = node.get("params") or {}
    for key, stage in _STAGES.items():
        inner = params.get(key)
        if isinstance(inner, Mapping) and _is_tokenizer(inner):
            own = inner.get("params") or {}
            if stage == "condition_vqgan":  # what it is for is said outside
                own = {"image_key": params.get("cond_stage_key"), **own}
            found[stage] = from_original({**inner, "params": own})
    if "vqgan" not in found:
        raise ValueError(
            f"{node['target']} has no first_stage_config that is known, and is nothing "
            f"without its tokenizer; known are {', '.join(TARGETS)}"
        )
    is_transformer = str(node["target"]).rpartition(".")[2] == _TRANSFORMER
    prior = from_net2net(node, found) if is_transformer else None
    return found | ({"prior": prior} if prior else {})


def _beside(remap: str | None, folder: Path) -> str | None:
    """A file that a configuration names, or the one of that name beside it."""
    if remap and not Path(remap).is_file():
        return str(folder / Path(remap).name)
    return remap


def _is_tokenizer(node: Mapping[str, Any]) -> bool:
    return str(node.get("target")).rpartition(".")[2] in TARGETS
