"""Ways past a quantization, whose own gradient is zero: z [...,D] becomes q [...,D].

All have the value z + share (q - z): `share` blends quantization in.
"""

import jax
import jax.numpy as jnp


def straight_through(z: jax.Array, q: jax.Array, share: jax.Array) -> jax.Array:
    """Value z + share (q - z), gradient of z: what is quantized is passed over."""
    return z + jax.lax.stop_gradient(share * (q - z))


def mixed(z: jax.Array, q: jax.Array, share: jax.Array) -> jax.Array:
    """The value z + share (q - z), the gradients of both: q has one of its own."""
    return z + share * (q - z)


def rotated(z: jax.Array, q: jax.Array, share: jax.Array) -> jax.Array:
    """As straight_through, but z's gradient is turned and scaled as z was to q.

    R z with R = |q| / |z| (1 - 2 w w' + 2 v u'), u = z / |z|, v = q / |q| and
    w = (u + v) / |u + v|, as if R were constant (Fifty et al. 2024).
    """
    length, longer = (
        jnp.linalg.norm(x, axis=-1, keepdims=True) for x in map(_still, (z, q))
    )
    points = length > 1e-6  # where not, nothing is turned
    v = unit_length(_still(q))
    u = jnp.where(points, unit_length(_still(z)), v)
    w = unit_length(u + v)
    scale = jnp.where(points, longer / jnp.where(points, length, 1.0), 1.0)
    turned = scale * (z - 2 * w * _dot(w, z) + 2 * v * _dot(u, z))
    turned += _still(q - turned)  # which is rounding, where z points anywhere
    return z + share * (turned - z)


GRADIENTS = {"straight_through": straight_through, "rotation": rotated}


def unit_length(vectors: jax.Array) -> jax.Array:
    """Scale the last axis to length 1; zeros stay zero, with a finite gradient."""
    squares = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


_still = jax.lax.stop_gradient


def _dot(a, b):
    return jnp.sum(a * b, axis=-1, keepdims=True)
