"""Published checkpoints into what `load_*` read, without torch and without trust.

    CHECKPOINT, CONFIG -> OUTPUT/vqgan/             config.json, weights.npz, and what
                                                    else is there: discriminator.npz,
                                                    perceptual.npz, colours.npz
                          OUTPUT/condition_vqgan/   where a transformer has one
                          OUTPUT/prior/             a transformer's own part
                          OUTPUT/card.py            a recipe card to train it further

Names and shapes are compared before anything is read; then one tensor after another
goes from the file into OUTPUT, which is there whole or not at all.
"""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from taming_jax import __version__, stored
from taming_jax.files import new_directory
from taming_jax.interop import configurations, contents
from taming_jax.interop.checkpoint import open_checkpoint
from taming_jax.interop.known import KNOWN
from taming_jax.interop.llamagen_prior import is_transformer
from taming_jax.interop.original import Tokenizer
from taming_jax.interop.parts import Parts, find_parts
from taming_jax.interop.prior_form import Prior
from taming_jax.interop.priors import PriorParts, find_prior
from taming_jax.interop.recipe_cards import published, write_card
from taming_jax.interop.remaps import with_used_codes
from taming_jax.models.vqgan import VQGAN


def convert_checkpoint(
    checkpoint: str | os.PathLike,
    config: configurations.Configuration,
    output: str | os.PathLike,
    tokenizer: str | os.PathLike | None = None,
    *,
    dtype: str = "float32",
) -> dict[str, dict[str, Any]]:
    """Converts the models of a published checkpoint.

    Args:
      checkpoint: .ckpt, .pt, .pth or .safetensors; what it is, its content says.
      config: a .yaml in the original's form, a name of `known.KNOWN`, or LlamaGen's
        arguments, {"vq": {...}} or {"gpt": {...}}.
      output: a directory that is new or empty.
      tokenizer: of a transformer that does not bring it along (LlamaGen's): a converted
        one, a run's directory, or a name; OUTPUT gets a copy. None: its codes can be
        drawn, and no pictures.
      dtype: of the weights that are kept, "float32" or "float16".

    Returns:
      What each config.json says of its model as its "card", by stage.

    Raises:
      ValueError: in one line, for a file or a configuration that is something else,
        for names and shapes that do not fit each other, for a tokenizer that is not the
        transformer's or not wanted, and for an output that exists.
    """
    with new_directory(output) as unfinished:
        models = configurations.read(config)
        if tokenizer is not None and "prior" not in models:
            raise ValueError(
                f"tokenizer={str(tokenizer)!r} belongs to a prior, and this is the "
                "configuration of a tokenizer itself: leave it out"
            )
        found, step = _found(checkpoint, models)
        brought = {stage: parts.names for stage, parts in found.items()}
        fingerprints = {}
        if tokenizer is not None:
            given = _with_tokenizer(tokenizer, found, unfinished / "vqgan")
            fingerprints["vqgan"], brought["vqgan"] = given, []
        recipe = published({stage: parts.model for stage, parts in found.items()})
        with Path(checkpoint).expanduser().open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        cards = {}
        for stage, parts in found.items():  # the prior is the last
            card = cards[stage] = _card(parts, Path(checkpoint).name, sha256)
            record = {"stage": stage, "step": step, "config": recipe, "card": card}
            if stage == "prior":
                record["facts"] = parts.prior.facts(fingerprints)
            source = f"{card['source']}, SHA-256 {sha256}"
            with _named(checkpoint):
                parts.write(unfinished / stage, record, source=source, dtype=dtype)
            if stage in stored.TOKENIZERS and "prior" in found:
                fingerprints[stage] = stored.read(unfinished, stage).fingerprint
        write_card(
            unfinished / "card.py",
            recipe,
            {stage: parts for stage, parts in brought.items() if stage in recipe},
            condition=found["prior"].prior.readable if "prior" in found else None,
            has_tokenizer="vqgan" in brought,
        )
    return cards


def _found(
    checkpoint: str | os.PathLike, models: dict[str, Tokenizer | Prior]
) -> tuple[dict[str, Parts | PriorParts], int]:
    """The parts of each model in the file, by stage, and the step of training."""
    content = open_checkpoint(checkpoint)
    found = {}
    with _named(checkpoint):
        tensors, step = contents.tensors_in(content)
        if len(models) > 1 and models["vqgan"].form == "llamagen":
            # Its arguments may be of both, and each has a file of its own.
            alone = "prior" if is_transformer(tensors) else "vqgan"
            models = {alone: models[alone]}
        for stage, model in models.items():
            own = contents.of_stage(tensors, stage)
            if not own and len(models) > 1 and stage != "vqgan":
                continue
            if stage == "prior":
                if "vqgan" in found:  # of which not all codes need be used
                    codes = VQGAN(**found["vqgan"].model.model).codebook_size
                    model = dataclasses.replace(model, codes=codes)
                found[stage] = prior_of(model, own, contents.of_order(tensors))
            else:
                found[stage] = parts_of(with_used_codes(model, own), own)
    return found, step


def _with_tokenizer(tokenizer: str | os.PathLike, found: dict, directory: Path) -> str:
    """Copies the tokenizer of a transformer; gives its fingerprint.

    Raises:
      ValueError: if it is not there, or cannot be the one that it was trained on.
    """
    named = f"tokenizer={str(tokenizer)!r}"
    if "vqgan" in found:
        raise ValueError(
            f"{named}, and the checkpoint brings its own tokenizer along: leave it out"
        )
    model = stored.read(tokenizer, "vqgan")
    module, prior = VQGAN(**model.config["vqgan"]["model"]), found["prior"].prior
    if module.codebook_size != prior.codes:
        raise ValueError(
            f"{named} has {module.codebook_size} codes, and the transformer draws "
            f"{prior.codes}: give the tokenizer that it was trained on"
        )
    if prior.stride not in (None, module.stride):
        raise ValueError(
            f"{named} makes a code of {module.stride} x {module.stride} pixels, and "
            f"the transformer was trained on codes of {prior.stride}: give the "
            "tokenizer that it was trained on"
        )
    card = model.record.get("card", {})
    stored.write(directory, model, dtype="float32", card=card)
    return model.fingerprint


@contextlib.contextmanager
def _named(checkpoint: str | os.PathLike) -> Iterator[None]:
    """What is wrong in the block is said of this file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from error


def parts_of(tokenizer: Tokenizer, tensors: contents.Tensors) -> Parts:
    """As `find_parts`, whose error is told with a known configuration that fits."""
    with _told_what_fits(lambda name: _fits(name, tensors)):
        return find_parts(tokenizer, tensors)


def prior_of(
    prior: Prior, tensors: contents.Tensors, order: contents.Tensors
) -> PriorParts:
    """As `find_prior`, likewise."""
    with _told_what_fits(lambda name: _fits_prior(name, tensors)):
        return find_prior(prior, tensors, order)


@contextlib.contextmanager
def _told_what_fits(fits: Callable[[str], bool]) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        fitting = [name for name in KNOWN if fits(name)]
        hint = "is this the configuration of another model?"
        if fitting:
            hint = f"the file has the names and shapes of {' and of '.join(fitting)}"
        raise ValueError(f"{error}; {hint}") from error


def _fits_prior(name: str, tensors: contents.Tensors) -> bool:
    """Whether the tensors are those of a known prior."""
    prior = configurations.read(name).get("prior")
    tables = [tensors[name] for name in contents.EMBEDDINGS if name in tensors]
    if prior is None or not tables:
        return False
    size = prior.model.get("vocab_size", prior.codes), prior.model["width"]
    if tables[0].shape != size:
        return False  # soon told from most
    try:
        find_prior(prior, tensors)
    except ValueError:
        return False
    return True


def _fits(name: str, tensors: contents.Tensors) -> bool:
    """Whether the tensors are those of a known tokenizer."""
    models = configurations.read(name)
    if "prior" in models:
        return False
    tokenizer = models["vqgan"]
    size, dim = (tokenizer.model["quantizer"][key] for key in ("codebook_size", "dim"))
    tables = (f"quantize.{table}.weight" for table in ("embedding", "embed"))
    if not any(t in tensors and tensors[t].shape == (size, dim) for t in tables):
        return False  # soon told from most
    try:
        find_parts(tokenizer, tensors)
    except ValueError:
        return False
    return True


def _card(parts: Parts | PriorParts, source: str, sha256: str) -> dict[str, Any]:
    """What people should know of a converted model."""
    told = {}
    if isinstance(parts, PriorParts):
        readable = parts.prior.readable is not None
        told = {"condition": parts.prior.kind, "trains_on": readable}
    return {
        "source": source,
        "sha256": sha256,
        "form": parts.model.form,
        "resolution": parts.model.resolution,
        "parameters": parts.parameters,
        "parts": parts.names,
        **told,
        "converted_by": f"taming_jax {__version__}",
    }
