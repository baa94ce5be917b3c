"""What a result depends on by its gradient is what is stated, to the pixel."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taming_jax.models.autoencoder import DOWNSAMPLE, UPSAMPLE
from taming_jax.models.receptive import receptive_field
from taming_jax.models.vqgan import VQGAN, blank

PLAIN = {"multipliers": (1, 1, 1), "blocks": (0, 1, 0)}
PATCHES = {"multipliers": (1, 1), "blocks": (1, 0), "patch_size": 4}
LEAST = {"channels": 2, "latent_channels": 2, "norm_groups": 0, "gain": 3**0.5,
         "attention_resolutions": (), "middle_attention": False}  # fmt: skip


def tokenizer(form, **options):
    half = LEAST | form | options
    quantizer = {"codebook_size": 4, "dim": 2}
    kinds = half.pop("down", "conv"), half.pop("up", "conv")
    encoder, decoder = ({**half, "resample": kind} for kind in kinds)
    return VQGAN(encoder=encoder, decoder=decoder, quantizer=quantizer)


def weights(model):
    """Positive ones, so that nothing cancels out or is too small to be seen."""
    image = blank(model, model.stride)
    init = jax.jit(partial(model.init, train=False))
    return jax.tree.map(jnp.abs, init(jax.random.key(0), image))


def support(function, variables, given, at):
    """[low, high) of the columns of `given` that the results `at` depend on."""
    result = lambda x: jnp.sum(function(variables, x)[:, :, at])  # noqa: E731
    seen = np.flatnonzero(np.asarray(jax.jit(jax.grad(result))(given)).any((0, 1, 3)))
    return seen[0], seen[-1] + 1


@pytest.mark.parametrize(
    ("form", "down"), [*((PLAIN, kind) for kind in DOWNSAMPLE), (PATCHES, "patch")]
)
def test_a_code_depends_on_the_stated_pixels(form, down):
    model = tokenizer(form, down=down)
    variables = weights(model)
    before, after, everything = receptive_field(model).encoder
    n = 2 + before // model.stride  # of a code whose pixels are far from the left edge
    width = (n + 3) * model.stride + after
    images = jnp.ones((1, model.stride, width, 3))
    latents = lambda v, x: model.apply(v, x, method="latents")  # noqa: E731
    low, high = support(latents, variables, images, n)
    own = n * model.stride
    assert (own - low, high - own - model.stride) == (before, after)
    assert not everything


@pytest.mark.parametrize(
    ("form", "up"), [*((PLAIN, kind) for kind in UPSAMPLE), (PATCHES, "patch")]
)
def test_the_pixels_of_a_code_depend_on_the_stated_codes(form, up):
    model = tokenizer(form, up=up)
    variables = weights(model)
    before, after, everything = receptive_field(model).decoder
    latents = jnp.ones((1, 1, before + 3 + after, 2))
    n, stride = before + 1, model.stride
    decoded = lambda v, z: model.apply(v, z, method="decode_latents")  # noqa: E731
    pixels = slice(n * stride, (n + 1) * stride)
    low, high = support(decoded, variables, latents, pixels)
    assert (n - low, high - n - 1) == (before, after)
    assert not everything


@pytest.mark.parametrize(
    "option",
    [{"norm_groups": 1}, {"middle_attention": True}, {"attention_resolutions": (128,)}],
)
def test_normalisation_and_attention_see_everything(option):
    """The level with blocks is nominally of 128 x 128 places."""
    field = receptive_field(tokenizer(PLAIN, **option))
    assert field.encoder.everything
    assert field.decoder.everything
