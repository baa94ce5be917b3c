"""Quantizers: a grid of latents becomes a grid of codes, and comes back.

    z [B,h,w,D] -> quantizer(z, train=, step=) -> Quantized -> lookup(codes) [B,h,w,D]

    B batch    h, w grid    D = dim    K = codebook_size    N = B h w latents

Every quantizer takes the same steps in the same order: project, distances, codes,
look-up, loss, straight-through. Arithmetic that they share is written once, below
them, as functions over arrays; all of it is float32, whatever the activations are.

Two kinds of state: what gradients move is in "params"; what they do not (counts,
averages) is in the collection "codebook", mutable in training. Noise comes from the
rng stream "quantizer". `after_update(params, codebook, latents, step=, key=)` is pure
and called by the training step on the quantizer's own two sub-trees when the
optimizer is done: the place of everything that sets codes by hand.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from taming_jax.models.convolution import normal, uniform
from taming_jax.models.fields import strict
from taming_jax.models.schedules import ramp
from taming_jax.units import Codes


@struct.dataclass
class Quantized:
    """What a quantizer makes of a grid of latents.

    z: float32 [B,h,w,D], for the decoder; its gradient reaches the encoder.
    codes: int32 [B,h,w] in [0, K).
    loss: float32 [], the codebook's and the commitment term.
    stats: float32 [] each, for the logs; the same names from every quantizer.
    latents: float32 [B,h,w,D], what was looked up: after projection, before codes.
    """

    z: jax.Array
    codes: Codes
    loss: jax.Array
    stats: dict[str, jax.Array]
    latents: jax.Array


@strict
class VQ(nn.Module):
    """Nearest neighbour in a learned table.

    Equation: k = argmin_k |z - e_k|^2,  loss = |e_k - sg z|^2 + beta |z - sg e_k|^2
    (`legacy`: beta on the first term instead, as the published models are trained;
    `normalize`: z and e_k scaled to length 1 first).
    Soft start: up to `start_step` nothing is quantized; then the table is filled with
    latents and quantization is blended in over `blend_steps`.
    Revival: every `revive_every` steps (0: never), up to `revive_until`, codes that
    were not drawn since the last time are moved onto latents of the batch.
    Paper: van den Oord et al. 2017; Yu et al. 2022 for `normalize`.
    """

    codebook_size: int
    dim: int
    beta: float = 0.25
    legacy: bool = False
    normalize: bool = False
    start_step: int = 0
    blend_steps: int = 0
    revive_every: int = 0
    revive_until: int = 0

    def setup(self):
        size = (self.codebook_size, self.dim)
        draw = normal(1.0) if self.normalize else uniform(1 / self.codebook_size)
        self.embedding = self.param("embedding", draw, size)
        if self.is_mutable_collection("codebook"):  # nothing but training needs it
            self.usage = self.variable("codebook", "usage", jnp.zeros, size[:1])

    def __call__(self, z, *, train: bool, step=None) -> Quantized:
        z = self._project(z.astype(jnp.float32))
        codes = nearest(z, self._project(self.embedding))
        q = self.lookup(codes)
        distance = jnp.mean(jnp.square(q - z))
        loss = codebook_loss(z=z, q=q, beta=self.beta, legacy=self.legacy)
        share = jnp.ones(())
        if train and step is not None:
            share = ramp(step, start=self.start_step, length=self.blend_steps)
            loss = jnp.where(share > 0, loss, 0.0)
        if train and hasattr(self, "usage") and not self.is_initializing():
            self.usage.value += count(codes, self.codebook_size)
        stats = {"distance": distance, "share": share}
        return Quantized(straight_through(z, q, share), codes, loss, stats, latents=z)

    def lookup(self, codes: Codes) -> jax.Array:
        """Codes [...] in [0, K) -> the vectors that they stand for, [..., D]."""
        return jnp.take(self._project(self.embedding), codes, axis=0)

    @nn.nowrap
    def after_update(self, params, codebook, latents, *, step, key):
        """Fill the table at `start_step`, revive idle codes every `revive_every`."""
        since = step + 1 - self.start_step
        fill = (since == 0) & (self.start_step > 0)
        revive = (since > 0) & (since % max(self.revive_every, 1) == 0)
        revive &= (self.revive_every > 0) & (step < self.revive_until)
        chosen = fill | (revive & (codebook["usage"] == 0))  # [K]
        embedding = reseed(params["embedding"], chosen, latents, key)
        usage = jnp.where(fill | revive, 0, codebook["usage"])
        return {**params, "embedding": embedding}, {**codebook, "usage": usage}

    @nn.nowrap
    def _project(self, vectors):
        return unit_length(vectors) if self.normalize else vectors


def nearest(z: jax.Array, codebook: jax.Array) -> Codes:
    """Index of the row of `codebook` [K,D] nearest to each vector of `z` [...,D].

    |z - e|^2 without |z|^2, which ranks the same and rounds better. In float32 at
    the highest precision: half a percent of the codes and more would flip in
    bfloat16. The first of equals wins.
    """
    products = jnp.einsum("...d,kd->...k", z, codebook, precision="highest")
    distances = jnp.sum(jnp.square(codebook), axis=-1) - 2 * products
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


def count(codes: Codes, codebook_size: int) -> jax.Array:
    """How often each code occurs: float32 [K], which saturates but never wraps."""
    return jnp.zeros(codebook_size).at[codes.ravel()].add(1.0)


def reseed(embedding, chosen, latents, key) -> jax.Array:
    """Move the chosen rows (bool [K] or []) of `embedding` [K,D] onto random latents.

    Different latents as long as there are enough of them.
    """
    latents = latents.reshape(-1, latents.shape[-1])  # [N, D]
    size, supply = len(embedding), len(latents)
    drawn = jax.random.choice(key, supply, (size,), replace=supply < size)
    return jnp.where(jnp.atleast_1d(chosen)[:, None], latents[drawn], embedding)


QUANTIZERS = {"vq": VQ}
