"""The original's second stage: its configuration and its tensors in our words.

    from_net2net(node, tokenizers) -> Prior      configuration of a Net2NetTransformer
    find_prior(prior, tensors) -> PriorParts     whence each array comes
    PriorParts.write(directory, ...)             what `load_prior` and `init_from` read

What a prior is told is kept as its authors call it. A map is read where its tokenizer
came along; of kinds that nothing here reads, such as boxes, the tokens are given by
whoever asks.
"""

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from taming_jax import stored
from taming_jax.conditions import Vocabulary
from taming_jax.interop import llamagen_prior
from taming_jax.interop.contents import Tensors
from taming_jax.interop.matching import Source, Stacked, Zeros, match
from taming_jax.interop.names import GPT
from taming_jax.interop.original import RATE, Tokenizer
from taming_jax.interop.prior_form import Prior
from taming_jax.interop.tables import under
from taming_jax.interop.values import check_keys
from taming_jax.models.vqgan import VQGAN
from taming_jax.orders import is_raster, make_order
from taming_jax.training.prior import make_transformer

_PARAMS = ("transformer_config", "first_stage_config", "cond_stage_config",
           "permuter_config", "ckpt_path", "ignore_keys", "first_stage_key",
           "cond_stage_key", "downsample_cond_size", "pkeep", "sos_token",
           "unconditional", "monitor")  # fmt: skip
# Theirs, ours; and what they may say besides.
_SIZES = {
    "vocab_size": "vocab_size",
    "block_size": "length",
    "n_layer": "layers",
    "n_head": "heads",
    "n_embd": "width",
}
_DEFAULTS = {"n_layer": 12, "n_head": 8, "n_embd": 256}  # the original's own
_OPTIONS = ("embd_pdrop", "resid_pdrop", "attn_pdrop", "n_unmasked")
ORDERS = {
    "Identity": "raster",
    "Subsample": "subsample",
    "ZCurve": "z_curve",
    "SpiralOut": "spiral_out",
    "SpiralIn": "spiral_in",
    "Random": "random",
    "AlternateParsing": "alternate",
}
_TRAINED = {"optimizer": {"b1": 0.9, "b2": 0.95, "weight_decay": 0.01}}
_SAMPLING = {"temperature": 1.0, "top_k": 250}  # of the original's script
_OF_CLASSES = {"temperature": 1.0, "top_k": 600, "top_p": 0.92}  # the paper's


def from_net2net(
    node: Mapping[str, Any], tokenizers: Mapping[str, Tokenizer]
) -> Prior | None:
    """`{"target": "...Net2NetTransformer", "params": ...}` -> the same in our words.

    None where it says nothing of a transformer.

    Raises:
      ValueError: for what is not known, and for a model that cannot be.
    """
    params = node.get("params") or {}
    check_keys("Net2NetTransformer's params", params, _PARAMS)
    if not params.get("transformer_config"):
        return None
    model = _model(params["transformer_config"])
    vqgan = tokenizers["vqgan"]
    order, grid = _order(params.get("permuter_config"))
    stride = VQGAN(**vqgan.model).stride
    nominal = vqgan.resolution // stride
    told = _told(params, tokenizers, nominal**2, model["length"])
    if grid is None:
        most = math.isqrt(max(1, model["length"] + 1 - told["condition_length"]))
        grid = (min(nominal, most),) * 2
    pkeep = params.get("pkeep", 1.0)
    if not 0 < pkeep <= 1:
        raise ValueError(
            f"pkeep={pkeep!r}; it is a share of tokens that are shown, in (0, 1]"
        )
    sampling = _OF_CLASSES if told["kind"] == "label" else _SAMPLING
    return Prior(
        {**model, "prefix": told["condition_length"]},
        {**_TRAINED, "pkeep": pkeep, "order": order, "sampling": sampling},
        codes=vqgan.model["quantizer"]["codebook_size"],
        grid=grid,
        any_grid=order == "raster",
        rate=float(node.get("base_learning_rate", RATE)),
        resolution=vqgan.resolution,
        **told,
    )


def _model(node: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `Transformer` for the original's GPT."""
    if str(node.get("target")).rpartition(".")[2] != "GPT":
        raise ValueError(
            f"transformer_config's target is {node.get('target')!r}; known is GPT (of "
            "taming.modules.transformer.mingpt)"
        )
    given = _DEFAULTS | (node.get("params") or {})
    check_keys("transformer_config's params", given, (*_SIZES, *_OPTIONS))
    for key in _SIZES:
        if type(given.get(key)) is not int or given[key] < 1:
            raise ValueError(
                f"transformer_config's params: {key} is {given.get(key)!r}; it takes a "
                "whole number above 0"
            )
    return {
        **{ours: given[theirs] for theirs, ours in _SIZES.items()},
        "unmasked": int(given.get("n_unmasked", 0)),
        "norm": "layer",
        "mlp": "gelu",
        "bias": True,
        "learned_positions": True,
        "dropout": float(given.get("resid_pdrop", 0.0)),
    }


def _order(node: Mapping[str, Any] | None) -> tuple[str, tuple[int, int] | None]:
    """The order's name, and the grid where it says one."""
    if not node:
        return "raster", None
    name = str(node.get("target")).rpartition(".")[2]
    if name not in ORDERS:
        raise ValueError(
            f"permuter_config's target is {node.get('target')!r}; known are "
            f"{', '.join(ORDERS)}"
        )
    sides = node.get("params") or {}
    if ORDERS[name] == "raster" or not {"H", "W"} <= sides.keys():
        return ORDERS[name], None
    return ORDERS[name], (int(sides["H"]), int(sides["W"]))


def _told(
    params: Mapping[str, Any], tokenizers: Mapping[str, Tokenizer], codes: int, length
) -> dict[str, Any]:
    """Fields of `Prior` that say what its condition is."""
    node = params.get("cond_stage_config")
    if params.get("unconditional") or node == "__is_unconditional__":
        return _nothing(params.get("sos_token", 0))
    stage = node if isinstance(node, Mapping) else {}
    target, own = str(stage.get("target")).rpartition(".")[2], stage.get("params") or {}
    kind = params.get("cond_stage_key", "depth")
    small = params.get("downsample_cond_size", -1)
    if target == "Labelator":
        told = {"kind": "label", "condition_length": 1}
        return {**told, "classes": int(own.get("n_classes", 0))}
    if target == "SOSProvider":
        return _nothing(own.get("sos_token", 0))
    if target == "CoordStage":
        vqgan, down = tokenizers["vqgan"], int(own.get("down_factor", 16))
        count = (vqgan.resolution // down) ** 2
        told = {"kind": kind, "condition_length": count}
        alike = small < 1 and down == VQGAN(**vqgan.model).stride
        return told | ({"steps": own.get("n_embed")} if alike else {})
    by = "vqgan" if node == "__is_first_stage__" else "condition_vqgan"
    if by not in tokenizers:  # boxes, for example: what the codes leave
        return {"kind": kind, "condition_length": max(1, length - codes)}
    tokenizer = tokenizers[by]
    side = tokenizer.resolution if small < 1 else small
    count = (side // VQGAN(**tokenizer.model).stride) ** 2
    reduced = {} if small < 1 else {"side": small}
    return {"kind": kind, "condition_length": count, "told_by": by, **reduced}


def _nothing(start: int) -> dict[str, Any]:
    return {"kind": "none", "condition_length": 1, "start": int(start)}


@dataclasses.dataclass(frozen=True)
class PriorParts:
    """What there is of a prior in a file.

    Attributes:
      prior: its configuration, completed by what the file says.
      sources: of arrays, by name: "params/...".
    """

    prior: Prior
    sources: Mapping[str, Source | Stacked | Zeros]

    @property
    def names(self) -> list[str]:
        """There is nothing besides the model."""
        return []

    @property
    def model(self) -> Prior:
        """The configuration, as every model's parts call it."""
        return self.prior

    @property
    def parameters(self) -> int:
        """How many numbers are learned."""
        return sum(math.prod(source.shape) for source in self.sources.values())

    def write(
        self, directory: Path, record: Mapping[str, Any], *, source: str, dtype: str
    ) -> None:
        """Writes the model, one array after the other; arguments as `Parts.write`."""
        del source
        arrays = ((name, source.read()) for name, source in self.sources.items())
        stored.write_parts(directory, record, arrays, dtype=dtype)


def find_prior(prior: Prior, tensors: Tensors, order: Tensors | None = None):
    """The arrays of a prior among the tensors of its file, as PriorParts.

    order: of the file, "forward_shuffle_idx", where it has one. It holds, whatever the
        configuration says.

    Raises:
      ValueError: with the names and shapes of both sides that do not fit.
    """
    prior = _with_order(prior, order or {})
    if prior.form == "llamagen":
        heads = prior.model["heads"], prior.model["kv_heads"]
        table = llamagen_prior.names(*heads)
        tensors = llamagen_prior.separated(tensors, *heads)
    else:
        table = GPT
    expected = find_shapes(prior)
    return PriorParts(prior, match(under("params/", "", table), tensors, expected))


def find_shapes(prior: Prior) -> dict[str, jax.ShapeDtypeStruct]:
    """Of the arrays that a prior has, by name: "params/..."."""
    vocabulary = Vocabulary(prior.codes, prior.classes, prior.form == "original")
    order = prior.trained.get("order", "raster")
    model = make_transformer(prior.model, vocabulary, prior.grid, order)
    init = partial(model.init, tokens=jnp.zeros((1, 2), jnp.int32))
    shapes = jax.eval_shape(init, jax.random.key(0))
    return flatten_dict({"params": shapes["params"]}, sep="/")


def _with_order(prior: Prior, order: Tensors) -> Prior:
    if "forward_shuffle_idx" not in order:
        return prior
    kept = order["forward_shuffle_idx"].read()
    named = prior.trained.get("order", "raster")
    count = math.prod(prior.grid)
    if len(kept) == count and (kept == make_order(named, prior.grid)).all():
        return prior
    places = make_order(kept.tolist(), prior.grid)
    named = "raster" if is_raster(places) else places.tolist()
    return dataclasses.replace(prior, trained={**prior.trained, "order": named})
