"""One block of a transformer, the paper's or a modern one, and rotary positions.

    x [B,T,D] -> norm1 -> query, key, value [B,N,T,E] -> attend -> out  -> + -> x
    x [B,T,D] -> norm2 -> up (and gate) [B,T,M] -> activation   -> down -> + -> x

    B batch    T places of x      D width    N heads    G of keys and values, N or less
    M hidden   S places seen      E D // N, of one head
    mask bool [T,S], what each place may see; None: all that is not after it

A block is applied in one piece, or as `project` and `combine` with keys and values in
between that reach further back than its own: those that a cache has kept.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from taming_jax.models.convolution import normal

EPSILON = 1e-5  # of every normalisation
INITIAL = normal(0.02)  # of every weight; biases begin as zeros


class Block(nn.Module):
    """Attention, then an MLP; each reads what is normalised and adds to what is not.

    kv_heads: G, of keys and values, which N // G heads of queries share (Ainslie et al.
        2023); None: each has its own.
    norm: a key of NORMS.
    mlp: a key of MLPS.
    mlp_width: M; None: 4 D, with a gate two thirds of it (in steps of 64).
    bias: of the products, and of layer norms.
    qk_norm: scale every query and key to one length, times learned factors.
    dropout: of what each half adds.
    fused: attend by one kernel where the device has it, see `fuses`.
    dtype: of activations and products; parameters and softmax are float32.
    """

    width: int
    heads: int
    kv_heads: int | None = None
    norm: str = "layer"
    mlp: str = "gelu"
    mlp_width: int | None = None
    bias: bool = True
    qk_norm: bool = False
    dropout: float = 0.0
    fused: bool = True
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        norm = partial(NORMS[self.norm], self.bias, self.dtype)
        linear = partial(
            nn.Dense, use_bias=self.bias, kernel_init=INITIAL, dtype=self.dtype
        )
        self.norm1, self.norm2 = norm(), norm()
        shared = self.width // self.heads * (self.kv_heads or self.heads)
        self.query, self.key = linear(self.width), linear(shared)
        self.value, self.out = linear(shared), linear(self.width)
        if self.qk_norm:
            self.query_norm = NORMS["rms"](False, self.dtype)
            self.key_norm = NORMS["rms"](False, self.dtype)
        hidden = self.mlp_width or _hidden(self.width, MLPS[self.mlp].gated)
        self.up, self.down = linear(hidden), linear(self.width)
        if MLPS[self.mlp].gated:
            self.gate = linear(hidden)
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, x, rotation, mask, *, train: bool) -> jax.Array:
        """x [B,T,D], rotation of its places or None, mask [T,T] or None -> [B,T,D]."""
        return self.combine(x, *self.project(x, rotation), mask, train=train)

    def project(self, x, rotation) -> tuple[jax.Array, jax.Array, jax.Array]:
        """x [B,T,D] -> queries [B,N,T,E], keys and values [B,G,T,E]."""
        x = self.norm1(x)
        heads = (*x.shape[:-1], -1, self.width // self.heads)
        q, k, v = (f(x).reshape(heads) for f in (self.query, self.key, self.value))
        if self.qk_norm:
            q, k = self.query_norm(q), self.key_norm(k)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        return tuple(a.swapaxes(1, 2) for a in (q, k, v))

    def combine(self, x, q, k, v, mask, *, train: bool) -> jax.Array:
        """x [B,T,D], q [B,N,T,E], k and v [B,G,S,E], mask [T,S] or None -> [B,T,D]."""
        fused = self.fused and mask is None and fuses(q, k, v)
        mix = attend_fused if fused else attend
        seen = mix(q, k, v, mask).swapaxes(1, 2).reshape(x.shape)
        x = x + self.drop(self.out(seen), deterministic=not train)
        activation, gated = MLPS[self.mlp]
        y = self.norm2(x)
        y = activation(self.up(y), self.gate(y)) if gated else activation(self.up(y))
        return x + self.drop(self.down(y), deterministic=not train)


def attend(q, k, v, mask=None) -> jax.Array:
    """Mix the values by softmax(q k / sqrt(E)), which is float32; in the dtype of v.

    q [B,N,T,E], k and v [B,G,S,E], mask bool [T,S], true where s may be seen -> as q.
    """
    shape, (batch, groups, seen) = q.shape, k.shape[:3]
    if mask is None:
        mask = jnp.arange(shape[2])[:, None] >= jnp.arange(seen)
    q = q.reshape(batch, groups, -1, shape[-1])  # [B,G,N/G*T,E]
    if q.shape[2] == 1:  # as a sum this is faster on CPUs, by a fifth of a token's time
        scores = jnp.sum(q * k, axis=-1, dtype=jnp.float32)[:, :, None]
    else:
        scores = jnp.einsum("bgte,bgse->bgts", q, k, preferred_element_type=jnp.float32)
    scores = scores.reshape(*shape[:3], seen)  # [B,N,T,S]
    scores = jnp.where(mask, scores * shape[-1] ** -0.5, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    weights = weights.reshape(batch, groups, -1, seen)
    return jnp.einsum("bgts,bgse->bgte", weights, v).reshape(shape)


def attend_fused(q, k, v, mask=None) -> jax.Array:
    """The same by cuDNN's kernel, which keeps no [T,S] (Dao et al. 2022); no mask."""
    assert mask is None, "only what is not later is seen"
    q, k, v = (a.swapaxes(1, 2) for a in (q, k, v))
    mixed = jax.nn.dot_product_attention(
        q, k, v, is_causal=True, implementation="cudnn"
    )
    return mixed.swapaxes(1, 2)


def fuses(q, k, v) -> bool:
    """Whether there is a fused kernel for such arrays, here; known while tracing.

    It takes half precision, heads of up to 128 in steps of 8, and Ampere or newer.
    Whether cuDNN is there, and new enough for the device, jax says by raising.
    """
    half, width = q.dtype in (jnp.bfloat16, jnp.float16), q.shape[-1]
    if not half or width % 8 or width > 128 or not _is_ampere():
        return False
    try:
        jax.eval_shape(attend_fused, q, k, v)
    except (NotImplementedError, RuntimeError):
        return False
    return True


def _is_ampere() -> bool:
    capability = getattr(jax.devices()[0], "compute_capability", "")
    generation = str(capability).partition(".")[0]  # "9.0"; of ROCm's devices "gfx90a"
    return generation.isdigit() and int(generation) >= 8


class Rotation(NamedTuple):
    """What queries and keys are turned by: float32 [T,E/2], or [B,T,E/2]."""

    cos: jax.Array
    sin: jax.Array


def rotate(x: jax.Array, rotation: Rotation) -> jax.Array:
    """Turn the pairs (i, i + E/2) of every head; x [B,T,N,E].

    Rolled, not put together from two halves, which took CPUs 7 % of a training step.
    """
    cos, sin = (a[..., None, :] for a in rotation)  # [...,T,1,E/2]
    cos, sin = jnp.concatenate([cos, cos], -1), jnp.concatenate([-sin, sin], -1)
    turned = x * cos + jnp.roll(x, x.shape[-1] // 2, axis=-1) * sin
    return turned.astype(x.dtype)


def rotation_by(angles: jax.Array, kept: jax.Array | bool = True) -> Rotation:
    """By angles [...,T,E/2]; where `kept` [...,T] is false queries and keys vanish."""
    scale = jnp.asarray(kept, jnp.float32)[..., None]
    return Rotation(jnp.cos(angles) * scale, jnp.sin(angles) * scale)


def rotary_angles(rows, columns, *, head_width: int, base: float) -> jax.Array:
    """Angles of places on a grid: rows and columns [...] -> float32 [...,E/2].

    Half of the pairs turn with the row and half with the column, with wave lengths
    from 2 pi on to almost 2 pi `base` (Su et al. 2021, in two dimensions).
    """
    count = head_width // 4  # pairs for each of the two
    frequencies = base ** (-jnp.arange(count, dtype=jnp.float32) / count)
    along = [jnp.asarray(x, jnp.float32)[..., None] for x in (rows, columns)]
    return jnp.concatenate([x * frequencies for x in along], axis=-1)


class MLP(NamedTuple):
    """What happens between `up` and `down`; with a gate, a function of both."""

    activation: Callable
    gated: bool


def _hidden(width: int, gated: bool) -> int:
    return -(-8 * width // 3 // 64) * 64 if gated else 4 * width


def _layer_norm(bias: bool, dtype) -> nn.Module:
    return nn.LayerNorm(EPSILON, dtype, use_bias=bias, use_fast_variance=False)


def _rms_norm(bias: bool, dtype) -> nn.Module:
    del bias  # it has none
    return nn.RMSNorm(EPSILON, dtype)


NORMS = {"layer": _layer_norm, "rms": _rms_norm}

# Hendrycks and Gimpel 2016, not its approximation; So et al. 2021; Shazeer 2020
MLPS = {
    "gelu": MLP(partial(jax.nn.gelu, approximate=False), gated=False),
    "relu2": MLP(lambda up: jnp.square(jax.nn.relu(up)), gated=False),
    "swiglu": MLP(lambda up, gate: jax.nn.silu(gate) * up, gated=True),
}
