"""The original's `lossconfig` in the words of our recipes, and back.

{"target": "...VQLPIPSWithDiscriminator", "params": {"disc_weight": 0.8, ...}}
<-> keys of `config.vqgan`: {"adversarial_weight": 0.8, "discriminator": {...}, ...}
"""

from collections.abc import Mapping
from typing import Any

from taming_jax.interop import values
from taming_jax.interop.values import check_keys, check_values

# Theirs, ours, and what it is where nothing is said.
_LOSS = (
    ("codebook_weight", "codebook_weight", 1.0),
    ("perceptual_weight", "perceptual_weight", 1.0),
    ("disc_weight", "adversarial_weight", 1.0),
    ("disc_loss", "adversarial_loss", "hinge"),
    ("disc_start", "disc_start", 250_001),
)
_DISCRIMINATOR = (("disc_ndf", "channels", 64), ("disc_num_layers", "layers", 3))
# The original ignores the first; the second follows from the model.
_IGNORED = ("pixelloss_weight", "disc_in_channels", "n_classes")
# Where another value would be another loss than ours.
_FIXED = {"disc_conditional": False, "perceptual_loss": "lpips", "pixel_loss": "l1"}

_OF_PICTURES = {
    *(theirs for theirs, _, _ in (*_LOSS, *_DISCRIMINATOR)),
    *_IGNORED,
    *_FIXED,
    "disc_factor",
    "use_actnorm",
}
_ADVERSARIAL = ("hinge", "vanilla")
_KINDS = {
    **dict.fromkeys(("codebook_weight", "perceptual_weight"), values.NUMBER),
    **dict.fromkeys(("disc_weight", "disc_factor"), values.NUMBER),
    **dict.fromkeys(("disc_ndf", "disc_num_layers"), values.COUNT),
    "disc_start": values.NUMBER,  # 5e4 is one without being whole to a .yaml
    "disc_loss": values.Kind("'hinge' or 'vanilla'", lambda v: v in _ADVERSARIAL),
    "use_actnorm": values.FLAG,
}
# The last names of the targets, and the params that each has.
_TARGETS = {
    "VQLPIPSWithDiscriminator": _OF_PICTURES,
    "DummyLoss": {},
    "Identity": {},
    "BCELoss": {},
    "BCELossWithQuant": {"codebook_weight"},
}


def from_lossconfig(node: Mapping[str, Any] | None, *, classes: bool) -> dict[str, Any]:
    """A tokenizer's losses as keys of `config.vqgan`.

    Args:
      node: `lossconfig`; None, or one that says nothing (DummyLoss), stands for what
        the original's published models were trained with.
      classes: whether it is a tokenizer of class maps.

    Raises:
      ValueError: for a loss or a key that is not known.
    """
    node = node or {"target": "DummyLoss"}
    check_keys("lossconfig", node, ("target", "params"))
    target = str(node.get("target")).rpartition(".")[2]
    if target not in _TARGETS:
        raise ValueError(
            f"lossconfig's target is {node.get('target')!r}; known are "
            f"{', '.join(_TARGETS)}: without its lossconfig the model can be converted"
        )
    params = node.get("params") or {}
    check_keys(f"{target}'s params", params, _TARGETS[target])
    for key, value in _FIXED.items():
        if params.get(key, value) != value:
            raise ValueError(
                f"{target}'s params have {key}={params[key]!r}; known is {value!r}: "
                "without its lossconfig the model can be converted"
            )
    check_values(f"{target}'s params", params, _KINDS)
    if target in ("DummyLoss", "Identity"):
        params = {"disc_weight": 0.8}  # of the published models of pictures
    if classes:
        codebook_weight = params.get("codebook_weight", 1.0)
        unused = {"adversarial_weight": 0.0, "discriminator": {}}
        return {"codebook_weight": codebook_weight, **unused}
    loss = {ours: params.get(theirs, other) for theirs, ours, other in _LOSS}
    loss["disc_start"] = int(loss["disc_start"])
    loss["adversarial_weight"] *= params.get("disc_factor", 1.0)
    fields = {ours: params.get(theirs, other) for theirs, ours, other in _DISCRIMINATOR}
    norm = "act" if params.get("use_actnorm") else "batch"
    return loss | {"discriminator": {**fields, "norm": norm}}


def to_lossconfig(section: Mapping[str, Any], *, discriminator: bool) -> dict[str, Any]:
    """The `lossconfig` of `config.vqgan`; DummyLoss if no discriminator is kept."""
    if section["model"].get("classes"):
        target = "taming.modules.losses.segmentation.BCELossWithQuant"
        params = {"codebook_weight": section.get("codebook_weight", 1.0)}
        return {"target": target, "params": params}
    if not discriminator:
        return {"target": "taming.modules.losses.DummyLoss"}
    fields = section["discriminator"]
    params = {theirs: section.get(ours, other) for theirs, ours, other in _LOSS}
    params |= {
        theirs: fields.get(ours, other) for theirs, ours, other in _DISCRIMINATOR
    }
    if params["disc_loss"] == "non_saturating":  # whose generator's loss they have not
        params["disc_loss"] = "vanilla"
    params["use_actnorm"] = fields.get("norm") == "act"
    params["disc_in_channels"] = section["model"]["encoder"].get("image_channels", 3)
    target = "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator"
    return {"target": target, "params": params}
