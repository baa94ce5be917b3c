from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict
from golden import autoencoder_fields, golden, nhwc
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose

from taming_jax.interop.names import DECODER, ENCODER
from taming_jax.models.autoencoder import (
    DOWNSAMPLE,
    UPSAMPLE,
    Decoder,
    Encoder,
    Normalise,
)
from taming_jax.models.convolution import Conv

SMALL = {
    "channels": 32,
    "multipliers": (1, 2),
    "blocks": 1,
    "resolution": 16,
    "attention_resolutions": (8,),
    "latent_channels": 4,
}


def original(name, module_class, table, **fields):
    """The reference data, and our module with its weights as a function."""
    case = golden(name)
    half = module_class.__name__.lower()
    module = module_class(**autoencoder_fields(case.config["params"], half), **fields)
    params = case.variables(table)
    return case, jax.jit(lambda x: module.apply({"params": params}, x, train=False))


@pytest.mark.parametrize("size", ["square", "wide", "odd"])
def test_encoder_equals_the_original(size):
    case, encode = original("01_encoder", Encoder, ENCODER)
    z = encode(nhwc(case.inputs[size]))
    assert_allclose(z, nhwc(case.outputs[size]), **case.tolerance(size))


@pytest.mark.parametrize("size", ["square", "wide", "odd"])
def test_decoder_equals_the_original(size):
    case, decode = original("01_decoder", Decoder, DECODER)
    images = decode(nhwc(case.inputs[size]))
    assert_allclose(images, nhwc(case.outputs[size]), **case.tolerance(size))


def test_encoder_without_convolutions_between_levels_equals_the_original():
    case, encode = original("01_encoder_variant", Encoder, ENCODER)
    z = encode(nhwc(case.inputs["a"]))
    assert_allclose(z, nhwc(case.outputs["a"]), **case.tolerance("a"))


def test_decoder_without_convolutions_between_levels_equals_the_original():
    case, decode = original("01_decoder_variant", Decoder, DECODER)
    images = decode(nhwc(case.inputs["a"]))
    assert_allclose(images, nhwc(case.outputs["a"]), **case.tolerance("a"))


def test_what_comes_before_the_end_has_only_the_end_to_go():
    case, decode = original("01_decoder_variant", Decoder, DECODER)
    _, stop = original("01_decoder_variant", Decoder, DECODER, give_pre_end=True)
    params, z = case.variables(DECODER), nhwc(case.inputs["a"])

    @jax.jit
    def end(x):
        x = Normalise(32, jnp.float32).apply({"params": params["norm_out"]}, x)
        return Conv(3).apply({"params": params["conv_out"]}, nn.swish(x))

    assert_allclose(end(stop(z)), decode(z), rtol=0, atol=1e-5)  # fused otherwise


@pytest.mark.parametrize("resample", DOWNSAMPLE)
@pytest.mark.parametrize("patch_size", [1, 2])
def test_incomplete_strides_at_the_border_make_no_place(resample, patch_size):
    encoder = Encoder(**SMALL, resample=resample, patch_size=patch_size)
    z = shape_of(encoder, (2, 35, 22, 3))
    assert z == (2, 35 // encoder.stride, 22 // encoder.stride, 4)


@pytest.mark.parametrize("resample", DOWNSAMPLE)
@pytest.mark.parametrize("patch_size", [1, 2])
def test_decoder_makes_a_stride_of_pixels_of_every_place(resample, patch_size):
    decoder = Decoder(**SMALL, resample=resample, patch_size=patch_size)
    assert shape_of(decoder, (2, 5, 3, 4)) == (
        2,
        5 * decoder.stride,
        3 * decoder.stride,
        3,
    )


class Join(nn.Module):
    """What joins two levels, alone, to 4 channels."""

    join: Callable

    @nn.compact
    def __call__(self, x):
        return self.join(x, partial(Conv, name="resample"), 4)


@pytest.mark.parametrize(
    ("join", "rows"),
    [
        (DOWNSAMPLE["patch"], [4, 5]),
        (DOWNSAMPLE["patch_3x3"], [2, 3, 4, 5, 6, 7]),
        (UPSAMPLE["patch"], [1]),
        (UPSAMPLE["patch_3x3"], [0, 1, 2]),
    ],
)
def test_patches_see_themselves_and_with_3x3_their_neighbours_too(join, rows):
    """Rows of the input that a place in the output's row 2 has a gradient by."""
    x = jnp.zeros((1, 10, 10, 3))
    variables = Join(join).init(jax.random.key(0), x)
    gradient = jax.grad(lambda x: Join(join).apply(variables, x)[0, 2, 2].sum())(x)
    assert jnp.flatnonzero(jnp.abs(gradient).sum((0, 2, 3))).tolist() == rows


def test_attention_sits_where_the_nominal_resolution_says():
    encoder = Encoder(**SMALL | {"patch_size": 2, "middle_attention": False})
    names = names_of(encoder, (1, 64, 64, 3))
    assert [name for name in names if "attention" in name] == ["down_0_attention_0"]


def test_every_level_may_have_its_own_number_of_blocks():
    encoder = Encoder(**SMALL | {"blocks": (2, 0), "resample": "patch"})
    names = names_of(encoder, (1, 16, 16, 3))
    blocks = [name for name in names if name.startswith("down") and "block" in name]
    assert blocks == ["down_0_block_0", "down_0_block_1"]


def test_rematerialisation_changes_no_gradient():
    case, _ = original("01_encoder_variant", Encoder, ENCODER)
    fields = autoencoder_fields(case.config["params"], "encoder")
    x = nhwc(case.inputs["a"])

    def gradient(remat):
        encoder = Encoder(**fields, remat=remat)
        encode = partial(encoder.apply, images=x, train=True)
        gradients = jax.jit(jax.grad(lambda params: encode({"params": params}).sum()))
        return ravel_pytree(gradients(case.variables(ENCODER)))[0]

    plain = gradient(remat=False)
    # Sums run in another order: a few units in the last place of the largest.
    assert_allclose(gradient(remat=True), plain, rtol=0, atol=3e-6 * abs(plain).max())


def test_dropout_acts_in_training_only():
    encoder = Encoder(**SMALL, dropout=0.5)
    x = jnp.ones((1, 16, 16, 3))
    variables = jax.jit(lambda key: encoder.init(key, x, train=False))(
        jax.random.key(0)
    )

    @partial(jax.jit, static_argnums=0)
    def encode(train):
        rngs = {"dropout": jax.random.key(1)}
        return encoder.apply(variables, x, train=train, rngs=rngs)

    assert abs(encode(True) - encode(False)).max() > 1e-3


def test_decoded_images_are_float32_under_bfloat16():
    decoder = Decoder(**SMALL, dtype=jnp.bfloat16)
    z = jax.random.normal(jax.random.key(1), (1, 4, 4, 4))
    decode = jax.jit(lambda key: decoder.init_with_output(key, z, train=False)[0])
    images = decode(jax.random.key(0))
    # bfloat16 would leave at most 8 significant bits in every pixel.
    assert (images != images.astype(jnp.bfloat16)).any()


def test_no_groups_mean_no_normalisation():
    encoder = Encoder(**SMALL | {"norm_groups": 0})
    paths = flatten_dict(variables_of(encoder, (1, 16, 16, 3)), sep="/")
    assert not [path for path in paths if "norm" in path]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resample": "convolution"}, "Encoder has no resample 'convolution'.*'conv'"),
        ({"blocks": (1, 1, 1)}, r"2 levels \(multipliers\) but 3 entries in blocks"),
        ({"channels": 48}, "48 channels, which norm_groups=32 does not divide"),
    ],
)
def test_fields_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Encoder(**SMALL | fields)


def names_of(module, shape):
    """The names of the module's parts in the tree of its parameters."""
    return variables_of(module, shape)["params"].keys()


def shape_of(module, shape):
    """The shape that comes out where `shape` goes in; nothing is computed."""
    apply = partial(module.apply, train=False)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(apply, variables_of(module, shape), x).shape


def variables_of(module, shape):
    """Shapes and dtypes of the module's variables; nothing is computed."""
    init = partial(module.init, train=False)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(init, jax.random.key(0), x)
