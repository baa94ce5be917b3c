"""Published checkpoints into what `load_vqgan` reads, without torch and without trust.

    CHECKPOINT, CONFIG -> OUTPUT/vqgan/             config.json, weights.npz, and what
                                                    else is there: discriminator.npz,
                                                    perceptual.npz, colours.npz
                          OUTPUT/condition_vqgan/   where a transformer has one
                          OUTPUT/card.py            a recipe card to train it further

Names and shapes are compared before anything is read; then one tensor after another
goes from the file into OUTPUT, which is there whole or not at all.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from taming_jax import __version__
from taming_jax.files import new_directory
from taming_jax.interop import configurations, contents
from taming_jax.interop.checkpoint import open_checkpoint
from taming_jax.interop.known import KNOWN
from taming_jax.interop.original import Tokenizer
from taming_jax.interop.parts import Parts, find_parts
from taming_jax.interop.recipe_cards import published, write_card
from taming_jax.interop.remaps import with_used_codes


def convert_checkpoint(
    checkpoint: str | os.PathLike,
    config: configurations.Configuration,
    output: str | os.PathLike,
    tokenizer: str | os.PathLike | None = None,
    *,
    dtype: str = "float32",
) -> dict[str, dict[str, Any]]:
    """Converts the tokenizers of a published checkpoint.

    Args:
      checkpoint: .ckpt, .pt, .pth or .safetensors; what it is, its content says.
      config: a .yaml in the original's form, a name of `known.KNOWN`, or LlamaGen's
        arguments, {"vq": {...}}.
      output: a directory that is new or empty.
      tokenizer: belongs to a prior, and none can be converted yet.
      dtype: of the weights that are kept, "float32" or "float16".

    Returns:
      What each config.json says of its model as its "card", by stage.

    Raises:
      ValueError: in one line, for a file or a configuration that is something else,
        for names and shapes that do not fit each other, and for an output that exists.
    """
    if tokenizer is not None:
        raise ValueError(
            f"tokenizer={str(tokenizer)!r} belongs to a prior, and only tokenizers can "
            "be converted so far: leave it out"
        )
    with new_directory(output) as unfinished:
        found, step = _found(checkpoint, configurations.read(config))
        recipe = published({stage: parts.tokenizer for stage, parts in found.items()})
        with Path(checkpoint).expanduser().open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        cards = {}
        for stage, parts in found.items():
            card = cards[stage] = _card(parts, Path(checkpoint).name, sha256)
            record = {"stage": stage, "step": step, "config": recipe, "card": card}
            source = f"{card['source']}, SHA-256 {sha256}"
            with _named(checkpoint):
                parts.write(unfinished / stage, record, source=source, dtype=dtype)
        brought = {stage: parts.names for stage, parts in found.items()}
        write_card(unfinished / "card.py", recipe, brought)
    return cards


def _found(
    checkpoint: str | os.PathLike, tokenizers: dict[str, Tokenizer]
) -> tuple[dict[str, Parts], int]:
    """The parts of each tokenizer in the file, by stage, and the step of training."""
    content = open_checkpoint(checkpoint)
    found = {}
    with _named(checkpoint):
        tensors, step = contents.tensors_in(content)
        for stage, tokenizer in tokenizers.items():
            own = contents.of_stage(tensors, stage)
            if own or stage == "vqgan":
                found[stage] = parts_of(with_used_codes(tokenizer, own), own)
    return found, step


@contextlib.contextmanager
def _named(checkpoint: str | os.PathLike) -> Iterator[None]:
    """What is wrong in the block is said of this file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from error


def parts_of(tokenizer: Tokenizer, tensors: contents.Tensors) -> Parts:
    """As `find_parts`, whose error is told with a known configuration that fits."""
    try:
        return find_parts(tokenizer, tensors)
    except ValueError as error:
        fitting = [name for name in KNOWN if _fits(name, tensors)]
        hint = "is this the configuration of another model?"
        if fitting:
            hint = f"the file has the names and shapes of {' and of '.join(fitting)}"
        raise ValueError(f"{error}; {hint}") from error


def _fits(name: str, tensors: contents.Tensors) -> bool:
    """Whether the tensors are those of a known configuration."""
    tokenizer = configurations.read(name)["vqgan"]
    size, dim = (tokenizer.model["quantizer"][key] for key in ("codebook_size", "dim"))
    tables = (f"quantize.{table}.weight" for table in ("embedding", "embed"))
    if not any(t in tensors and tensors[t].shape == (size, dim) for t in tables):
        return False  # soon told from most
    try:
        find_parts(tokenizer, tensors)
    except ValueError:
        return False
    return True


def _card(parts: Parts, source: str, sha256: str) -> dict[str, Any]:
    """What people should know of a converted model."""
    return {
        "source": source,
        "sha256": sha256,
        "form": parts.tokenizer.form,
        "resolution": parts.tokenizer.resolution,
        "parameters": parts.parameters,
        "parts": parts.names,
        "converted_by": f"taming_jax {__version__}",
    }
