"""How much of the codebook is in use, over a window of many batches.

Counting within one batch hides a collapse (a small batch cannot show many codes) or
invents one. Two histograms are kept: the one being filled and the last one that was
filled with at least ten draws per code; figures are of both together, so that they
stand on the last 10 K to 20 K draws, over all devices, once a run is that long.
"""

import jax
import jax.numpy as jnp
from flax import struct

DRAWS_PER_CODE = 10


@struct.dataclass
class CodeWindow:
    """int32 [K] each: how often every code was drawn."""

    filling: jax.Array
    filled: jax.Array

    @classmethod
    def empty(cls, codebook_size: int) -> "CodeWindow":
        zeros = jnp.zeros((codebook_size,), jnp.int32)
        return cls(filling=zeros, filled=zeros)

    def add(self, codes: jax.Array) -> "CodeWindow":
        """The window after these codes, int32 of any shape, were drawn."""
        counts = jnp.bincount(codes.reshape(-1), length=self.filling.size)
        filling = self.filling + counts.astype(jnp.int32)
        is_full = filling.sum() >= DRAWS_PER_CODE * filling.size
        return CodeWindow(
            filling=jnp.where(is_full, 0, filling),
            filled=jnp.where(is_full, filling, self.filled),
        )

    def metrics(self) -> dict[str, jax.Array]:
        """Share of distinct codes, exp(entropy), and how many draws are behind them."""
        counts = (self.filling + self.filled).astype(jnp.float32)
        total = jnp.maximum(counts.sum(), 1.0)
        shares = counts / total
        entropy = -jnp.sum(shares * jnp.log(jnp.maximum(shares, 1e-30)))
        return {
            "codebook_usage": jnp.mean(counts > 0),
            "codebook_perplexity": jnp.exp(entropy),
            "codebook_draws": total,
        }
