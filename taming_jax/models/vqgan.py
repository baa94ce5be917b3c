"""VQGAN (Esser et al. 2021): encoder, quantizer, decoder as one module.

    images [B,H,W,C] -> encoder -> quant_conv -> quantizer -> codes [B,h,w]
                                                     |
    images [B,H,W,C] <- decoder <- post_quant_conv <-+   latents [B,h,w,D]

    B batch    H, W any size >= stride    h, w = H // stride, W // stride
    C channels of the images              D dimension of the codes

A tokenizer of class maps (`classes`) is the same with C classes for channels: int32
[B,H,W] goes in and becomes one-hot, C logits of each pixel come out.

Parameters carry these names: encoder, quant_conv, quantizer, post_quant_conv, decoder.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from taming_jax.models.autoencoder import Decoder, Encoder
from taming_jax.models.convolution import Conv
from taming_jax.models.fields import DTYPES, choose, strict
from taming_jax.models.quantization import Quantized
from taming_jax.models.quantizers import QUANTIZERS
from taming_jax.units import ClassMaps, Codes, Images

# Where the gradients that the adaptive weight compares are taken.
LAST_KERNEL = ("decoder", "conv_out", "kernel")


@strict
class VQGAN(nn.Module):
    """A tokenizer of images, from its configuration: `VQGAN(**config.vqgan.model)`.

    encoder, decoder: fields of `Encoder` and `Decoder`; their strides must agree.
    quantizer: `name`, a key of QUANTIZERS, and that quantizer's fields.
    dtype: of activations and products, "float32" or "bfloat16"; parameters, codebook
        distances and the images that come out are float32.
    remat: recompute blocks in the backward pass instead of keeping activations.
    classes: it reads class maps, of as many classes as the halves' image_channels.
    """

    encoder: Mapping = dataclasses.field(default_factory=dict)
    decoder: Mapping = dataclasses.field(default_factory=dict)
    quantizer: Mapping = dataclasses.field(default_factory=dict)
    dtype: str = "float32"
    remat: bool = False
    classes: bool = False

    def __post_init__(self):
        super().__post_init__()
        choose("VQGAN", "dtype", self.dtype, DTYPES)
        encoder, _, decoder = self._parts()
        if encoder.stride != decoder.stride:
            raise ValueError(
                f"the encoder's stride is {encoder.stride}, the decoder's "
                f"{decoder.stride}; they must agree: patch_size * 2^(levels - 1)"
            )
        if encoder.image_channels != decoder.image_channels:
            raise ValueError(
                f"the encoder's image_channels is {encoder.image_channels}, the "
                f"decoder's {decoder.image_channels}; what comes out is what went in: "
                "set both alike"
            )

    def setup(self):
        encoder, quantizer, decoder = self._parts()
        self._encoder = encoder.clone(name="encoder", parent=self)
        self._decoder = decoder.clone(name="decoder", parent=self)
        self._quantizer = quantizer.clone(name="quantizer", parent=self)
        self._quant_conv = Conv(quantizer.dim, size=1, name="quant_conv")
        self._post_quant_conv = Conv(
            decoder.latent_channels, size=1, name="post_quant_conv"
        )

    def __call__(self, images: Images | ClassMaps, *, train: bool, step=None):
        """Images [B,H,W,C] -> (reconstruction [B,h*stride,w*stride,C], Quantized).

        Of class maps [B,H,W] the reconstruction is logits.
        step: int32 [], for quantizers that change with it; None: as after training.
        """
        quantized = self.encode(images, train=train, step=step)
        return self.decode_latents(quantized.z, train=train), quantized

    def encode(
        self, images: Images | ClassMaps, *, train: bool = False, step=None
    ) -> Quantized:
        """Images [B,H,W,C] in [-1,1] -> Quantized, its codes int32 [B,h,w]."""
        return self.quantize(self.latents(images, train=train), train=train, step=step)

    def latents(self, images: Images | ClassMaps, *, train: bool = False) -> jax.Array:
        """Images [B,H,W,C] -> latents [B,h,w,D] as the quantizer is given them."""
        self.check(images)
        return self._quant_conv(self._encoder(self.target(images), train=train))

    def quantize(self, z: jax.Array, *, train: bool = False, step=None) -> Quantized:
        """Latents [B,h,w,D] -> Quantized, place by place after training."""
        return self._quantizer(z, train=train, step=step)

    def decode(self, codes: Codes) -> Images:
        """Codes int32 [B,h,w] -> images float32 [B,h*stride,w*stride,C], unclipped."""
        return self.decode_latents(self._quantizer.lookup(codes))

    def decode_latents(self, z: jax.Array, *, train: bool = False) -> Images:
        """Latents [B,h,w,D] -> images float32 [B,h*stride,w*stride,C], unclipped."""
        return self._decoder(self._post_quant_conv(z), train=train)

    @nn.nowrap
    def target(self, images: Images | ClassMaps) -> jax.Array:
        """What the decoder is to give, [B,H,W,C]: images, or class maps as one-hot."""
        if self.classes:
            return jax.nn.one_hot(images, self.image_channels)
        return images

    @nn.nowrap
    def estimate(self, decoded: jax.Array) -> jax.Array:
        """What the decoder gave, in the target's units: of logits, probabilities."""
        return jax.nn.sigmoid(decoded) if self.classes else decoded

    @nn.nowrap
    def decided(self, decoded: jax.Array) -> Images | ClassMaps:
        """What the decoder gave, for people: images clipped, the likeliest classes."""
        if self.classes:
            return jnp.argmax(decoded, axis=-1).astype(jnp.int32)
        return jnp.clip(decoded, -1.0, 1.0)

    @nn.nowrap
    def after_update(self, params, codebook, latents, *, step, key):
        """Let the quantizer set codes by hand; pure, on the whole module's trees.

        params, codebook: the two collections; latents: Quantized.latents of the step
        that was just taken, whose number is `step`. Returns both, renewed.
        """
        _, quantizer, _ = self._parts()
        inner = params.get("quantizer", {})  # which some have no use for
        inner, state = quantizer.after_update(
            inner, codebook["quantizer"], latents, step=step, key=key
        )
        params = {**params, "quantizer": inner} if inner else params
        return params, {**codebook, "quantizer": state}

    @property
    def stride(self) -> int:
        """Pixels per code in each direction."""
        return self._parts()[0].stride

    @property
    def codebook_size(self) -> int:
        """How many codes there are: codes lie in [0, codebook_size)."""
        return self._parts()[1].size

    @property
    def image_channels(self) -> int:
        """C of the images that go in and come out, or the number of classes."""
        return self._parts()[0].image_channels

    @nn.nowrap
    def _parts(self):
        fields = {"dtype": DTYPES[self.dtype], "remat": self.remat, "parent": None}
        quantizer = dict(self.quantizer)
        name = quantizer.pop("name", "vq")
        quantizer_class = choose("VQGAN", "quantizer", name, QUANTIZERS)
        return (
            Encoder(**self.encoder, **fields),
            quantizer_class(**quantizer, parent=None),
            Decoder(**self.decoder, **fields),
        )

    @nn.nowrap
    def check(self, images) -> None:
        """Raises ValueError if these are no images, or class maps, for this model."""
        encoder, kind = self._parts()[0], "images"
        given, wanted = images.shape, f"[batch, height, width, {self.image_channels}]"
        fits = images.ndim == 4 and images.shape[-1] == self.image_channels
        if self.classes:
            kind, wanted = "class maps", "integers [batch, height, width]"
            given = f"{given} and are {images.dtype}"
            fits = images.ndim == 3 and jnp.issubdtype(images.dtype, jnp.integer)
        if not fits:
            raise ValueError(f"{kind} have shape {given}; this model takes {wanted}")
        if min(images.shape[1:3]) < encoder.stride:
            raise ValueError(
                f"{kind} are {images.shape[1]} x {images.shape[2]} pixels; this model "
                f"needs {encoder.stride} at least in each direction: enlarge them"
            )


def blank(model: VQGAN, side: int) -> Images | ClassMaps:
    """One input of zeros, to initialise or to compile with."""
    if model.classes:
        return jnp.zeros((1, side, side), jnp.int32)
    return jnp.zeros((1, side, side, model.image_channels))


def encode_images(
    model: VQGAN, variables: Mapping, images: Images | ClassMaps
) -> Codes:
    """[B,H,W,C] in [-1,1] -> int32 [B,h,w]: a trained model's codes, to be jitted."""
    return model.apply(variables, images, train=False, method="encode").codes


def decode_codes(model: VQGAN, variables: Mapping, codes: Codes) -> Images | ClassMaps:
    """[B,h,w] -> [B,H,W,C], clipped to [-1,1]: its pictures, to be jitted.

    Of a model of class maps [B,H,W], the likeliest class of each pixel.
    """
    return model.decided(model.apply(variables, codes, method="decode"))
