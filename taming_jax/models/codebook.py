"""A table of codes: what all quantizers that have one share, and what keeps it in use.

    embedding float32 [K,D], in "params"       K codebook_size    D dim
    usage     float32 [K], in "codebook"       N latents of a batch

Two remedies against the table's collapse onto a few codes, both off by default:

Soft start. Up to `start_step` nothing is quantized, so that the encoder settles; then
the table is filled with latents and quantization is blended in over `blend_steps`.

Revival. Every `revive_every` steps after that, while the step is below `revive_until`,
codes that were not drawn since the last time are moved onto latents of the batch.

Both are plain functions of arrays over the global batch: every device agrees.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from taming_jax.models.remap import Remap, make_remap
from taming_jax.models.schedules import ramp
from taming_jax.units import Codes


class Codebook(nn.Module):
    """A quantizer with a table; `setup` calls `make_table`, `quantize` does the rest.

    codebook_size: rows of the table, K.
    used: the codes that may come out, in the order of their new numbers; None: all.
    unknown: what becomes of the others, see `models.remap`.
    """

    codebook_size: int
    dim: int
    used: Sequence[int] | None = None
    unknown: str | int = "random"

    def __post_init__(self):
        super().__post_init__()
        self._remap()  # or say what does not fit

    def __call__(self, z: jax.Array, *, train: bool, step=None):
        """z [B,h,w,D] -> Quantized, its codes in [0, size)."""
        quantized = self.quantize(z.astype(jnp.float32), train=train, step=step)
        self._count(quantized.codes, train)
        if self.used is None:
            return quantized
        outward = jnp.asarray(self._remap().outward)
        return quantized.replace(codes=outward[quantized.codes])

    def lookup(self, codes: Codes) -> jax.Array:
        """Codes [...] in [0, size) -> the vectors that they stand for, [...,D]."""
        if self.used is not None:
            codes = jnp.asarray(self._remap().inward)[codes]
        return self.vectors(codes)

    def vectors(self, codes: Codes) -> jax.Array:
        """Rows of the table, by their own numbers in [0, K): [...] -> [...,D]."""
        return jnp.take(self.embedding, codes, axis=0)

    @nn.nowrap
    def after_update(self, params, codebook, latents, *, step, key):
        """Leave everything as the optimizer did."""
        del latents, step, key
        return params, codebook

    @property
    def size(self) -> int:
        """How many codes come out: they lie in [0, size)."""
        remap = self._remap()
        return self.codebook_size if remap is None else len(remap.inward)

    @nn.nowrap
    def make_table(self, init: Callable) -> None:
        """Declare the table, and the counts where they may move."""
        self.embedding = self.param("embedding", init, (self.codebook_size, self.dim))
        if self.is_mutable_collection("codebook"):
            size = (self.codebook_size,)
            self.usage = self.variable("codebook", "usage", jnp.zeros, size)

    @nn.nowrap
    def is_used(self) -> np.ndarray:
        """Which rows of the table may come out: bool [K]."""
        used = range(self.codebook_size) if self.used is None else self.used
        return np.isin(np.arange(self.codebook_size), used)

    @nn.nowrap
    def _count(self, codes, train):
        """Add the codes to the counts, in a training step."""
        counts = train and self.is_mutable_collection("codebook")
        if counts and not self.is_initializing():
            self.usage.value += occurrences(codes, self.codebook_size)

    @nn.nowrap
    def _remap(self) -> Remap | None:
        if self.used is None:
            return None
        owner = type(self).__name__
        return make_remap(owner, self.codebook_size, self.used, self.unknown)


class ReseededCodebook(Codebook):
    """A table with the two remedies."""

    start_step: int = 0
    blend_steps: int = 0
    revive_every: int = 0
    revive_until: int = 0

    @nn.nowrap
    def share(self, train: bool, step) -> jax.Array:
        """How much of the quantization counts at this step, in [0, 1]: the blending."""
        if not train or step is None:
            return jnp.ones(())
        return ramp(step, start=self.start_step, length=self.blend_steps)

    @nn.nowrap
    def after_update(self, params, codebook, latents, *, step, key):
        """Fill the table when quantization begins; revive idle codes after that."""
        since = step + 1 - self.start_step
        fill = (since == 0) & (self.start_step > 0)
        revive = (since > 0) & (since % max(self.revive_every, 1) == 0)
        revive &= (self.revive_every > 0) & (step < self.revive_until)
        chosen = fill | (revive & (codebook["usage"] == 0))  # [K]
        embedding = reseed(params["embedding"], chosen, latents, key)
        usage = jnp.where(fill | revive, 0.0, codebook["usage"])
        return {**params, "embedding": embedding}, {**codebook, "usage": usage}


def occurrences(codes: Codes, codebook_size: int) -> jax.Array:
    """How often each code occurs: float32 [K], which saturates but never wraps."""
    return jnp.zeros(codebook_size).at[codes.ravel()].add(1.0)


def reseed(embedding, chosen, latents, key) -> jax.Array:
    """Move the chosen rows (bool [K]) of `embedding` [K,D] onto random latents [...,D].

    Onto different ones, as long as there are enough of them.
    """
    latents = latents.reshape(-1, latents.shape[-1])  # [N, D]
    size, supply = len(embedding), len(latents)
    drawn = jax.random.choice(key, supply, (size,), replace=supply < size)
    return jnp.where(chosen[:, None], latents[drawn], embedding)
