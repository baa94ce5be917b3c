"""Encoder and decoder of the VQGAN (Esser et al. 2021, table 7), and a cheap variant.

    images [B,H,W,C] -> Encoder -> latents [B,h,w,D] -> Decoder -> images [B,H,W,C]

    B batch    H, W height and width of the images    C channels of the images
    h, w       H // stride, W // stride               D latent_channels

Level l works at 1 / (patch_size 2^l) of the images' height and width and is
channels * multipliers[l] wide; the middle sits at the coarsest level. The paper's
form is the default; `patch_size` and `resample="patch"` make the cheap one, which
spends nothing on the finest grids.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from taming_jax.models.convolution import Conv, depth_to_space, space_to_depth
from taming_jax.models.fields import choose, strict
from taming_jax.units import Images


class Pyramid(nn.Module):
    """What the encoder and the decoder have in common: their fields and their blocks.

    channels: width of the finest level before its multiplier.
    blocks: residual blocks, of every level or (a sequence) of each.
    attention_resolutions: levels that attend, by their nominal side in pixels, which
        comes from `resolution` and not from the size of the input.
    resample: how levels are joined, see DOWNSAMPLE and UPSAMPLE.
    patch_size: side of the patches that the finest level sees as one place.
    norm_groups: of the group normalisation; 0 leaves it out, for `gain` to do its work.
    gain: of the first kernels, see `Conv`.
    remat: recompute the blocks in the backward pass instead of keeping them.
    dtype: of activations and products; parameters are float32.
    """

    channels: int = 128
    multipliers: Sequence[int] = (1, 1, 2, 2, 4)
    blocks: int | Sequence[int] = 2
    attention_resolutions: Sequence[int] = (16,)
    resolution: int = 256
    middle_attention: bool = True
    dropout: float = 0.0
    resample: str = "conv"
    patch_size: int = 1
    latent_channels: int = 256
    image_channels: int = 3
    norm_groups: int = 32
    gain: float = 1.0
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        owner, levels = type(self).__name__, len(self.multipliers)
        choose(owner, "resample", self.resample, DOWNSAMPLE)
        if not isinstance(self.blocks, int) and len(self.blocks) != levels:
            raise ValueError(
                f"{owner} has {levels} levels (multipliers) but {len(self.blocks)} "
                f"entries in blocks; give {levels}, or one number for all"
            )
        for width in self._widths:
            if self.norm_groups and width % self.norm_groups:
                raise ValueError(
                    f"{owner} has a level of {width} channels, which norm_groups="
                    f"{self.norm_groups} does not divide; change one of them"
                )

    @property
    def stride(self) -> int:
        """Pixels of the images per place of the latents, in each direction."""
        return self.patch_size * 2 ** (len(self.multipliers) - 1)

    @property
    def _widths(self) -> list[int]:
        return [self.channels * multiplier for multiplier in self.multipliers]

    def _blocks(self, level: int) -> range:
        return range(
            self.blocks if isinstance(self.blocks, int) else self.blocks[level]
        )

    def _attends(self, level: int) -> bool:
        side = self.resolution // self.patch_size // 2**level
        return side in self.attention_resolutions

    def _parts(self):
        """Return the constructors of a block, an attention, a norm, a convolution."""
        options = {"groups": self.norm_groups, "dtype": self.dtype}
        block, attention = ResidualBlock, Attention
        if self.remat:
            block = nn.remat(block, static_argnums=(2,))
            attention = nn.remat(attention)
        return (
            partial(block, dropout=self.dropout, gain=self.gain, **options),
            partial(attention, **options),
            partial(Normalise, **options),
            partial(Conv, gain=self.gain, dtype=self.dtype),
        )

    def _middle(self, x, train):
        block, attention, _, _ = self._parts()
        x = block(self._widths[-1], name="middle_block_1")(x, train)
        if self.middle_attention:
            x = attention(name="middle_attention")(x)
        return block(self._widths[-1], name="middle_block_2")(x, train)


@strict
class Encoder(Pyramid):
    """Images [B,H,W,C] in [-1,1], any H, W >= stride -> latents [B,h,w,D]."""

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> jax.Array:
        block, attention, norm, conv = self._parts()
        downsample = DOWNSAMPLE[self.resample]

        x = space_to_depth(images, self.patch_size)
        x = conv(self.channels, name="conv_in")(x)
        for level, width in enumerate(self._widths):
            for i in self._blocks(level):
                x = block(width, name=f"down_{level}_block_{i}")(x, train)
                if self._attends(level):
                    x = attention(name=f"down_{level}_attention_{i}")(x)
            if level < len(self._widths) - 1:
                resample = partial(conv, name=f"down_{level}_resample")
                x = downsample(x, resample, self._widths[level + 1])
        x = self._middle(x, train)
        x = nn.swish(norm(name="norm_out")(x))
        return conv(self.latent_channels, name="conv_out")(x)


@strict
class Decoder(Pyramid):
    """Latents [B,h,w,D] -> images float32 [B,h*stride,w*stride,C], not clipped.

    blocks: the true number per level; the original's decoder has one more than its
        num_res_blocks says.
    give_pre_end: return what the last norm would get, as wide as the finest level.
    """

    blocks: int | Sequence[int] = 3
    give_pre_end: bool = False

    @nn.compact
    def __call__(self, latents: jax.Array, *, train: bool) -> Images:
        block, attention, norm, conv = self._parts()
        upsample = UPSAMPLE[self.resample]

        x = conv(self._widths[-1], name="conv_in")(latents)
        x = self._middle(x, train)
        for level, width in reversed(list(enumerate(self._widths))):
            for i in self._blocks(level):
                x = block(width, name=f"up_{level}_block_{i}")(x, train)
                if self._attends(level):
                    x = attention(name=f"up_{level}_attention_{i}")(x)
            if level > 0:
                resample = partial(conv, name=f"up_{level}_resample")
                x = upsample(x, resample, self._widths[level - 1])
        if self.give_pre_end:
            return x
        x = nn.swish(norm(name="norm_out")(x))
        # Pixels are float32: bfloat16's eight bits would show as bands of colour.
        channels = self.image_channels * self.patch_size**2
        x = conv(channels, dtype=jnp.float32, name="conv_out")(x)
        return depth_to_space(x, self.patch_size)


class ResidualBlock(nn.Module):
    """x + conv(dropout(swish(norm(conv(swish(norm(x))))))), `features` wide."""

    features: int
    dropout: float
    gain: float
    groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        norm = partial(Normalise, groups=self.groups, dtype=self.dtype)
        conv = partial(Conv, self.features, gain=self.gain, dtype=self.dtype)
        residual = x

        x = nn.swish(norm(name="norm1")(x))
        x = conv(name="conv1")(x)
        x = nn.swish(norm(name="norm2")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = conv(name="conv2")(x)
        if residual.shape[-1] != self.features:
            residual = conv(size=1, name="shortcut")(residual)
        return residual + x


class Attention(nn.Module):
    """x + one-headed attention of every place to every place; softmax in float32."""

    groups: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        project = partial(Conv, channels, size=1, dtype=self.dtype)
        as_tokens = partial(
            jnp.reshape, shape=(batch, height * width, 1, channels)
        )  # [B, T, heads, C]

        y = Normalise(self.groups, self.dtype, name="norm")(x)
        q, k, v = (as_tokens(project(name=name)(y)) for name in ("q", "k", "v"))
        y = jax.nn.dot_product_attention(q, k, v, scale=channels**-0.5)
        return x + project(name="out")(y.reshape(x.shape))


class Normalise(nn.Module):
    """Group normalisation (Wu & He 2018), statistics in float32; none for 0 groups."""

    groups: int
    dtype: jnp.dtype
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.groups == 0:
            return x.astype(self.dtype)
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)

        x = x.astype(jnp.float32)
        mean = _group_mean(x, self.groups)  # [B,1,1,C]
        variance = _group_mean(jnp.square(x - mean), self.groups)
        # One product and one sum for each number, forward and, nearly, backward.
        factor = jax.lax.rsqrt(variance + self.epsilon) * scale
        return (x * factor + (bias - mean * factor)).astype(self.dtype)


def _group_mean(x, groups):
    """Mean over places and the channels of a group: [B,H,W,C] -> [B,1,1,C].

    Places first: with the channels left whole, CPUs are twice as fast in training.
    """
    batch, _, _, channels = x.shape
    size = channels // groups
    means = x.mean((1, 2)).reshape(batch, groups, size).mean(-1)
    return jnp.repeat(means, size, axis=-1)[:, None, None]


def _stride_down(x, conv, _):
    """3x3 with stride 2; the border is below and to the right only, as published."""
    return conv(x.shape[-1], stride=2, padding=((0, 1), (0, 1)))(x)


def _average_down(x, conv, _):
    return nn.avg_pool(x, (2, 2), strides=(2, 2))


def _fold_down(x, conv, width, size=1):
    return conv(width, size=size)(space_to_depth(x, 2))


def _nearest_up(x, conv, _):
    batch, h, w, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (batch, h, 2, w, 2, channels))
    return x.reshape(batch, 2 * h, 2 * w, channels)


def _nearest_conv_up(x, conv, _):
    return conv(x.shape[-1])(_nearest_up(x, conv, _))


def _unfold_up(x, conv, width, size=1):
    return depth_to_space(conv(4 * width, size=size)(x), 2)


# (x, constructor of a convolution, width of the next level) -> x at the next level
DOWNSAMPLE = {
    "conv": _stride_down,
    "plain": _average_down,
    "patch": _fold_down,
    "patch_3x3": partial(_fold_down, size=3),
}
UPSAMPLE = {
    "conv": _nearest_conv_up,
    "plain": _nearest_up,
    "patch": _unfold_up,
    "patch_3x3": partial(_unfold_up, size=3),  # as MAGVIT-2 (Yu et al. 2024)
}
