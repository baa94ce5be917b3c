"""PatchGAN (Isola et al. 2017): is this patch of the picture real?

    images [B,H,W,C] -> logits [B,h',w',1], one per overlapping patch, high: real

Of images made to a condition it may be asked whether they fit it: the condition, images
[B,H,W,C'] too, is laid beside them as further channels.

Convolutions of 4 x 4 with a border of 1: `layers` with stride 2, then two with
stride 1. Statistics of the normalisation are those of the global batch. What is kept
of them, and of the kernels' norms, is in the collection "batch_stats", mutable in
training.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from taming_jax.models.convolution import Conv, normal
from taming_jax.models.fields import choose, strict
from taming_jax.units import Images


@strict
class Discriminator(nn.Module):
    """Logits of patches; `layers` 3 sees 70 x 70 pixels per logit.

    channels: width of the first layer; it doubles with each, up to eight times.
    norm: after all layers but the first and the last, see NORMS.
    blur: taps of the binomial filter that a layer with stride 2 looks through, one of
        BLURS; 0: none. StyleGAN2's and VQGAN+'s have 4.
    spectral_norm: divide every kernel by its largest singular value.
    """

    channels: int = 64
    layers: int = 3
    norm: str = "batch"
    blur: int = 0
    spectral_norm: bool = False
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        choose("Discriminator", "norm", self.norm, NORMS)
        if self.blur not in BLURS:
            allowed = ", ".join(map(str, BLURS))
            raise ValueError(
                f"Discriminator has no blur of {self.blur!r} taps; allowed: {allowed}"
            )

    @nn.compact
    def __call__(
        self, images: Images, *, train: bool, condition: Images | None = None
    ) -> jax.Array:
        if condition is not None:
            images = jnp.concatenate([images, condition], axis=-1)
        conv = partial(
            Conv,
            size=4,
            padding=((1, 1), (1, 1)),
            kernel_init=normal(0.02),
            through=partial(_spectrally, train=train) if self.spectral_norm else None,
            dtype=self.dtype,
        )
        norm = NORMS[self.norm]

        x = blurred(images, self.blur)
        x = conv(self.channels, stride=2, name="conv_0")(x)
        x = _leaky_relu(x)
        for n in range(1, self.layers + 1):
            width = self.channels * min(2**n, 8)
            stride = 2 if n < self.layers else 1
            use_bias = norm is not BatchNorm  # which would take it away again
            x = blurred(x, self.blur if stride == 2 else 0)
            x = conv(width, stride=stride, use_bias=use_bias, name=f"conv_{n}")(x)
            if norm is not None:
                x = norm(name=f"norm_{n}")(x, train=train)
            x = _leaky_relu(x)
        x = conv(1, name=f"conv_{self.layers + 1}")(x)
        return x.astype(jnp.float32)


def _leaky_relu(x):
    """x where positive, x / 5 elsewhere; the slope at 0 is the lower, as torch's."""
    return jnp.where(x > 0, x, 0.2 * x)


def blurred(x: jax.Array, taps: int) -> jax.Array:
    """Binomial means over taps x taps places: what has no place on half the grid goes.

    The result has x's height and width; beyond the border x goes on as it ends there.
    Filter, convolution and every second place commute, so that to blur before a stride
    is to blur after the same convolution without one (Zhang 2019), at a quarter of the
    cost.
    """
    if taps == 0:
        return x
    before = (taps - 1) // 2
    weights = [math.comb(taps - 1, i) / 2 ** (taps - 1) for i in range(taps)]
    for axis in (1, 2):
        size = x.shape[axis]
        border = [(0, 0)] * x.ndim
        border[axis] = (before, taps - 1 - before)
        x = jnp.pad(x, border, mode="edge")
        shifted = (jax.lax.slice_in_dim(x, i, i + size, axis=axis) for i in range(taps))
        x = sum(weight * part for weight, part in zip(weights, shifted, strict=True))
    return x


def _spectrally(kernel, *, train):
    return SpectralNorm(name="spectral_norm")(kernel, train=train)


class SpectralNorm(nn.Module):
    """A kernel [..., C, features] divided by its largest singular value, float32.

    As a matrix W it maps what a place sees to features. The value is u W v, followed by
    power iteration, one round in each training pass, from the u that the last one left
    (Miyato et al. 2018, algorithm 1).
    """

    @nn.compact
    def __call__(self, kernel: jax.Array, *, train: bool) -> jax.Array:
        multiply = partial(jnp.matmul, precision="highest")
        w = kernel.reshape(-1, kernel.shape[-1]).T  # [features, size size C]
        kept = self.variable("batch_stats", "u", lambda: _unit(jnp.ones(len(w))))

        u, fixed = kept.value, jax.lax.stop_gradient(w)
        v = _unit(multiply(u, fixed))
        if train:
            u = _unit(multiply(fixed, v))
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                kept.value = u
        return kernel / multiply(u, multiply(w, v))


def _unit(vector):
    return vector * jax.lax.rsqrt(jnp.square(vector).sum() + 1e-24)


class BatchNorm(nn.Module):
    """Batch normalisation as torch has it: the variance that is kept is unbiased."""

    momentum: float = 0.1
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        shape = x.shape[-1:]
        scale = self.param("scale", normal(0.02, mean=1.0), shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        kept_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        kept_var = self.variable("batch_stats", "var", jnp.ones, shape)

        if train:
            n = x.size // x.shape[-1]
            mean, var = _moments(x)
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                unbiased = var * n / max(n - 1, 1)
                kept_mean.value += self.momentum * (mean - kept_mean.value)
                kept_var.value += self.momentum * (unbiased - kept_var.value)
        else:
            mean, var = kept_mean.value, kept_var.value
        y = (x - mean) * jax.lax.rsqrt(var + self.epsilon) * scale + bias
        return y.astype(x.dtype)


class ActNorm(nn.Module):
    """An affine map per channel that makes the first batch it sees standard normal.

    y = scale (x + loc). The first batch's part of loc and scale is kept beside the
    learned part, in "batch_stats", since a forward pass must not write parameters;
    their sum starts, and moves under Adam, as the original's single parameter does.
    """

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        shape = x.shape[-1:]
        loc = self.param("loc", nn.initializers.zeros, shape)
        scale = self.param("scale", nn.initializers.ones, shape)
        first_loc = self.variable("batch_stats", "loc", jnp.zeros, shape)
        first_scale = self.variable("batch_stats", "scale", jnp.zeros, shape)
        seen = self.variable("batch_stats", "seen", jnp.zeros, (), bool)

        offset, factor = first_loc.value, first_scale.value
        if train and not self.is_initializing():
            mean, var = jax.lax.stop_gradient(_moments(x))
            n = x.size // x.shape[-1]
            std = jnp.sqrt(var * n / max(n - 1, 1))
            fresh = jax.lax.stop_gradient((-mean - loc, 1 / (std + 1e-6) - scale))
            offset = jnp.where(seen.value, offset, fresh[0])
            factor = jnp.where(seen.value, factor, fresh[1])
            if self.is_mutable_collection("batch_stats"):
                first_loc.value, first_scale.value = offset, factor
                seen.value = jnp.ones((), bool)
        return ((scale + factor) * (x + loc + offset)).astype(x.dtype)


def _moments(x):
    """Mean and biased variance of each channel, float32 [C], over the global batch."""
    x = x.astype(jnp.float32)
    mean = x.mean((0, 1, 2))
    return mean, jnp.square(x - mean).mean((0, 1, 2))


NORMS = {"batch": BatchNorm, "act": ActNorm, "none": None}
BLURS = (0, 3, 4)
