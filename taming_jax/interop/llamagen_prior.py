"""LlamaGen's class-conditional transformers: their arguments and names in our words.

    {"dim": 768, "n_layer": 12, "n_head": 12, ...} -> Prior
    separated(tensors)       their fused tensors as several, and two tables as one
    names(heads, kv_heads)   the table of names of what that gives
    fused(tensors, codes)    the inverse of `separated`

https://github.com/FoundationVision/LlamaGen (Sun et al. 2024). They turn neighbouring
channels together, and we the halves of a head: queries and keys are laid out anew,
which changes no product of the two. Classes are tokens behind the codes; the last of
them is "no class".
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from taming_jax.interop.formats.tensors import Tensor
from taming_jax.interop.names import MATRIX, SAME
from taming_jax.interop.prior_form import Prior
from taming_jax.interop.tables import Row, Table, Transform
from taming_jax.interop.values import check_keys

CODES = "tok_embeddings.weight"
_LABELS = "cls_embedding.embedding_table.weight"
_TOKENS = "embeddings"  # of both, one above the other
_FUSED = ".attention.wqkv.weight"

_NEEDED = ("dim", "n_layer", "n_head", "vocab_size", "num_classes", "block_size")
_OPTIONS = {
    "n_kv_head": None,
    "multiple_of": 256,
    "ffn_dim_multiplier": None,
    "rope_base": 10_000,
}
# Where another value would be another model than ours.
_FIXED = {"cls_token_num": 1, "model_type": "c2i", "norm_eps": 1e-5}
# Of its training, or of its caches.
_IGNORED = ("attn_dropout_p", "class_dropout_prob", "drop_path_rate", "ffn_dropout_p",
            "initializer_range", "max_batch_size", "max_seq_len", "resid_dropout_p",
            "token_dropout_p", "caption_dim")  # fmt: skip
# What guidance each width was published with.
_GUIDANCE = {768: 2.0, 1_024: 2.0, 1_280: 1.75, 1_536: 1.75, 3_200: 1.65}
_STRIDE = 16  # pixels per code of the tokenizer that they were trained on
# What all were trained by, and at which rate for 256 pictures.
_TRAINED = {
    "label_dropout": 0.1,
    "optimizer": {"b1": 0.9, "b2": 0.95, "weight_decay": 0.05, "clip": 1.0},
    "batch_size": 256,
}
_RATE = 1e-4 / 256


def from_llamagen_gpt(arguments: Mapping[str, Any]) -> Prior:
    """Its arguments -> the same in our words.

    Raises:
      ValueError: for an argument that is not known or missing, and for a model that
        cannot be.
    """
    check_keys("gpt", arguments, (*_NEEDED, *_OPTIONS, *_FIXED, *_IGNORED))
    for key in _NEEDED:
        if type(arguments.get(key)) is not int or arguments[key] < 1:
            raise ValueError(
                f"gpt: {key} is {arguments.get(key)!r}; it takes a whole number above 0"
            )
    for key, value in _FIXED.items():
        if arguments.get(key, value) != value:
            raise ValueError(
                f"gpt: {key}={arguments[key]!r}; known are class-conditional models, "
                f"which have {value!r}"
            )
    given = {**_OPTIONS, **arguments}
    side = math.isqrt(given["block_size"])
    if side**2 != given["block_size"]:
        raise ValueError(
            f"gpt: block_size={given['block_size']} is no square; it counts the codes "
            "of a square picture"
        )
    width, classes = given["dim"], given["num_classes"]
    model = {
        "width": width,
        "layers": given["n_layer"],
        "heads": given["n_head"],
        "kv_heads": given["n_kv_head"],
        "norm": "rms",
        "mlp": "swiglu",
        "mlp_width": hidden(width, given["ffn_dim_multiplier"], given["multiple_of"]),
        "bias": False,
        "learned_positions": False,
        "rotary": True,
        "rotary_base": float(given["rope_base"]),
        "vanishing_condition": True,
        "head_size": given["vocab_size"],
        "zero_head": True,
        "dropout": 0.1,
    }
    guidance = _GUIDANCE.get(width, 2.0)
    return Prior(
        model,
        _TRAINED | {"sampling": {"temperature": 1.0, "guidance": guidance}},
        codes=given["vocab_size"],
        grid=(side, side),
        classes=classes,
        form="llamagen",
        rate=_RATE,
        resolution=side * _STRIDE,
        stride=_STRIDE if width in _GUIDANCE else None,
    )


def is_transformer(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of one of its transformers."""
    return CODES in tensors


def separated(
    tensors: Mapping[str, Tensor], heads: int, kv_heads: int | None
) -> dict[str, Tensor]:
    """Queries, keys and values apart; embeddings of codes and of labels together."""
    apart = dict(tensors)
    if CODES in apart and _LABELS in apart:
        apart[_TOKENS] = _joined(apart.pop(CODES), apart.pop(_LABELS))
    shares = (heads, kv_heads or heads, kv_heads or heads)
    for name in tensors:
        if name.endswith(_FUSED) and tensors[name].shape[0] % sum(shares) == 0:
            fused, begin = apart.pop(name), 0
            for part, share in zip("qkv", shares, strict=True):
                end = begin + fused.shape[0] // sum(shares) * share
                apart[name.replace("wqkv", f"w{part}")] = _rows(fused, begin, end)
                begin = end
    return apart


def fused(tensors: Mapping[str, np.ndarray], codes: int) -> dict[str, np.ndarray]:
    """The inverse of `separated`, for arrays; `codes` embeddings are those of codes."""
    whole = dict(tensors)
    tokens = whole.pop(_TOKENS)
    whole[CODES], whole[_LABELS] = tokens[:codes], tokens[codes:]
    for name in tensors:
        if name.endswith(_FUSED.replace("wqkv", "wq")):
            parts = [whole.pop(name.replace("wq", f"w{part}")) for part in "qkv"]
            whole[name.replace("wq", "wqkv")] = np.concatenate(parts)
    return whole


def names(heads: int, kv_heads: int | None) -> Table:
    """Of what `separated` gives; our side: "params"."""
    layer, shared = "layers.{layer}", kv_heads or heads
    return (
        Row("embedding", _TOKENS, SAME),
        Row("blocks/norm1/scale", f"{layer}.attention_norm.weight", SAME),
        Row("blocks/query/kernel", f"{layer}.attention.wq.weight", _halves(heads)),
        Row("blocks/key/kernel", f"{layer}.attention.wk.weight", _halves(shared)),
        Row("blocks/value/kernel", f"{layer}.attention.wv.weight", MATRIX),
        Row("blocks/out/kernel", f"{layer}.attention.wo.weight", MATRIX),
        Row("blocks/norm2/scale", f"{layer}.ffn_norm.weight", SAME),
        Row("blocks/gate/kernel", f"{layer}.feed_forward.w1.weight", MATRIX),
        Row("blocks/up/kernel", f"{layer}.feed_forward.w3.weight", MATRIX),
        Row("blocks/down/kernel", f"{layer}.feed_forward.w2.weight", MATRIX),
        Row("norm_out/scale", "norm.weight", SAME),
        Row("head/kernel", "output.weight", MATRIX),
        # Left over from drawing, or what follows from the arguments.
        Row(None, f"{layer}.attention.kv_cache.k_cache", SAME),
        Row(None, f"{layer}.attention.kv_cache.v_cache", SAME),
        Row(None, "freqs_cis", SAME),
        Row(None, "causal_mask", SAME),
    )


def hidden(width: int, factor: float | None, multiple: int) -> int:
    """How wide the hidden layer is, by their arguments."""
    wide = int(2 * 4 * width / 3)
    if factor is not None:
        wide = int(factor * wide)
    return -(-wide // multiple) * multiple


def _halves(heads: int) -> Transform:
    """Pairs (2i, 2i + 1) of every head's rows <-> pairs (i, i + E/2) of our columns."""

    def to_ours(w):  # [N*E,D] -> [D,N*E]
        pairs = w.reshape(heads, -1, 2, w.shape[-1]).swapaxes(1, 2)
        return pairs.reshape(w.shape).T

    def to_theirs(kernel):
        halves = kernel.T.reshape(heads, 2, -1, kernel.shape[0]).swapaxes(1, 2)
        return halves.reshape(kernel.shape[::-1])

    return Transform(to_ours, to_theirs)


def _rows(fused: Tensor, begin: int, end: int) -> Tensor:
    shape = (end - begin, *fused.shape[1:])
    return Tensor(fused.dtype, shape, lambda: fused.read()[begin:end])


def _joined(codes: Tensor, labels: Tensor) -> Tensor:
    shape = (codes.shape[0] + labels.shape[0], *codes.shape[1:])
    return Tensor(
        codes.dtype, shape, lambda: np.concatenate([codes.read(), labels.read()])
    )
