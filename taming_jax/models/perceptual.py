"""LPIPS (Zhang et al. 2018): how different two pictures look, by VGG16's features.

    x, y [B,H,W,C] -> five stages of features each -> squared differences of their
    directions [B,h,w,F] -> weighed by the heads, averaged over places, summed -> [B]

Pure functions over a tree of weights, which is an argument so that a compiled step
does not carry it as a constant:

    {"vgg": {"conv1_1": {"kernel": [3,3,3,64], "bias": [64]}, ...},
     "heads": {"0": [64], ..., "4": [512]}}

Widths follow from the weights. Everything is float32.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from taming_jax.models.convolution import flat
from taming_jax.units import Images

# The convolutions of VGG16 by stage; a stage ends with the features that count.
STAGES = (
    ("conv1_1", "conv1_2"),
    ("conv2_1", "conv2_2"),
    ("conv3_1", "conv3_2", "conv3_3"),
    ("conv4_1", "conv4_2", "conv4_3"),
    ("conv5_1", "conv5_2", "conv5_3"),
)
WIDTHS = (64, 128, 256, 512, 512)  # F of each stage of VGG16
# From [-1, 1] to the colours that VGG16 was trained with; the authors' constants.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


def lpips(
    params: dict,
    x: Images,
    y: Images,
    *,
    dropout: float = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    """Perceptual distance of images in [-1,1], RGB or grey: float32 [B], >= 0.

    dropout: share of the differences that is left out, by `key`, and made up for by
        the others. The original trains with 0.5, an accident; evaluation has none.
    """
    stages = differences(params, x, y)
    if dropout:
        stages = drop_out(stages, dropout, key)
    return weigh(params, stages)


def shapes_of(widths: Sequence[int] = WIDTHS) -> dict:
    """The tree of weights with so many features a stage, as `jax.ShapeDtypeStruct`."""
    vgg, before = {}, 3
    for names, width in zip(STAGES, widths, strict=True):
        for name in names:
            vgg[name] = {"kernel": _shaped(3, 3, before, width), "bias": _shaped(width)}
            before = width
    return {"vgg": vgg, "heads": {str(i): _shaped(w) for i, w in enumerate(widths)}}


def differences(params: dict, x: Images, y: Images) -> list[jax.Array]:
    """Squared differences of unit-length features, [B,h,w,F] for each stage."""
    pairs = zip(features(params, x), features(params, y), strict=True)
    return [jnp.square(_direction(f) - _direction(g)) for f, g in pairs]


def drop_out(stages: list[jax.Array], rate: float, key) -> list[jax.Array]:
    """Set this share of each stage to 0 and divide what is left by 1 - rate."""

    def keep(key, shape):
        return jax.random.bernoulli(key, 1 - rate, shape)

    keys = jax.random.split(key, len(stages))
    pairs = zip(stages, keys, strict=True)
    return [jnp.where(flat(keep, k, s.shape), s / (1 - rate), 0.0) for s, k in pairs]


def weigh(params: dict, stages: list[jax.Array]) -> jax.Array:
    """Weigh channels by the heads, average over places, sum over stages: [B]."""
    heads = [params["heads"][str(i)] for i in range(len(stages))]
    pairs = zip(stages, heads, strict=True)
    return sum(jnp.einsum("bhwf,f->bhw", s, head).mean((1, 2)) for s, head in pairs)


def features(params: dict, images: Images) -> list[jax.Array]:
    """relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 of images [B,H,W,1 or 3]."""
    x = (images.astype(jnp.float32) - jnp.array(SHIFT)) / jnp.array(SCALE)
    stages = []
    for names in STAGES:
        if stages:
            x = _max_pool(x)
        for name in names:
            x = jax.nn.relu(_conv(x, **params["vgg"][name]))
        stages.append(x)
    return stages


def _shaped(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _direction(f):
    """f / (|f| + 1e-10); the gradient at f = 0 is zero, not 0/0."""
    squares = jnp.sum(jnp.square(f), axis=-1, keepdims=True)
    positive = squares > 0
    norm = jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)
    return f / (norm + 1e-10)


def _conv(x, kernel, bias):
    layout = ("NHWC", "HWIO", "NHWC")
    padding = ((1, 1), (1, 1))
    y = lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=layout)
    return y + bias


def _max_pool(x):
    window = (1, 2, 2, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
