from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import golden, nhwc, vqgan_fields
from ml_collections import ConfigDict
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.interop.names import GENERATOR
from taming_jax.models.vqgan import LAST_KERNEL, VQGAN

HALF = {
    "channels": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "norm_groups": 4,
    "resolution": 16,
    "attention_resolutions": (),
    "latent_channels": 6,
}
TINY = {
    "encoder": HALF,
    "decoder": HALF | {"channels": 4, "multipliers": (1,), "patch_size": 2},
    "quantizer": {"name": "vq", "codebook_size": 16, "dim": 5},
}


@pytest.fixture(scope="module")
def original():
    """Golden 02, our model with its weights as a function of a method and its input."""
    case = golden("02_vqmodel")
    model = VQGAN(**vqgan_fields(case.config["params"]))
    variables = {"params": case.variables(GENERATOR)}

    @partial(jax.jit, static_argnums=0)
    def call(method, x):
        return model.apply(variables, x, method=method)

    return case, call


@pytest.fixture(scope="module")
def encoded(original):
    """Golden 02 and what our model makes of its images."""
    case, call = original
    return case, call("encode", nhwc(case.inputs["x"]))


@pytest.fixture(scope="module")
def tiny():
    """A small model that differs in its halves, and its variables."""
    model = VQGAN(**TINY)
    init = partial(model.init, images=jnp.zeros((1, 8, 8, 3)), train=False)
    return model, jax.jit(init)(jax.random.key(0))


def test_codes_equal_the_originals(encoded):
    case, quantized = encoded
    assert_array_equal(quantized.codes.ravel(), case.outputs["indices"])


def test_latents_equal_the_originals(encoded):
    case, quantized = encoded
    expected = nhwc(case.outputs["prequant"])
    assert_allclose(quantized.latents, expected, **case.tolerance("prequant"))
    expected = nhwc(case.outputs["quant"])
    assert_allclose(quantized.z, expected, **case.tolerance("quant"))


def test_quantizer_loss_equals_the_originals(encoded):
    case, quantized = encoded
    expected = case.outputs["emb_loss_legacy"]
    assert_allclose(quantized.loss, expected, **case.tolerance("emb_loss_legacy"))


def test_images_from_latents_equal_the_originals(original):
    case, call = original
    images = call("decode_latents", nhwc(case.outputs["quant"]))
    expected = nhwc(case.outputs["decoded_quant"])
    assert_allclose(images, expected, **case.tolerance("decoded_quant"))


def test_images_from_codes_equal_the_originals(original):
    case, call = original
    images = call("decode", case.outputs["indices"].reshape(2, 8, 8))
    expected = nhwc(case.outputs["decode_from_codebook_entry"])
    assert_allclose(images, expected, **case.tolerance("decode_from_codebook_entry"))


def test_reconstructions_equal_the_originals(original):
    case, call = original
    made = call(partial(VQGAN.__call__, train=False), nhwc(case.inputs["x"]))
    images, expected = made[0], nhwc(case.outputs["reconstruction"])
    assert_allclose(images, expected, **case.tolerance("reconstruction"))
    loss, expected = made[1].loss, case.outputs["forward_diff"]
    assert_allclose(loss, expected, **case.tolerance("forward_diff"))


@pytest.mark.parametrize("size", [(2, 2), (9, 14), (31, 2)])
def test_any_size_has_as_many_codes_as_whole_strides(tiny, size):
    model, variables = tiny
    encode = partial(model.apply, method="encode")
    codes = jax.eval_shape(encode, variables, jnp.zeros((1, *size, 3))).codes
    assert codes.shape == (1, size[0] // 2, size[1] // 2)


def test_stride_and_codebook_size_need_no_parameters():
    model = VQGAN(**TINY)
    assert (model.stride, model.codebook_size) == (2, 16)


def test_the_default_is_the_papers_f16():
    model = VQGAN(quantizer={"codebook_size": 16384, "dim": 256})
    assert model.stride == 16


def test_a_configuration_builds_what_a_dict_builds(tiny):
    _, variables = tiny
    built = VQGAN(**ConfigDict(TINY))
    x = jnp.zeros((1, 8, 8, 3))
    shapes = jax.eval_shape(partial(built.init, train=False), jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, variables)


def test_evaluation_needs_parameters_only(tiny):
    model, variables = tiny
    x = jnp.ones((1, 8, 8, 3))
    apply = jax.jit(partial(model.apply, train=False))
    images, _ = apply({"params": variables["params"]}, x)
    assert images.shape == x.shape


def test_the_last_kernel_is_where_it_is_said_to_be(tiny):
    _, variables = tiny
    kernel = variables["params"]
    for name in LAST_KERNEL:
        kernel = kernel[name]
    assert kernel.shape == (3, 3, 4, 3 * 2**2)


def test_codes_under_bfloat16_are_the_nearest_by_double_precision(tiny):
    _, variables = tiny
    model = VQGAN(**TINY, dtype="bfloat16")
    x = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
    quantized = jax.jit(partial(model.apply, method="encode"))(variables, x)
    z = np.asarray(quantized.latents, np.float64)
    table = np.asarray(variables["params"]["quantizer"]["embedding"], np.float64)
    distances = np.square(z[..., None, :] - table).sum(-1)
    assert_array_equal(quantized.codes, distances.argmin(-1))


def test_parameters_are_float32_under_bfloat16():
    model = VQGAN(**TINY, dtype="bfloat16")
    init = partial(model.init, images=jnp.zeros((1, 8, 8, 3)), train=False)
    dtypes = {
        leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(init, jax.random.key(0)))
    }
    assert dtypes == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encodr": {}}, "VQGAN has no field 'encodr'; did you mean 'encoder'?"),
        (
            {"encoder": {"chanels": 64}},
            "Encoder has no field 'chanels'; did you mean 'channels'?.*multipliers",
        ),
        (
            {"quantizer": {"name": "vq", "codebook": 512, "dim": 8}},
            "VQ has no field 'codebook'; did you mean 'codebook_size'?",
        ),
        ({"quantizer": {"name": "vq", "dim": 8}}, "VQ needs codebook_size="),
        ({"quantizer": {"name": "qv"}}, "VQGAN has no quantizer 'qv'.*allowed: .*vq"),
        ({"dtype": "float16"}, "VQGAN has no dtype 'float16'.*float32, bfloat16"),
        (
            {"decoder": {"multipliers": (1, 2, 2)}},
            "encoder's stride is 2, the decoder's 4; they must agree",
        ),
    ],
)
def test_a_wrong_configuration_is_refused_in_one_line(change, message):
    with pytest.raises(ValueError, match=message):
        VQGAN(**TINY | change)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 8, 8, 1), r"shape \(1, 8, 8, 1\); .* \[batch, height, width, 3\]"),
        ((8, 8, 3), r"shape \(8, 8, 3\)"),
        ((1, 8, 1, 3), "8 x 1 pixels; this model needs 2 at least"),
    ],
)
def test_images_that_do_not_fit_are_refused(tiny, shape, message):
    model, variables = tiny
    with pytest.raises(ValueError, match=message):
        model.apply(variables, jnp.zeros(shape), method="encode")
