"""Of all that is in a checkpoint, the tensors of its tokenizers and its transformer.

    content --tensors_in--> {name: Tensor}, step --of_stage--> the names of one model

A file has its tensors under a key such as "state_dict", or nothing else at all;
LlamaGen's have the discriminator under a key of its own. Those of a transformer or of
latent diffusion carry their tokenizers along, under a prefix.
"""

from collections.abc import Mapping
from typing import Any

from taming_jax.interop.formats.tensors import Tensor

Tensors = Mapping[str, Tensor]

# Where tensors lie, averages first: LlamaGen keeps both.
_KEYS = ("ema", "state_dict", "model", "module")
_STEPS = ("global_step", "steps", "step")
# What wraps a model when it is trained, and stands before all of its names.
_WRAPPERS = ("module.", "_orig_mod.")
# What a tokenizer's names begin with in the file of a model that is made on top of it.
PREFIXES = {
    "vqgan": "first_stage_model.",
    "condition_vqgan": "cond_stage_model.",
    "prior": "transformer.",
}
# The embeddings of a transformer's file that holds nothing else, by its authors.
EMBEDDINGS = ("tok_emb.weight", "tok_embeddings.weight")
_ORDER = "permuter."
DISCRIMINATOR = "loss.discriminator."
_AVERAGED = "model_ema."
_FIRST_OF_PATCHES = "main.0.weight"  # of the discriminator that looks at patches


def tensors_in(content: Any) -> tuple[Tensors, int]:
    """(tensors by name, training's step or 0) of what `open_checkpoint` gives.

    Raises:
      ValueError: if there are no tensors by name.
    """
    found = _found(content)
    if not found:
        keys = list(content) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(
            f"it holds no tensors by name, but {str(keys)[:200]}: save the model's "
            "state_dict()"
        )
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in found):
            found = {name.removeprefix(wrapper): found[name] for name in found}
    judge = _found(content.get("discriminator"))
    if _FIRST_OF_PATCHES in judge:  # LlamaGen has another kind too
        found = {**found, **{DISCRIMINATOR + name: judge[name] for name in judge}}
    steps = [content.get(key) for key in _STEPS]
    return found, next((step for step in steps if type(step) is int), 0)


def of_stage(tensors: Tensors, stage: str) -> Tensors:
    """Those of one model, under the names that it has when it is alone.

    stage: "vqgan" or "prior", which a file may hold alone, or "condition_vqgan".
    """
    prefix = PREFIXES[stage]
    own = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    if own:
        return _averages_preferred(own)
    if stage == "prior":
        return dict(tensors) if any(name in tensors for name in EMBEDDINGS) else {}
    return _averages_preferred(tensors) if stage == "vqgan" else {}


def of_order(tensors: Tensors) -> Tensors:
    """Those that say in which order a transformer reads codes; {}: nothing says it."""
    return {
        name.removeprefix(_ORDER): tensor
        for name, tensor in tensors.items()
        if name.startswith(_ORDER)
    }


def _found(content: Any) -> Tensors:
    if not isinstance(content, Mapping):
        return {}
    for key in _KEYS:
        if inner := _found(content.get(key)):
            return inner
    return {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }


def _averages_preferred(tensors: Tensors) -> Tensors:
    """Latent diffusion keeps averages beside, under names without dots.

    The discriminator is taken as it is: its statistics belong to the latest weights.
    """
    averages, latest = {}, {}
    for name, tensor in tensors.items():
        kind = averages if name.startswith(_AVERAGED) else latest
        kind[name.removeprefix(_AVERAGED)] = tensor
    return {
        name: tensor
        if name.startswith("loss.")
        else averages.get(name.replace(".", ""), tensor)
        for name, tensor in latest.items()
    }
