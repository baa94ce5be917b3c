"""The convolution that every network here is made of, and foldings of its grid.

    x [B,H,W,C] -> Conv -> [B,H',W',features]

Convolutions start from the distribution that the original's do, torch's default:
weights and biases uniform in +-1/sqrt(fan_in).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

Padding = tuple[tuple[int, int], tuple[int, int]]


class Conv(nn.Module):
    """Square convolution; parameters float32, arithmetic and result in `dtype`.

    Without `padding` an odd `size` at stride 1 keeps height and width. `gain` scales
    the kernel's first values: with 1 signals shrink to a third of their variance in
    every layer, with sqrt(3) they keep it. `through` is what the kernel goes through
    before it is used; a module that it makes is the convolution's own.
    """

    features: int
    size: int = 3
    stride: int = 1
    padding: Padding | None = None
    use_bias: bool = True
    gain: float = 1.0
    kernel_init: Callable | None = None
    through: Callable[[jax.Array], jax.Array] | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        bound = (self.size**2 * x.shape[-1]) ** -0.5
        half = self.size // 2
        draw = self.kernel_init or uniform(bound * self.gain)
        kernel = self.param("kernel", draw, shape)
        if self.through:
            kernel = self.through(kernel)
        x = lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            window_strides=(self.stride, self.stride),
            padding=self.padding or ((half, half), (half, half)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        if not self.use_bias:
            return x
        bias = self.param("bias", uniform(bound), (self.features,))
        return x + bias.astype(self.dtype)


def uniform(bound: float) -> Callable:
    """Return an initializer that draws from [-bound, bound)."""

    def draw(key, shape, dtype=jnp.float32):
        return flat(jax.random.uniform, key, shape, dtype, -bound, bound)

    return draw


def normal(deviation: float, mean: float = 0.0) -> Callable:
    """Return an initializer that draws from N(mean, deviation^2)."""

    def draw(key, shape, dtype=jnp.float32):
        return mean + deviation * flat(jax.random.normal, key, shape, dtype)

    return draw


def flat(distribution: Callable, key, shape: tuple[int, ...], *arguments) -> jax.Array:
    """Draw as one row: the same numbers, and CPUs compile it eight times faster."""
    return distribution(key, (math.prod(shape),), *arguments).reshape(shape)


def space_to_depth(x: jax.Array, size: int) -> jax.Array:
    """Fold size x size patches into channels; an incomplete last patch is cut off."""
    batch, height, width, channels = x.shape
    h, w = height // size, width // size
    x = x[:, : h * size, : w * size]
    x = x.reshape(batch, h, size, w, size, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)  # [B, h, w, size, size, C]
    return x.reshape(batch, h, w, size * size * channels)


def depth_to_space(x: jax.Array, size: int) -> jax.Array:
    """Unfold channels into size x size patches: the inverse of `space_to_depth`."""
    batch, h, w, channels = x.shape
    x = x.reshape(batch, h, w, size, size, channels // size**2)
    x = x.transpose(0, 1, 3, 2, 4, 5)  # [B, h, size, w, size, C]
    return x.reshape(batch, h * size, w * size, channels // size**2)
