"""By which table of names a tokenizer's tensors go in its authors' files.

Our side of a table: "generator/params/...", "generator/codebook/...",
"discriminator/...", "perceptual/..." and "colours/classes". It has rows for all that a
file may hold besides, so that what it does not know is of another model.
"""

from collections.abc import Mapping
from typing import Any

from taming_jax.interop import llamagen
from taming_jax.interop.names import (
    COLOURS,
    DISCRIMINATOR,
    DISCRIMINATOR_ACTNORM,
    EMA_GENERATOR,
    GENERATOR,
    GUMBEL_GENERATOR,
    SAME,
    whole,
)
from taming_jax.interop.original import Form, is_normalized
from taming_jax.interop.tables import Row, Table, under

_GENERATORS = {
    "vq": under("params/", "", GENERATOR),
    "gumbel": under("params/", "", GUMBEL_GENERATOR),
    "ema": EMA_GENERATOR,
}
# What the original keeps besides: how classes are painted, and which codes are used.
_BESIDE = (
    Row("colours/classes", "colorize", COLOURS),
    Row(None, "quantize.used", SAME),
)


def layout(
    model: Mapping[str, Any], discriminator: Mapping[str, Any], form: Form
) -> Table:
    """The table of names for a tokenizer, in somebody's form.

    model, discriminator: fields of `VQGAN` and `Discriminator`.
    """
    if form == "llamagen":
        levels = len(model["encoder"]["multipliers"])
        generator = under("params/", "", llamagen.names(levels))
    else:
        generator = _GENERATORS[model["quantizer"].get("name", "vq")]
    act = discriminator.get("norm") == "act"
    judge = DISCRIMINATOR_ACTNORM if act else DISCRIMINATOR
    return (*whole(generator, judge), *_BESIDE)


def form_of(record: Mapping[str, Any], model: Mapping[str, Any]) -> Form:
    """In whose form a model came, by its config.json, or would best be handed on.

    Codes of length 1 are LlamaGen's, and not the original's.
    """
    other = "llamagen" if is_normalized(model["quantizer"]) else "original"
    return record.get("card", {}).get("form", other)
