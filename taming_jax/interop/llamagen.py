"""LlamaGen's tokenizers: their arguments and their names, in our words and back.

    {"codebook_size": 16384, "codebook_embed_dim": 8, ...} <-> Tokenizer
    names(levels)                                              a table of names

https://github.com/FoundationVision/LlamaGen (Sun et al. 2024). They are the original's
networks that attend at the coarsest level only, with codes of length 1; everything has
another name, and the decoder's levels are counted from the coarsest.
"""

import re
from collections.abc import Mapping
from typing import Any

from taming_jax.interop import values
from taming_jax.interop.names import GENERATOR, SAME
from taming_jax.interop.original import (
    Tokenizer,
    from_original,
    is_normalized,
    to_original,
)
from taming_jax.interop.tables import Row, Table
from taming_jax.interop.values import check_keys, check_values

# Its arguments, with the values that the published models have where nothing is said.
ARGUMENTS = {
    "codebook_size": 16_384,
    "codebook_embed_dim": 8,
    "l2_norm": True,
    "beta": 0.25,
    "ch": 128,
    "ch_mult": (1, 1, 2, 2, 4),
    "num_res_blocks": 2,
    "z_channels": 256,
}
_KINDS = {
    **dict.fromkeys(("codebook_size", "codebook_embed_dim", "ch"), values.COUNT),
    "l2_norm": values.FLAG,
    "beta": values.NUMBER,
    "ch_mult": values.COUNTS,
    "num_res_blocks": values.WHOLE,
    "z_channels": values.COUNT,
}
# The same under the names of its command line's classes.
_ALIASES = {
    "codebook_l2_norm": "l2_norm",
    "commit_loss_beta": "beta",
    "encoder_ch_mult": "ch_mult",
    "decoder_ch_mult": "ch_mult",
}
# Of its training, or only said in reports of it.
_IGNORED = ("code_margin", "codebook_show_usage", "dropout_p", "entropy_loss_ratio")
# What the original may choose and LlamaGen does not.
_FIXED = {"in_channels": 3, "out_ch": 3, "resamp_with_conv": True,
          "give_pre_end": False}  # fmt: skip
_RESOLUTION = 256  # of the pictures that both were published for
# What both were trained by, and at which rate for 128 pictures.
_TRAINED = {
    "optimizer": {"b1": 0.9, "b2": 0.95, "clip": 1.0},
    "l1_weight": 0.0,
    "l2_weight": 1.0,
    "perceptual_weight": 1.0,
    "codebook_weight": 1.0,
    "adversarial_loss": "hinge",
    "adversarial_weight": 0.5,
    "adaptive_weight": False,
    "disc_start": 20_000,
    "discriminator": {"channels": 64, "layers": 3, "norm": "batch"},
}
_RATE = 1e-4 / 128


def from_llamagen(arguments: Mapping[str, Any]) -> Tokenizer:
    """Its arguments -> the same in our words.

    Raises:
      ValueError: for an argument that is not known, and for a model that cannot be.
    """
    check_keys("vq", arguments, (*ARGUMENTS, *_ALIASES, *_IGNORED))
    also = {alias: _KINDS[name] for alias, name in _ALIASES.items()}
    check_values("vq", arguments, {**_KINDS, **also})
    given = {_ALIASES.get(key, key): value for key, value in arguments.items()}
    given = {**ARGUMENTS, **given}
    ddconfig = {
        "ch": given["ch"],
        "ch_mult": given["ch_mult"],
        "num_res_blocks": given["num_res_blocks"],
        "attn_resolutions": [_coarsest(_RESOLUTION, given["ch_mult"])],
        "resolution": _RESOLUTION,
        "z_channels": given["z_channels"],
        **_FIXED,
    }
    params = {
        "ddconfig": ddconfig,
        "n_embed": given["codebook_size"],
        "embed_dim": given["codebook_embed_dim"],
    }
    model = from_original({"target": "VQModel", "params": params}).model
    quantizer = {**model["quantizer"], "beta": given["beta"], "legacy": False}
    quantizer["normalize"] = given["l2_norm"]
    return Tokenizer({**model, "quantizer": quantizer}, _TRAINED, "llamagen", _RATE)


def to_llamagen(section: Mapping[str, Any]) -> dict[str, Any]:
    """`config.vqgan` -> the arguments of the same model.

    Raises:
      ValueError: for a model that LlamaGen cannot be told.
    """
    params = to_original(section, discriminator=False)["params"]
    ddconfig, quantizer = params["ddconfig"], section["model"]["quantizer"]
    for key, value in _FIXED.items():
        if ddconfig[key] != value:
            raise ValueError(
                f"the model has {key}={ddconfig[key]!r}; LlamaGen's have {value!r}"
            )
    coarsest = _coarsest(ddconfig["resolution"], ddconfig["ch_mult"])
    if ddconfig["attn_resolutions"] != [coarsest]:
        raise ValueError(
            f"the model attends at {ddconfig['attn_resolutions']} pixels; LlamaGen's "
            f"attend at the coarsest level only, here [{coarsest}]"
        )
    return {
        "codebook_size": params["n_embed"],
        "codebook_embed_dim": params["embed_dim"],
        "l2_norm": is_normalized(quantizer),
        "beta": quantizer.get("beta", 0.25),
        **{key: ddconfig[key] for key in ("ch", "ch_mult", "num_res_blocks")},
        "z_channels": ddconfig["z_channels"],
    }


def names(levels: int) -> Table:
    """The original's table with LlamaGen's names; our side: "params"."""
    rows = []
    for row in GENERATOR:
        if "up.{i}" not in row.theirs:
            rows.append(row._replace(theirs=_respelt(row.theirs)))
            continue
        for level in range(levels):
            ours = row.ours.replace("{i}", str(level))
            theirs = row.theirs.replace("{i}", str(levels - 1 - level))
            rows.append(row._replace(ours=ours, theirs=_respelt(theirs)))
    return (*rows, Row(None, "quantize.codebook_used", SAME))


# How the original's names become LlamaGen's.
_SPELLING = (
    (r"\.(down|up)\.", r".conv_blocks."),
    (r"\.block\.", r".res."),
    (r"\.mid\.block_1\.", r".mid.0."),
    (r"\.mid\.attn_1\.", r".mid.1."),
    (r"\.mid\.block_2\.", r".mid.2."),
)


def _respelt(name: str) -> str:
    for original, here in _SPELLING:
        name = re.sub(original, here, name)
    return name


def _coarsest(resolution: int, multipliers) -> int:
    """The nominal side of the level that attends."""
    return resolution // 2 ** (len(multipliers) - 1)
