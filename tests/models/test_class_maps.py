"""Tokenizers of class maps: one-hot in, logits out; golden 05 is the original's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import golden, nhwc, vqgan_fields
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax import losses
from taming_jax.interop.names import COLOURS, GENERATOR
from taming_jax.interop.tables import to_ours, to_theirs
from taming_jax.models.vqgan import VQGAN, blank, decode_codes, encode_images


@functools.cache
def original():
    """Golden 05: (case, our model, its variables, class maps int32 [2,16,16])."""
    case = golden("05_vqsegmentation")
    model = VQGAN(**vqgan_fields(case.config["params"]), classes=True)
    weights = {k: v for k, v in case.weights.items() if k != "colorize"}
    maps = case.inputs["segmentation"].argmax(-1).astype(np.int32)  # NHWC already
    return case, model, {"params": to_ours(GENERATOR, weights)}, jnp.asarray(maps)


@functools.cache
def learned():
    """(Quantized, logits, losses by their names there, gradients by names there)."""
    case, model, variables, maps = original()
    weight = case.config["params"]["lossconfig"]["params"]["codebook_weight"]

    def total(params):
        logits, quantized = model.apply({"params": params}, maps, train=True)
        bce = losses.cross_entropy_loss(one_hot=model.target(maps), logits=logits)
        loss = bce + weight * quantized.loss
        terms = {"total_loss": loss, "bce_loss": bce, "quant_loss": quantized.loss}
        return loss, (quantized, logits, terms)

    with jax.default_matmul_precision("highest"):
        (_, aux), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(
            variables["params"]
        )
    return *aux, to_theirs(GENERATOR, grads)


def test_the_inputs_are_one_hot_inside():
    case, model, _, maps = original()
    assert_array_equal(model.target(maps), case.inputs["segmentation"])


def test_codes_equal_the_originals():
    codes = learned()[0].codes
    assert_array_equal(codes.ravel(), original()[0].outputs["indices"])


def test_what_is_quantized_equals_the_originals():
    case, quantized = original()[0], learned()[0]
    expected = nhwc(case.outputs["quant"])
    assert_allclose(quantized.z, expected, **case.tolerance("quant"))
    expected = case.outputs["emb_loss"]
    assert_allclose(quantized.loss, expected, **case.tolerance("emb_loss"))


def test_logits_equal_the_originals():
    case = original()[0]
    expected = nhwc(case.outputs["logits"])
    assert_allclose(learned()[1], expected, **case.tolerance("logits"))


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("term", ["total_loss", "bce_loss", "quant_loss"])
def test_losses_equal_the_originals(split, term):
    case, name = original()[0], f"log/{split}/{term}"
    assert_allclose(learned()[2][term], case.outputs[name], **case.tolerance(name))


@pytest.mark.parametrize("split", ["train", "val"])
def test_what_is_minimised_is_their_sum(split):
    case, name = original()[0], f"{split}/loss"
    total = learned()[2]["total_loss"]
    assert_allclose(total, case.outputs[name], **case.tolerance(name))


def gradients():
    outputs = golden("05_vqsegmentation").outputs
    return [name for name in outputs if name.startswith("grad/")]


@pytest.mark.parametrize("name", gradients())
def test_gradients_equal_the_originals(name):
    case = original()[0]
    ours = learned()[3][name.removeprefix("grad/")]
    assert_allclose(ours, case.outputs[name], **case.tolerance(name))


def test_the_classes_that_come_out_are_the_likeliest():
    """The original's picture has them, too: one colour for each."""
    case, model, variables, _ = original()
    codes = case.outputs["indices"].reshape(2, 8, 8).astype(np.int32)
    maps = jax.jit(functools.partial(decode_codes, model))(variables, codes)
    assert_array_equal(maps, case.outputs["logits"].argmax(1))
    colours = np.round(nhwc(case.outputs["rgb_reconstructions"]), 4).reshape(-1, 3)
    pairs = np.unique(np.column_stack([np.ravel(maps), colours]), axis=0)
    assert len(pairs) == len(np.unique(maps)) == len(np.unique(colours, axis=0))


def test_the_originals_colours_are_a_row_for_each_class():
    """As its file comes to us; its pictures are stretched over [-1, 1] of a batch."""
    case, *_, maps = original()
    colours = COLOURS.to_ours(case.weights["colorize"])  # [classes, 3]
    picture = colours[maps]
    picture = 2 * (picture - picture.min()) / np.ptp(picture) - 1
    expected = nhwc(case.outputs["rgb_inputs"])
    assert_allclose(picture, expected, **case.tolerance("rgb_inputs"))


HALF = {
    "channels": 4,
    "multipliers": (1, 1),
    "blocks": 0,
    "attention_resolutions": (),
    "middle_attention": False,
    "norm_groups": 2,
    "latent_channels": 4,
    "image_channels": 3,
}
TINY = {
    "encoder": HALF,
    "decoder": HALF,
    "quantizer": {"codebook_size": 8, "dim": 4},
    "classes": True,
}


def test_any_size_comes_back_as_whole_codes():
    model = VQGAN(**TINY)
    key, maps = jax.random.key(0), jnp.zeros((2, 7, 9), jnp.int32)
    variables = jax.eval_shape(
        functools.partial(model.init, train=False), key, blank(model, 4)
    )
    encode, decode = (
        functools.partial(f, model) for f in (encode_images, decode_codes)
    )
    codes = jax.eval_shape(encode, variables, maps)
    back = jax.eval_shape(decode, variables, codes)
    assert (codes.shape, back.shape, back.dtype) == ((2, 3, 4), (2, 6, 8), jnp.int32)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (jnp.zeros((1, 8, 8, 3)), r"class maps have shape \(1, 8, 8, 3\)"),
        (jnp.zeros((1, 8, 8)), r"are float32; this model takes integers \[batch, h"),
        (jnp.zeros((1, 8, 1), jnp.int32), "class maps are 8 x 1 pixels; .* 2 at least"),
    ],
)
def test_what_is_no_class_map_is_refused(maps, message):
    with pytest.raises(ValueError, match=message):
        VQGAN(**TINY).check(maps)


def test_halves_of_different_channels_are_refused():
    with pytest.raises(
        ValueError, match=r"image_channels is 3, .*decoder's 4; .*alike"
    ):
        VQGAN(**TINY | {"decoder": HALF | {"image_channels": 4}})
