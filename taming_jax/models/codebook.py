"""A learned table of codes, and what keeps all of it in use.

    embedding float32 [K,D], in "params"       K codebook_size    D dim
    usage     float32 [K], in "codebook"       N latents of a batch

Two remedies against the table's collapse onto a few codes, both off by default:

Soft start. Up to `start_step` nothing is quantized, so that the encoder settles; then
the table is filled with latents and quantization is blended in over `blend_steps`.

Revival. Every `revive_every` steps after that, while the step is below `revive_until`,
codes that were not drawn since the last time are moved onto latents of the batch.

Both are plain functions of arrays over the global batch: every device agrees.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from taming_jax.models.schedules import ramp
from taming_jax.units import Codes


class Codebook(nn.Module):
    """What quantizers with a learned table share: `setup` calls `make_table`."""

    codebook_size: int
    dim: int
    start_step: int = 0
    blend_steps: int = 0
    revive_every: int = 0
    revive_until: int = 0

    @nn.nowrap
    def make_table(self, init: Callable) -> None:
        """Declare the table, and the counts where they may move."""
        self.embedding = self.param("embedding", init, (self.codebook_size, self.dim))
        if self.is_mutable_collection("codebook"):
            size = (self.codebook_size,)
            self.usage = self.variable("codebook", "usage", jnp.zeros, size)

    @nn.nowrap
    def share(self, train: bool, step) -> jax.Array:
        """How much of the quantization counts at this step, in [0, 1]: the blending."""
        if not train or step is None:
            return jnp.ones(())
        return ramp(step, start=self.start_step, length=self.blend_steps)

    @nn.nowrap
    def count(self, codes: Codes, train: bool) -> None:
        """Add the codes to the counts, in a training step."""
        counts = train and self.is_mutable_collection("codebook")
        if counts and not self.is_initializing():
            self.usage.value += occurrences(codes, self.codebook_size)

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
