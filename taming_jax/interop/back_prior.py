"""A prior of ours under its authors' names and arguments, for their programs.

    params, config.json --to_net2net-->       the original's, to be put with tokenizers
                        --to_llamagen_gpt-->  LlamaGen's, which stand alone

What a prior may be told there is a class, nothing, or the codes of a map. Ours has more
kinds of transformers than theirs: what they could not build is refused.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from taming_jax.interop import llamagen_prior
from taming_jax.interop.names import GPT
from taming_jax.interop.priors import ORDERS
from taming_jax.interop.tables import to_theirs
from taming_jax.models.transformer import Transformer
from taming_jax.orders import is_raster, make_order

_ALIKE = {  # fields of ours, where another value is another model than theirs
    "mlp_width": None, "kv_heads": None, "rotary": False, "qk_norm": False,
    "tied_head": False, "head_size": None, "zero_head": False, "above": False,
    "condition_everywhere": False, "target_positions": False,
    "vanishing_condition": False,
}  # fmt: skip
_GPT = {"norm": "layer", "mlp": "gelu", "bias": True, "learned_positions": True}
_LLAMAGEN = {
    "norm": "rms", "mlp": "swiglu", "bias": False, "learned_positions": False,
    "rotary": True, "rotary_grid": None, "vanishing_condition": True, "unmasked": 0,
}  # fmt: skip
_SPARE = ("kv_heads", "mlp_width", "head_size", "zero_head")  # of those LlamaGen has


def is_llamagens(section: Mapping[str, Any]) -> bool:
    """Whether `config.prior` would rather be LlamaGen's than the original's."""
    return bool(section["model"].get("rotary", False))


def to_net2net(
    section: Mapping[str, Any],
    facts: Mapping[str, Any],
    params: Mapping[str, Any],
    tokenizers: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(tensors under the names that the whole has, {"model": configuration}).

    Args:
      section: `config.prior`.
      facts: of config.json.
      params: of the transformer.
      tokenizers: their configurations in the original's form, by stage.

    Raises:
      ValueError: for what the original has no words for; `check_net2net` asks whether
        it could build the transformer.
    """
    length, width = params["positions"].shape
    dropout = section["model"].get("dropout", 0.0)
    gpt = {
        "vocab_size": params["embedding"].shape[0],
        "block_size": length,
        "n_layer": params["blocks"]["norm1"]["scale"].shape[0],
        "n_head": section["model"]["heads"],
        "n_embd": width,
        "embd_pdrop": dropout,
        "resid_pdrop": dropout,
        "attn_pdrop": dropout,
        "n_unmasked": section["model"].get("unmasked", 0),
    }
    about = {
        "transformer_config": {
            "target": "taming.modules.transformer.mingpt.GPT",
            "params": gpt,
        },
        "first_stage_config": tokenizers["vqgan"],
        **_condition(facts, tokenizers),
        "pkeep": section.get("pkeep", 1.0),
    }
    tensors = {f"transformer.{k}": v for k, v in to_theirs(GPT, params).items()}
    order, grid = section.get("order", "raster"), tuple(facts["grid"])
    places = make_order(order, grid)
    if not is_raster(places):
        named = {ours: theirs for theirs, ours in ORDERS.items()}
        kind = named[order] if isinstance(order, str) else "Random"  # the file has it
        target = f"taming.modules.transformer.permuter.{kind}"
        sides = {"H": grid[0], "W": grid[1]}
        about["permuter_config"] = {"target": target, "params": sides}
        places = np.asarray(places, np.int64)
        tensors["permuter.forward_shuffle_idx"] = places
        tensors["permuter.backward_shuffle_idx"] = np.argsort(places)
    target = "taming.models.cond_transformer.Net2NetTransformer"
    rate = section["learning_rate"] / section["batch_size"]
    config = {"base_learning_rate": rate, "target": target, "params": about}
    return tensors, {"model": config}


def check_net2net(section: Mapping[str, Any]) -> None:
    """Raises ValueError for a transformer that the original could not build."""
    _check(section["model"], _ALIKE | _GPT, "the original's GPT")
    if not section.get("shared_vocabulary"):
        raise ValueError(
            "shared_vocabulary=False; the original says what is told with the tokens "
            "of codes"
        )


def to_llamagen_gpt(
    section: Mapping[str, Any], facts: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(tensors, {"gpt": arguments}); arguments and errors as of `to_net2net`."""
    model = section["model"]
    alike = {k: v for k, v in _ALIKE.items() if k not in _SPARE}
    _check(model, alike | _LLAMAGEN, "LlamaGen's transformer")
    order, grid = section.get("order", "raster"), tuple(facts["grid"])
    if not is_raster(make_order(order, grid)) or grid[0] != grid[1]:
        raise ValueError(
            f"its codes are of {grid[0]} x {grid[1]}, order {order!r}; LlamaGen's "
            "are of squares, row by row"
        )
    if section.get("shared_vocabulary") or not facts["class_names"]:
        raise ValueError("it is not told classes by tokens of their own, as LlamaGen's")
    width, codes = params["embedding"].shape[1], facts["codes"]
    if params["head"]["kernel"].shape[1] != codes:
        raise ValueError(
            f"its logits are of {params['head']['kernel'].shape[1]} tokens, and "
            f"LlamaGen's of codes alone, {codes}: head_size says so"
        )
    heads, kv_heads = model["heads"], model.get("kv_heads")
    arguments = {
        "dim": width,
        "n_layer": params["blocks"]["norm1"]["scale"].shape[0],
        "n_head": heads,
        "n_kv_head": kv_heads,
        **_hidden(width, params["blocks"]["gate"]["kernel"].shape[-1]),
        "rope_base": model.get("rotary_base", 10_000.0),
        "vocab_size": codes,
        "num_classes": len(facts["class_names"]),
        "block_size": grid[0] * grid[1],
        "cls_token_num": 1,
        "model_type": "c2i",
    }
    table = llamagen_prior.names(heads, kv_heads)
    tensors = llamagen_prior.fused(to_theirs(table, params), codes)
    return tensors, {"gpt": arguments}


def _condition(facts: Mapping[str, Any], tokenizers: Mapping) -> dict[str, Any]:
    """What the original's configuration says of what is told."""
    classes = len(facts["class_names"])
    told = facts.get("condition") or {"kind": "label" if classes else "none"}
    kind, by = told["kind"], told.get("tokenizer")
    if kind == "label":
        labels = {"target": "taming.modules.util.Labelator"}
        labels["params"] = {"n_classes": classes}
        return {"cond_stage_key": "class_label", "cond_stage_config": labels}
    if kind == "none":
        start = {"unconditional": True, "sos_token": told.get("start", 0)}
        return {"cond_stage_config": "__is_unconditional__", **start}
    if by is None or " and " in kind:
        raise ValueError(
            f"it is told {kind}; the original can be handed a prior that is told a "
            "class, nothing, or a map that went through a tokenizer"
        )
    stage = "__is_first_stage__" if by == "vqgan" else tokenizers[by]
    said = {"cond_stage_key": kind, "cond_stage_config": stage}
    if not told.get("side", True):  # of one of theirs, whose maps are not reduced
        return said
    config = tokenizers[by]["params"]["ddconfig"]
    stride = 2 ** (len(config["ch_mult"]) - 1)
    return {**said, "downsample_cond_size": math.isqrt(told["length"]) * stride}


def _check(model: Mapping[str, Any], wanted: Mapping[str, Any], whose: str) -> None:
    """Raises ValueError for a field of the transformer that they do not have."""
    defaults = {k: f.default for k, f in Transformer.__dataclass_fields__.items()}
    for field, value in wanted.items():
        given = model.get(field, defaults[field])
        if field == "mlp_width" and given == 4 * model["width"]:
            continue
        if given != value:
            raise ValueError(f"{field}={given!r}; {whose} has {value!r}")


def _hidden(width: int, hidden: int) -> dict[str, Any]:
    """Their two arguments by which a hidden layer is as wide as this one."""
    usual = llamagen_prior.hidden(width, None, 256)
    if hidden == usual:
        return {"multiple_of": 256, "ffn_dim_multiplier": None}
    plain = llamagen_prior.hidden(width, None, 1)
    return {"multiple_of": 1, "ffn_dim_multiplier": (hidden + 0.5) / plain}
