"""Quantizers: a grid of latents becomes a grid of codes, and comes back.

    z [B,h,w,D] -> quantizer(z, train=, step=) -> Quantized -> lookup(codes) [B,h,w,D]

    B batch    h, w grid    D dim    K codebook_size    N = B h w latents

Every quantizer takes the same steps in the same order: project, distances, codes,
look-up, loss, straight-through. The arithmetic that they share is written once, below
them, as functions over arrays. All of it is float32, whatever the activations are.

What gradients move is in "params"; what they do not (counts, averages) is in the
collection "codebook", mutable in training. Noise comes from the rng stream
"quantizer". `after_update(params, codebook, latents, step=, key=)` returns the first
two renewed: a pure function, called by the training step on the quantizer's own
sub-trees when the optimizer is done, for everything that sets codes by hand.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from taming_jax.models.codebook import Codebook
from taming_jax.models.convolution import normal, uniform
from taming_jax.models.fields import strict
from taming_jax.units import Codes


@struct.dataclass
class Quantized:
    """What a quantizer makes of a grid of latents.

    z: float32 [B,h,w,D], for the decoder; its gradient reaches the encoder.
    codes: int32 [B,h,w] in [0, K).
    loss: float32 [], the codebook's and the commitment term.
    stats: float32 [] each, for the logs.
    latents: float32 [B,h,w,D], what was looked up: projected, not yet quantized.
    """

    z: jax.Array
    codes: Codes
    loss: jax.Array
    stats: dict[str, jax.Array]
    latents: jax.Array


@strict
class VQ(Codebook):
    """The nearest entry of a learned table.

    k = argmin_k |z - e_k|^2,  loss = |sg z - e_k|^2 + beta |z - sg e_k|^2
    van den Oord et al. 2017; with `normalize`, z and e_k scaled to length 1 first,
    Yu et al. 2022. `legacy` has beta on the other term, as published models do.
    """

    beta: float = 0.25
    legacy: bool = False
    normalize: bool = False

    def setup(self):
        bound = 1 / self.codebook_size
        self.make_table(normal(1.0) if self.normalize else uniform(bound))

    def __call__(self, z: jax.Array, *, train: bool, step=None) -> Quantized:
        z = self._project(z.astype(jnp.float32))
        codes = nearest(z, self._project(self.embedding))
        q = self.lookup(codes)
        share = self.share(train, step)
        loss = codebook_loss(z=z, q=q, beta=self.beta, legacy=self.legacy)
        loss = jnp.where(share > 0, loss, 0.0)
        self.count(codes, train)
        stats = {"distance": jnp.mean(jnp.square(q - z)), "share": share}
        return Quantized(straight_through(z, q, share), codes, loss, stats, z)

    def lookup(self, codes: Codes) -> jax.Array:
        """Codes [...] in [0, K) -> the vectors that they stand for, [...,D]."""
        return self._project(jnp.take(self.embedding, codes, axis=0))

    @nn.nowrap
    def _project(self, vectors):
        return unit_length(vectors) if self.normalize else vectors


def nearest(z: jax.Array, table: jax.Array) -> Codes:
    """Index of the row of `table` [K,D] nearest to each vector of `z` [...,D].

    |z - e|^2 without |z|^2, which ranks the same and rounds better. At the highest
    precision: half a percent of the codes and more would flip in bfloat16. Takes
    [N,K] of memory. The first of equals wins.
    """
    z, table = jax.lax.stop_gradient((z, table))
    products = jnp.einsum("...d,kd->...k", z, table, precision="highest")
    distances = jnp.sum(jnp.square(table), axis=-1) - 2 * products
    return jnp.argmin(distances, axis=-1).astype(jnp.int32)


def straight_through(z: jax.Array, q: jax.Array, share: jax.Array) -> jax.Array:
    """Value z + share (q - z), gradient of z: what is quantized is passed over."""
    return z + jax.lax.stop_gradient(share * (q - z))


def codebook_loss(*, z, q, beta: float, legacy: bool) -> jax.Array:
    """mean |sg z - q|^2 + beta mean |z - sg q|^2; legacy: beta on the first term."""
    stop = jax.lax.stop_gradient
    codebook = jnp.mean(jnp.square(stop(z) - q))
    commitment = jnp.mean(jnp.square(z - stop(q)))
    if legacy:
        return beta * codebook + commitment
    return codebook + beta * commitment


def unit_length(vectors: jax.Array) -> jax.Array:
    """Scale the last axis to length 1; zeros stay zero, with a finite gradient."""
    squares = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


QUANTIZERS = {"vq": VQ}
