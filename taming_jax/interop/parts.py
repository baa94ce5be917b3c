"""A published tokenizer in its parts: the model, its discriminator, LPIPS, colours.

find_parts(tokenizer, tensors) -> Parts    whence each array comes; nothing is read
Parts.write(directory, ...)                what `load_vqgan` and `init_from` read
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from taming_jax import npz, stored
from taming_jax.interop.contents import DISCRIMINATOR, Tensors
from taming_jax.interop.layout import layout
from taming_jax.interop.matching import Source, Zeros, match
from taming_jax.interop.names import PERCEPTUAL
from taming_jax.interop.original import Tokenizer
from taming_jax.interop.perceptual import save_perceptual
from taming_jax.interop.tables import to_ours, under
from taming_jax.models.discriminator import Discriminator
from taming_jax.models.vqgan import VQGAN, blank

_LPIPS = "loss.perceptual_loss."


@dataclasses.dataclass(frozen=True)
class Parts:
    """What there is of a tokenizer in a file.

    Attributes:
      tokenizer: its configuration, completed by what the file says.
      sources: of arrays: "generator/...", "discriminator/..." and "colours/classes".
      perceptual: tensors of LPIPS by the authors' names.
    """

    tokenizer: Tokenizer
    sources: Mapping[str, Source | Zeros]
    perceptual: Tensors

    @property
    def model(self) -> Tokenizer:
        """The configuration, as every model's parts call it."""
        return self.tokenizer

    @property
    def names(self) -> list[str]:
        """Which parts there are besides the model."""
        there = {name.partition("/")[0] for name in self.sources} - {"generator"}
        return sorted(there | ({"perceptual"} if self.perceptual else set()))

    @property
    def parameters(self) -> int:
        """How many numbers of the model are learned."""
        learned = "generator/params/"
        shapes = [s.shape for name, s in self.sources.items() if learned in name]
        return sum(math.prod(shape) for shape in shapes)

    def write(
        self, directory: Path, record: Mapping[str, Any], *, source: str, dtype: str
    ) -> None:
        """Writes all parts, one array after the other.

        Args:
          directory: made if it is not there.
          record: what config.json is to say.
          source: whence it is, in a word.
          dtype: of the model's weights, as `stored.write` takes it.

        Raises:
          ValueError: for what cannot be read, and for weights that are not finite.
        """
        stored.write_parts(directory, record, self._arrays("generator"), dtype=dtype)
        for part in self.names:
            path = directory / f"{part}.npz"
            if part != "perceptual":
                npz.write(path, self._arrays(part))
                continue
            read = {name: tensor.read() for name, tensor in self.perceptual.items()}
            save_perceptual(path, to_ours(under("", _LPIPS, PERCEPTUAL), read), source)

    def _arrays(self, part: str) -> Iterator[tuple[str, np.ndarray]]:
        for name, source in self.sources.items():
            if name.startswith(f"{part}/"):
                yield name.removeprefix(f"{part}/"), source.read()


def find_parts(tokenizer: Tokenizer, tensors: Tensors) -> Parts:
    """The parts of a tokenizer among the tensors of its file.

    Raises:
      ValueError: with the names and shapes of both sides that do not fit.
    """
    perceptual = {n: t for n, t in tensors.items() if n.startswith(_LPIPS)}
    others = {n: t for n, t in tensors.items() if n not in perceptual}
    judge = {
        name.removeprefix(DISCRIMINATOR): tensor
        for name, tensor in others.items()
        if name.startswith(DISCRIMINATOR)
    }
    expected = {"generator": _variables(tokenizer.model)}
    if judge:
        tokenizer = _with_discriminator(tokenizer, judge)
        fields = tokenizer.trained["discriminator"]
        expected["discriminator"] = _against(fields, judge)
    if "colorize" in others:
        shape = (tokenizer.model["encoder"]["image_channels"], 3)
        expected["colours"] = {"classes": jax.ShapeDtypeStruct(shape, jnp.float32)}
    table = layout(tokenizer.model, tokenizer.trained["discriminator"], tokenizer.form)
    sources = match(table, others, flatten_dict(expected, sep="/"))
    return Parts(tokenizer, sources, perceptual)


def _variables(model: Mapping[str, Any]) -> dict[str, Any]:
    """The shapes of all that a model has learned and counted."""
    module = VQGAN(**model)
    init = partial(module.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), blank(module, module.stride))


def _with_discriminator(tokenizer: Tokenizer, tensors: Tensors) -> Tokenizer:
    """The configuration with the discriminator that is really there.

    Published configurations are silent about it, or speak of another one.
    """
    first = tensors.get("main.0.weight")
    kernels = [
        t for n, t in tensors.items() if n[-7:] == ".weight" and len(t.shape) == 4
    ]
    if first not in kernels or len(kernels) < 3:
        return tokenizer  # and what is missing will be said
    ends = {name.rpartition(".")[2] for name in tensors}
    norms = {"loc": "act", "running_mean": "batch"}
    fields = {
        "channels": first.shape[0],
        "layers": len(kernels) - 2,
        "norm": next((norms[end] for end in norms if end in ends), "none"),
    }
    return dataclasses.replace(
        tokenizer, trained={**tokenizer.trained, "discriminator": fields}
    )


def _against(fields: Mapping[str, Any], tensors: Tensors) -> dict[str, Any]:
    """The shapes of a discriminator, which may have been shown a condition too."""
    first = tensors.get("main.0.weight")
    channels = first.shape[1] if first and len(first.shape) == 4 else 3
    images = jnp.zeros((1, 2**8, 2**8, channels))
    init = partial(Discriminator(**fields).init, train=False)
    return jax.eval_shape(init, jax.random.key(0), images)
