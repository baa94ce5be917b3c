"""A model of ours under its authors' names, for their programs.

    MODEL -> NAME.ckpt or NAME.safetensors    the tensors
             NAME.yaml                        the configuration that belongs to them
             NAME.npy                         the codes that are used, where not all are

MODEL may have been converted or trained here. Weights are the averaged ones, as
`load_vqgan` reads them; discriminator and LPIPS are in the file if MODEL has kept them,
and the authors' programs look for them there. The original's priors have their
tokenizers in the file, LlamaGen's have not.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from taming_jax import stored
from taming_jax.files import in_bucket, whole_file
from taming_jax.interop.actnorm import joined
from taming_jax.interop.back_prior import (
    check_net2net,
    is_llamagens,
    to_llamagen_gpt,
    to_net2net,
)
from taming_jax.interop.contents import DISCRIMINATOR, PREFIXES
from taming_jax.interop.formats.safetensors import write_safetensors
from taming_jax.interop.formats.torch_files import write_torch
from taming_jax.interop.layout import form_of, layout
from taming_jax.interop.llamagen import to_llamagen
from taming_jax.interop.original import to_original
from taming_jax.interop.perceptual import load_perceptual
from taming_jax.interop.tables import to_theirs
from taming_jax.models.perceptual import SCALE, SHIFT

SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")
_LLAMAGENS_COUNTS = 65_536  # codes whose use LlamaGen counts, whatever there are


class Handed(NamedTuple):
    """What goes into a file, and beside it.

    Attributes:
      tensors: by their authors' names.
      content: of a file that has more than tensors, these among it.
      config: in their words.
      used: int64 [n], the codes that are used, where not all are.
    """

    tensors: Mapping[str, np.ndarray]
    content: Mapping[str, Any]
    config: dict[str, Any]
    used: np.ndarray | None = None


def convert_back(
    model: str | os.PathLike, output: str | os.PathLike, stage: str = "vqgan"
) -> None:
    """Writes a tokenizer, or a prior, as its authors' programs read it.

    Args:
      model: what `load_vqgan` and `load_prior` take; a run's directory, for example.
      output: the file, whose name ends as one of `SUFFIXES`; a .yaml comes beside it.
      stage: "prior", or a tokenizer's, of which the other is taken where it is alone.

    Raises:
      ValueError: if there is no such model, if the authors' programs cannot be told
        it, or if a file is there already.
    """
    output = _checked(output)
    if stage == "prior":
        handed = _prior(model)
    else:
        handed = _tokenizer(model, stored.stage_at(model, stage))
    if handed.used is not None:
        handed.config["model"]["params"]["remap"] = f"{output.stem}.npy"
    with _written_beside(output, handed.config, handed.used):
        if output.suffix == ".safetensors":
            write_safetensors(output, handed.tensors)
        else:
            write_torch(output, handed.content)


def _tokenizer(
    model: str | os.PathLike, stage: str, wanted: str | None = None
) -> Handed:
    """A tokenizer; of a prior that with the fingerprint `wanted`, or ValueError."""
    ours = stored.read(model, stage)
    if wanted not in (None, ours.fingerprint):
        raise ValueError(
            f"{ours.directory} is not the tokenizer that the prior was trained with "
            f"(fingerprint {wanted[:12]}, there {ours.fingerprint[:12]}), and the "
            "original's file has both in one: bring the former back"
        )
    section = ours.config[stage]
    fields = section.get("discriminator") or {}
    judge = stored.read_discriminator(model, stage)
    other = fields.get("blur") or fields.get("spectral_norm")
    if other or fields.get("norm") == "none":
        judge = None  # theirs always normalise, and can do nothing else
    form = form_of(ours.record, section["model"])
    with _named(model):
        if form == "llamagen":
            config = {"vq": to_llamagen(section)}
        else:
            config = {"model": to_original(section, discriminator=judge is not None)}
        used = _used(section["model"]["quantizer"])
    tree = {"generator": _generator(ours.variables), **_beside(ours, judge)}
    tensors = to_theirs(layout(section["model"], fields, form), tree)
    tensors |= _constants(used, form, "perceptual" in tree)
    content = {"state_dict": tensors, "global_step": ours.step}
    if form == "llamagen":
        content = _apart(tensors, ours.step)
        tensors = content["model"]
    return Handed(tensors, content, config, used)


def _prior(model: str | os.PathLike) -> Handed:
    """The transformer; in the original's form with the tokenizers that it needs."""
    ours = stored.read(model, "prior")
    section, facts = ours.config["prior"], ours.record["facts"]
    params = ours.variables["params"]
    if is_llamagens(section):
        with _named(model):
            tensors, config = to_llamagen_gpt(section, facts, params)
        return Handed(tensors, {"model": tensors, "steps": ours.step}, config)
    with _named(model):
        check_net2net(section)  # before its tokenizers are read
    beside = ours.directory.parent
    told = facts.get("condition") or {}
    by, wanted = told.get("tokenizer"), {"vqgan": facts["tokenizer"]["fingerprint"]}
    stages = {"vqgan": section.get("tokenizer") or beside}
    if by == "condition_vqgan":
        stages[by] = section.get("condition_tokenizer") or beside
        wanted[by] = told.get("fingerprint")
    tokenizers = {
        stage: _tokenizer(place, stage, wanted[stage])
        for stage, place in stages.items()
    }
    with _named(model):
        for stage, handed in tokenizers.items():
            if "model" not in handed.config or handed.used is not None:
                raise ValueError(
                    f"its {stage} is LlamaGen's, or has codes that are not used; the "
                    "original's file has none of the two"
                )
        configs = {
            stage: handed.config["model"] for stage, handed in tokenizers.items()
        }
        tensors, config = to_net2net(section, facts, params, configs)
    if by == "vqgan":  # the original repeats it
        tokenizers["condition_vqgan"] = tokenizers["vqgan"]
    for stage, handed in tokenizers.items():
        tensors |= {f"{PREFIXES[stage]}{k}": v for k, v in handed.tensors.items()}
    return Handed(tensors, {"state_dict": tensors, "global_step": ours.step}, config)


@contextlib.contextmanager
def _named(model: str | os.PathLike) -> Iterator[None]:
    """What their programs cannot be told is said of this model."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{model} cannot be handed back: {error}") from error


def _checked(output: str | os.PathLike) -> Path:
    """The path of the file, if it can be made."""
    if in_bucket(output):
        raise ValueError(f"{output} is in a bucket: name a file of this machine")
    output = Path(output).expanduser()
    if output.suffix not in SUFFIXES:
        raise ValueError(f"{output} should end in {', '.join(SUFFIXES)}: rename it")
    for path in (output, output.with_suffix(".yaml"), output.with_suffix(".npy")):
        if path.exists():
            raise ValueError(f"{path} exists; nothing is overwritten: name another one")
    output.parent.mkdir(parents=True, exist_ok=True)
    return output


def _used(quantizer: Mapping[str, Any]) -> np.ndarray | None:
    """The used codes int64 [n], where the model renumbers them."""
    if quantizer.get("used") is None:
        return None
    if (unknown := quantizer.get("unknown", "random")) != "random":
        raise ValueError(
            f"its codes that are not used become {unknown!r}, theirs one of the used"
        )
    return np.asarray(quantizer["used"], np.int64)


def _generator(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The model's variables that they have too: not how often codes were used."""
    kept = dict(variables["codebook"].get("quantizer", {}))
    kept.pop("usage", None)
    codebook = {"quantizer": kept} if kept else {}
    return {"params": variables["params"], "codebook": codebook}


def _beside(ours: stored.Stored, judge: Mapping[str, Any] | None) -> dict[str, Any]:
    """What else of the model was kept."""
    parts = {}
    if judge is not None:
        acts = any("loc" in layer for layer in judge["params"].values())
        parts["discriminator"] = joined(judge) if acts else judge
    if (ours.directory / "perceptual.npz").exists():
        parts["perceptual"] = load_perceptual(ours.directory / "perceptual.npz")
    if (ours.directory / "colours.npz").exists():
        with np.load(ours.directory / "colours.npz") as file:
            parts["colours"] = {"classes": file["classes"]}
    return parts


def _constants(used: np.ndarray | None, form: str, perceptual: bool) -> dict:
    """Tensors that their programs miss where a file does not have them."""
    constants = {}
    if form == "llamagen":
        constants["quantize.codebook_used"] = np.zeros(_LLAMAGENS_COUNTS, np.float32)
    if used is not None:
        constants["quantize.used"] = used
    if perceptual:
        for name, colours in (("shift", SHIFT), ("scale", SCALE)):
            constant = np.float32(colours).reshape(1, 3, 1, 1)
            constants[f"loss.perceptual_loss.scaling_layer.{name}"] = constant
    return constants


def _apart(tensors: Mapping[str, Any], step: int) -> dict[str, Any]:
    """As LlamaGen's files have it: its model takes no tensors but its own."""
    model = {k: t for k, t in tensors.items() if not k.startswith("loss.")}
    content = {"model": model, "steps": step}
    judge = {
        name.removeprefix(DISCRIMINATOR): tensor
        for name, tensor in tensors.items()
        if name.startswith(DISCRIMINATOR)
    }
    return content | ({"discriminator": judge} if judge else {})


@contextlib.contextmanager
def _written_beside(
    output: Path, config: Mapping[str, Any], used: np.ndarray | None
) -> Iterator[None]:
    """Writes what belongs to the tensors; it is there once the block has written them.

    So that there is nothing where any of the files cannot be written.
    """
    import yaml

    with contextlib.ExitStack() as files:
        file = files.enter_context(whole_file(output.with_suffix(".yaml")))
        file.write(yaml.safe_dump(config, sort_keys=False).encode())
        if used is not None:
            file = files.enter_context(whole_file(output.with_suffix(".npy")))
            np.save(file, used)
        yield
