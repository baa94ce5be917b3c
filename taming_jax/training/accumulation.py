"""Gradients of a batch that does not fit, as the mean over micro-batches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def accumulate(
    fn: Callable[[Any, Any, jax.Array], tuple[Any, Any, Any]],
    carry: Any,
    batch: Any,
    count: int,
) -> tuple[Any, Any, Any]:
    """Runs `fn(carry, micro_batch, i) -> (carry, means, samples)` over `count` parts.

    `batch` is an array or a tree of arrays, all with B examples. The carry goes from
    part to part, `means` are averaged, `samples` put back into the batch's order.
    Part i takes every count-th example from i on, so that each device holds an equal
    share of every part and nothing moves between devices. What `fn` computes of a part
    as a whole, an adaptive weight for instance, each part has for itself.
    """
    if count == 1:
        return fn(carry, batch, jnp.int32(0))
    parts = jax.tree.map(
        lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), batch
    )  # [count, B/count, ...]
    first = jax.tree.map(lambda x: x[0], parts)
    _, means, _ = jax.eval_shape(fn, carry, first, jnp.int32(0))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), means)

    def body(so_far, part):
        carry, total = so_far
        carry, means, samples = fn(carry, *part)
        return (carry, jax.tree.map(jnp.add, total, means)), samples

    (carry, total), samples = jax.lax.scan(
        body, (carry, zeros), (parts, jnp.arange(count))
    )
    means = jax.tree.map(lambda leaf: leaf / count, total)
    samples = jax.tree.map(
        lambda leaf: leaf.swapaxes(0, 1).reshape(-1, *leaf.shape[2:]), samples
    )
    return carry, means, samples
