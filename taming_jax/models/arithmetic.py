"""What quantizers compute, each thing once, as functions over float32 arrays.

    z latents [...,D]    K codes    D dim    p odds [...,K]

What is to be done with all K codes is in `lookup`, what passes gradients over in
`gradients`, what quantizers refuse in `quantizer_fields`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax.models.lookup import entropies, nearest
from taming_jax.units import Codes

# Bits whose combinations LFQ's entropy runs over: as many codes as one look-up's chunk.
GROUP_BITS = 12


def codebook_loss(*, z, q, beta: float, beta_on_commitment: bool) -> jax.Array:
    """mean |sg z - q|^2 + beta mean |z - sg q|^2, or with beta on the first term."""
    stop = jax.lax.stop_gradient
    codebook = jnp.mean(jnp.square(stop(z) - q))
    commitment = jnp.mean(jnp.square(z - stop(q)))
    if beta_on_commitment:
        return codebook + beta * commitment
    return beta * codebook + commitment


def entropy_loss(z, rows, bias, stats) -> jax.Array:
    """E[H(p)] - H(E[p]) by scores as in `lookup`; both become `stats`."""
    each, of_mean = entropies(z, rows, bias)
    stats |= {"entropy_each": each, "entropy_of_mean": of_mean}
    return each - of_mean


def bits_entropy(z: jax.Array, temperature: float, stats: dict) -> jax.Array:
    """As entropy_loss for p = softmax(-|z - q|^2 / temperature), q all signs [...,D].

    Summed over groups of GROUP_BITS dimensions at most.
    """
    groups = jnp.array_split(z, -(-z.shape[-1] // GROUP_BITS), axis=-1)
    terms = []
    for group in groups:
        bits = group.shape[-1]
        q = 2.0 * digits(np.arange(2**bits, dtype=np.int32), [2] * bits) - 1.0
        terms.append(entropies(group, 2 * q / temperature))
    each, of_mean = map(sum, zip(*terms, strict=True))
    stats |= {"entropy_each": each, "entropy_of_mean": of_mean}
    return each - of_mean


def divergence(p: jax.Array) -> jax.Array:
    """Mean over places of sum_k p_k log(K p_k), p [...,K]: 0 where all are alike."""
    size = p.shape[-1]
    return jnp.mean(jnp.sum(p * jnp.log(size * p + 1e-10), axis=-1))


def occurrences(codes: Codes, codebook_size: int) -> jax.Array:
    """How often each code occurs: float32 [K], which saturates but never wraps."""
    return jnp.zeros(codebook_size).at[codes.ravel()].add(1.0)


def gathered(latents, table) -> tuple[jax.Array, jax.Array]:
    """How many latents [...,D] each code takes, [K], and their sums, [K,D]."""
    latents = latents.reshape(-1, latents.shape[-1])
    codes = nearest(latents, table)
    totals = jnp.zeros_like(table).at[codes].add(latents)
    return occurrences(codes, len(table)), totals


def ema(average: jax.Array, value: jax.Array, decay: float) -> jax.Array:
    """decay * average + (1 - decay) * value."""
    return decay * average + (1 - decay) * value


def smoothed(sizes: jax.Array, epsilon: float) -> jax.Array:
    """Each of [K] with `epsilon` more, and their sum as it was (Laplace)."""
    total = jnp.sum(sizes)
    return (sizes + epsilon) / (total + len(sizes) * epsilon) * total


def spread_as(latents: jax.Array) -> dict[str, jax.Array]:
    """The kernel and bias that give N(0, 1/D) the latents' covariance and mean."""
    dim = latents.shape[-1]
    latents = latents.reshape(-1, dim)
    mean = jnp.mean(latents, axis=0)
    products = jnp.matmul((latents - mean).T, latents - mean, precision="highest")
    covariance = products / len(latents) + 1e-6 * jnp.eye(dim)
    return {"kernel": dim**0.5 * jnp.linalg.cholesky(covariance).T, "bias": mean}


def within(z: jax.Array, levels: Sequence[int]) -> jax.Array:
    """z [...,D] pressed between the first level and the last, 0 where z is 0."""
    levels = np.array(levels)
    reach = (levels - 1) / 2 * (1 + 1e-3)  # so that tanh gets to the last one
    offset = np.where(levels % 2, 0.0, 0.5)
    return reach * jnp.tanh(z + np.arctanh(offset / reach)) - offset


def from_digits(digits: jax.Array, bases: Sequence[int]) -> Codes:
    """Digits [...,D], each below its base, the lowest first -> numbers int32 [...]."""
    places = np.cumprod([1, *bases[:-1]]).astype(np.int32)
    return jnp.sum(digits.astype(jnp.int32) * places, axis=-1)


def digits(codes: Codes, bases: Sequence[int]) -> jax.Array:
    """The inverse: [...] -> int32 [...,D]."""
    places = np.cumprod([1, *bases[:-1]]).astype(np.int32)
    return codes[..., None] // places % np.array(bases, np.int32)
