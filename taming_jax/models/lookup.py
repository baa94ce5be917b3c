"""Which of K codes a latent takes, and how surely, in memory that K does not enter.

    z [...,D], rows [K,D] -> scores, a chunk of the codes at a time -> codes, entropies

    N latents    K codes    D dim    C codes of a chunk

Codes are compared by scores, z . row + bias: twice the product less |row|^2 ranks codes
by their distance, the product alone by likeness. Of N x K scores a chunk of the codes
is looked at after the other, with the best so far, or the sums so far, carried along;
the gradients of what is soft recompute them. Up to CHUNK codes are one chunk: a matrix
product and no loop. The latents stay spread over devices as they are.

All of it is float32 at the highest precision: half a percent of the codes and more
would flip in bfloat16.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from taming_jax.units import Codes

# Scores of a latent that exist at a time: 16 KiB, an eighth of what one activation of
# the paper's first level takes for its 256 pixels. With 2^18 codes they would be 1 MiB.
CHUNK = 4096

NEVER = -1e30  # a score that loses, and stays finite in products with 0


def nearest(z: jax.Array, table: jax.Array) -> Codes:
    """Index of the row of `table` [K,D] nearest to each vector of `z` [...,D].

    |z - e|^2 without |z|^2, which ranks the same and rounds better. The first of equals
    wins. No gradient.
    """
    return best(z, *by_distance(table))


def by_distance(table: jax.Array, temperature: float = 1.0):
    """Rows and biases whose scores are |z|^2 - |z - e|^2, over the temperature."""
    squares = jnp.sum(jnp.square(table), axis=-1)
    return 2 * table / temperature, -squares / temperature


def best(z: jax.Array, rows: jax.Array, bias: jax.Array | None = None) -> Codes:
    """The code of the highest score for each vector: [...,D] -> int32 [...].

    rows: [K,D]; bias: [K], None: zeros. The first of equals wins. No gradient.
    """
    vectors, rows, bias = jax.lax.stop_gradient((_listed(z), rows, bias))

    def look(so_far, chunk):
        highest, codes = so_far  # [N]
        scores = _scores(vectors, chunk)  # [N,C]
        top = jnp.max(scores, axis=-1)
        # Two plain reductions: on CPUs XLA takes several times as long for argmax.
        index = jnp.arange(scores.shape[-1], dtype=jnp.int32)
        index = jnp.min(jnp.where(scores == top[:, None], index, index[-1]), axis=-1)
        better = top > highest
        codes = jnp.where(better, chunk.first + index, codes)
        return (jnp.where(better, top, highest), codes), None

    start = jnp.full(len(vectors), NEVER), jnp.zeros(len(vectors), jnp.int32)
    (_, codes), _ = _over(rows, bias, look, start)
    return codes.reshape(z.shape[:-1])


def nearest_codes(codes: Codes, table: jax.Array, count: int) -> Codes:
    """The `count` codes nearest to each code, itself left out: [...] -> [...,count].

    The nearest first. `count` is below K. No gradient.
    """
    table, own = jax.lax.stop_gradient(table), codes.reshape(-1, 1)  # [N,1]
    vectors = table[own[:, 0]]

    def look(so_far, chunk):
        highest, kept = so_far  # [N,count]
        scores = _scores(vectors, chunk)
        index = chunk.first + jnp.arange(scores.shape[-1], dtype=jnp.int32)
        scores = jnp.where(index == own, NEVER, scores)
        merged = jnp.concatenate([highest, scores], axis=-1)  # [N,count+C]
        highest, place = jax.lax.top_k(merged, count)
        earlier = jnp.take_along_axis(kept, jnp.minimum(place, count - 1), axis=-1)
        kept = jnp.where(place < count, earlier, chunk.first + place - count)
        return (highest, kept), None

    start = (len(vectors), count)
    start = jnp.full(start, NEVER), jnp.zeros(start, jnp.int32)
    (_, kept), _ = _over(*by_distance(table), look, start)
    return kept.reshape(*codes.shape, count)


def perturbed(
    codes: Codes,
    table: jax.Array,
    key: jax.Array,
    *,
    probability: float | jax.Array,
    neighbours: int,
) -> Codes:
    """Codes [...], each replaced with a probability by one of its nearest.

    table: [K,D], what codes stand for; neighbours: among how many it is drawn, all
    others where there are fewer. Latent perturbation, Qiu et al. 2025.
    """
    replaced, which = jax.random.split(key)
    near = nearest_codes(codes, table, min(neighbours, len(table) - 1))
    drawn = jax.random.randint(which, (*codes.shape, 1), 0, near.shape[-1])
    others = jnp.take_along_axis(near, drawn, axis=-1)[..., 0]
    is_replaced = jax.random.uniform(replaced, codes.shape) < probability
    return jnp.where(is_replaced, others, codes)


def entropies(z, rows, bias=None) -> tuple[jax.Array, jax.Array]:
    """E[H(p)] and H(E[p]) over latents, p = softmax of their scores; float32 [] each.

    The first says how unsure a latent is, the second how evenly codes are used. z
    [...,D], rows [K,D], bias [K] or None; gradients reach all three.
    """
    vectors = _listed(z)

    def add(so_far, chunk):
        # sums over codes of exp(s - top) and of (s - top) exp(s - top)
        top, total, weighted = so_far  # [N]
        scores = _scores(vectors, chunk)
        new = jnp.maximum(top, jax.lax.stop_gradient(scores.max(axis=-1)))
        below = scores - new[:, None]
        weights, keep = jnp.exp(below), jnp.exp(top - new)
        weighted = keep * (weighted + (top - new) * total)
        weighted += jnp.sum(weights * below, axis=-1)
        return (new, keep * total + weights.sum(axis=-1), weighted), None

    zeros = jnp.zeros(len(vectors))
    sums, _ = _over(rows, bias, jax.checkpoint(add), (zeros + NEVER, zeros, zeros))
    top, total, weighted = sums
    each = jnp.log(total) - weighted / total
    log_total = top + jnp.log(total)

    def share(nothing, chunk):
        p = jnp.exp(_scores(vectors, chunk) - log_total[:, None])
        return nothing, p.mean(axis=0)

    _, p = _over(rows, bias, jax.checkpoint(share), None)  # each code's share
    return each.mean(), -jnp.sum(p * jnp.log(jnp.maximum(p, 1e-30)))


@jax.custom_vjp
def index_backpropagation(z: jax.Array, table: jax.Array, codes: Codes) -> jax.Array:
    """The rows of `codes`, whose gradient is as if all rows were drawn a little.

    z [...,D], table [K,D], codes [...] -> [...,D]. Forward o = one-hot(codes), backward
    o = one-hot - sg p + p with p = softmax_k(z . e_k), in o times the table (Shi et al.
    2024). With g the gradient of the result, that of a score s_k is
    p_k (g . e_k - g . m), m = sum_k p_k e_k: of N x K no more than a chunk is needed.
    """
    del z
    return jnp.take(table, codes, axis=0)


def _forward(z, table, codes):
    vectors = _listed(z)

    def add(so_far, chunk):
        top, total, mean = so_far  # [N], [N], [N,D]
        scores = _scores(vectors, chunk)
        new = jnp.maximum(top, scores.max(axis=-1))
        weights, keep = jnp.exp(scores - new[:, None]), jnp.exp(top - new)
        mean = keep[:, None] * mean + _product("nk,kd->nd", weights, chunk.rows)
        return (new, keep * total + weights.sum(axis=-1), mean), None

    zeros = jnp.zeros(len(vectors))
    start = (zeros + NEVER, zeros, jnp.zeros_like(vectors))
    (top, total, mean), _ = _over(table, None, add, start)
    kept = vectors, table, codes, top + jnp.log(total), mean / total[:, None]
    return index_backpropagation(z, table, codes), kept


def _backward(kept, g):
    vectors, table, codes, log_total, mean = kept
    pulled = _listed(g)
    average = jnp.sum(pulled * mean, axis=-1)

    def pull(so_far, chunk):
        p = jnp.exp(_scores(vectors, chunk) - log_total[:, None])
        wanted = _product("nd,kd->nk", pulled, chunk.rows)
        p *= wanted - average[:, None]
        so_far += _product("nk,kd->nd", p, chunk.rows)
        return so_far, _product("nk,nd->kd", p, vectors)

    by_z, by_rows = _over(table, None, pull, jnp.zeros_like(vectors))
    by_table = by_rows.at[codes.ravel()].add(pulled)
    return by_z.reshape(g.shape), by_table, None


index_backpropagation.defvjp(_forward, _backward)


class _Chunk(NamedTuple):
    """Some of the codes: the first one's number, their rows [C,D], their biases [C]."""

    first: jax.Array
    rows: jax.Array
    bias: jax.Array


def _over(rows, bias, look: Callable, start):
    """`look(carry, chunk) -> (carry, values)` over all codes -> (carry, values [K,...])

    Codes that fill the last chunk up never win and have no probability.
    """
    size, dim = rows.shape
    count = -(-size // CHUNK)
    length = -(-size // count)
    bias = jnp.zeros(size) if bias is None else bias
    missing = count * length - size
    chunks = _Chunk(
        jnp.arange(count, dtype=jnp.int32) * length,
        jnp.pad(rows, ((0, missing), (0, 0))).reshape(count, length, dim),
        jnp.pad(bias, (0, missing), constant_values=NEVER).reshape(count, length),
    )
    if count == 1:
        return look(start, jax.tree.map(lambda part: part[0], chunks))
    carry, values = jax.lax.scan(look, start, chunks)
    if values is None:
        return carry, None
    return carry, values.reshape(-1, *values.shape[2:])[:size]


def _scores(vectors, chunk: _Chunk):
    return _product("nd,kd->nk", vectors, chunk.rows) + chunk.bias


def _product(letters, a, b):
    return jnp.einsum(letters, a, b, precision="highest")


def _listed(vectors):
    """[...,D] -> [N,D]."""
    return vectors.reshape(-1, vectors.shape[-1])
