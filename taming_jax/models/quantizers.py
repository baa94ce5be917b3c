"""Quantizers: a grid of latents becomes a grid of codes, and comes back.

    z [B,h,w,D] -> quantizer(z, train=, step=) -> Quantized -> lookup(codes) [B,h,w,D]

    B batch    h, w grid    D dim    K codebook_size    N = B h w latents

Every quantizer takes the same steps in the same order: project, distances, codes,
vectors, loss, straight-through. The arithmetic that they share is written once, below
them, as functions over arrays. All of it is float32, whatever the activations are.
What their tables share is in `codebook`: `quantize` and `vectors` deal in all K codes;
where only some are used, these are renumbered around them, in `__call__` and `lookup`.

What gradients move is in "params"; what they do not (counts, averages) is in the
collection "codebook", mutable in training. Noise comes from the rng stream
"quantizer". `after_update(params, codebook, latents, step=, key=)` returns the first
two renewed: a pure function, called by the training step on the quantizer's own
sub-trees when the optimizer is done, for everything that sets codes by hand.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from taming_jax.models.codebook import Codebook, ReseededCodebook, occurrences
from taming_jax.models.convolution import Conv, flat, normal, uniform
from taming_jax.models.fields import strict
from taming_jax.models.schedules import warm_up_cosine
from taming_jax.units import Codes


@struct.dataclass
class Quantized:
    """What a quantizer makes of a grid of latents.

    z: float32 [B,h,w,D], for the decoder; its gradient reaches the encoder.
    codes: int32 [B,h,w] in [0, K), or fewer where not all are used.
    loss: float32 [], what keeps codes and latents together.
    stats: float32 [] each, for the logs.
    latents: float32 [B,h,w,D], what was looked up: projected, not yet quantized.
    """

    z: jax.Array
    codes: Codes
    loss: jax.Array
    stats: dict[str, jax.Array]
    latents: jax.Array


@strict
class VQ(ReseededCodebook):
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

    def quantize(self, z: jax.Array, *, train: bool, step) -> Quantized:
        z = self._project(z)
        codes = nearest(z, self._project(self.embedding))
        q = self.vectors(codes)
        share = self.share(train, step)
        loss = codebook_loss(z=z, q=q, beta=self.beta, legacy=self.legacy)
        loss = jnp.where(share > 0, loss, 0.0)
        stats = {"distance": jnp.mean(jnp.square(q - z)), "share": share}
        return Quantized(straight_through(z, q, share), codes, loss, stats, z)

    def vectors(self, codes: Codes) -> jax.Array:
        return self._project(super().vectors(codes))

    @nn.nowrap
    def _project(self, vectors):
        return unit_length(vectors) if self.normalize else vectors


@strict
class EMA(Codebook):
    """The nearest entry of a table whose rows are running means of their latents.

    k = argmin_k |z - e_k|^2,  loss = beta |z - sg e_k|^2,  e_k = m_k / n_k where
    n_k <- d n_k + (1 - d) #{z at k},  m_k <- d m_k + (1 - d) sum of these z
    van den Oord et al. 2017, appendix A.1; n_k is smoothed by `epsilon` (Laplace), and
    starts at 1: from 0, as in the original, e_k is blown up where no latents are.
    """

    beta: float = 0.25
    decay: float = 0.99
    epsilon: float = 1e-5

    def setup(self):
        self.make_table(normal(1.0))
        if self.is_mutable_collection("codebook"):
            size = (self.codebook_size,)
            self.sizes = self.variable("codebook", "sizes", jnp.ones, size)
            self.sums = self.variable("codebook", "sums", lambda: self.embedding)

    def quantize(self, z: jax.Array, *, train: bool, step) -> Quantized:
        del train, step
        codes = nearest(z, self.embedding)
        q = jax.lax.stop_gradient(self.vectors(codes))
        distance = jnp.mean(jnp.square(z - q))
        z_q, loss = straight_through(z, q, 1.0), self.beta * distance
        return Quantized(z_q, codes, loss, {"distance": distance}, z)

    @nn.nowrap
    def after_update(self, params, codebook, latents, *, step, key):
        """Move the averages, and every code onto its own."""
        del step, key
        latents = latents.reshape(-1, self.dim)
        codes = nearest(latents, params["embedding"])
        totals = jnp.zeros_like(codebook["sums"]).at[codes].add(latents)
        sizes = ema(codebook["sizes"], occurrences(codes, len(totals)), self.decay)
        sums = ema(codebook["sums"], totals, self.decay)
        embedding = sums / smoothed(sizes, self.epsilon)[:, None]
        codebook = {**codebook, "sizes": sizes, "sums": sums}
        return {**params, "embedding": embedding}, codebook


@strict
class Gumbel(Codebook):
    """A code drawn by odds that are learned, softened by a temperature T.

    l = W z + b,  y = softmax((l + g) / T),  k = argmax_k y_k,  q = sum_k y_k e_k
    loss = kl_weight sum_k p_k log(K p_k) with p = softmax(l)
    Jang et al. 2017; Gumbel noise g in training only. `straight_through`: y is one-hot
    forward, soft backward; in evaluation it is one-hot. T as `warm_up_cosine` goes
    through `temperature` by the steps `temperature_steps`, here as Ramesh et al. 2021.
    """

    kl_weight: float = 1e-8
    straight_through: bool = True
    temperature: Sequence[float] = (1.0, 1.0, 1 / 16)
    temperature_steps: Sequence[int] = (0, 150_000)

    def __post_init__(self):
        super().__post_init__()
        if min(self.temperature) <= 0:
            raise ValueError(
                f"Gumbel's temperature={tuple(self.temperature)} is not above 0 all "
                "the way, and is divided by; the original ends at 1e-6"
            )

    def setup(self):
        self.proj = Conv(self.codebook_size, size=1)
        self.make_table(normal(1.0))

    def quantize(self, z: jax.Array, *, train: bool, step) -> Quantized:
        logits = self.logits(z)
        kl = divergence(jax.nn.softmax(logits))
        step = self.temperature_steps[1] if step is None else step
        temperature = warm_up_cosine(step, self.temperature, self.temperature_steps)
        if train:
            logits += flat(jax.random.gumbel, self.make_rng("quantizer"), logits.shape)
        codes = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        y = jax.nn.one_hot(codes, self.codebook_size)
        if train:
            soft = jax.nn.softmax(logits / temperature)
            y = straight_through(soft, y, float(self.straight_through))
        q = jnp.einsum("...k,kd->...d", y, self.embedding, precision="highest")
        stats = {"divergence": kl, "temperature": temperature}
        return Quantized(q, codes, self.kl_weight * kl, stats, z)

    def logits(self, z: jax.Array) -> jax.Array:
        """z [B,h,w,D] -> [B,h,w,K]; -inf for codes that are not used."""
        with jax.default_matmul_precision("highest"):
            return jnp.where(self.is_used(), self.proj(z), -jnp.inf)


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


def ema(average: jax.Array, value: jax.Array, decay: float) -> jax.Array:
    """decay * average + (1 - decay) * value."""
    return decay * average + (1 - decay) * value


def smoothed(sizes: jax.Array, epsilon: float) -> jax.Array:
    """Each of [K] with `epsilon` more, and their sum as it was (Laplace)."""
    total = jnp.sum(sizes)
    return (sizes + epsilon) / (total + len(sizes) * epsilon) * total


def divergence(p: jax.Array) -> jax.Array:
    """Mean over places of sum_k p_k log(K p_k), p [...,K]: 0 where all are alike."""
    size = p.shape[-1]
    return jnp.mean(jnp.sum(p * jnp.log(size * p + 1e-10), axis=-1))


def unit_length(vectors: jax.Array) -> jax.Array:
    """Scale the last axis to length 1; zeros stay zero, with a finite gradient."""
    squares = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


QUANTIZERS = {"vq": VQ, "ema": EMA, "gumbel": Gumbel}
