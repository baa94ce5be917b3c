"""The Gumbel quantizer against the original's, with the noise that was recorded.

Ours draws noise in training only. There it is drawn in evaluation, too: what came of
that is compared with a hard training step, which gives the same at any temperature.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import golden, gumbel_fields, nhwc, vqgan_fields
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.interop.names import GUMBEL_GENERATOR
from taming_jax.interop.tables import to_theirs
from taming_jax.models.quantizers import Gumbel
from taming_jax.models.schedules import warm_up_cosine
from taming_jax.models.vqgan import VQGAN

CASE = golden("03_gumbelvq")
PARAMS = CASE.config["params"]
GENERATOR = CASE.variables(GUMBEL_GENERATOR)
NOISE = nhwc(CASE.inputs["noise"])
USED = CASE.inputs["used"].tolist()
RNGS = {"quantizer": jax.random.key(0)}


@pytest.fixture
def noise(monkeypatch):
    """A function that lets the given noise be drawn."""

    def draw(values):
        monkeypatch.setattr(jax.random, "gumbel", lambda key, shape: jnp.ravel(values))

    return draw


@cache
def training(straight_through):
    """A compiled function of a step, to what the original's loss was taken of."""
    model = VQGAN(**vqgan_fields(PARAMS, straight_through=straight_through))

    def loss(params, step):
        apply = partial(model.apply, {"params": params}, rngs=RNGS, train=True)
        x_hat, quantized = apply(nhwc(CASE.inputs["x"]), step=step)
        probed = jnp.mean(x_hat * nhwc(CASE.inputs["probe"]))
        return quantized.loss + probed, (x_hat, quantized)

    return jax.jit(lambda step: jax.grad(loss, has_aux=True)(GENERATOR, step))


def trained(straight_through, step):
    """A training step in the original's words: name -> ours."""
    gradients, (x_hat, quantized) = training(straight_through)(step)
    gradients = to_theirs(GUMBEL_GENERATOR, gradients)
    return {
        "reconstruction": np.moveaxis(x_hat, -1, 1),
        "diff": quantized.loss,
        "temperature": quantized.stats["temperature"],
        "grad_proj_weight": gradients["quantize.proj.weight"],
        "grad_proj_bias": gradients["quantize.proj.bias"],
        "grad_embed_weight": gradients["quantize.embed.weight"],
        "grad_quant_conv_weight": gradients["quant_conv.weight"],
    }


@pytest.mark.parametrize("step", [3, 9])
@pytest.mark.parametrize("straight_through", [False, True], ids=["soft", "hard"])
def test_a_training_step_equals_the_originals(noise, straight_through, step):
    noise(NOISE)
    start = f"train_st{straight_through:d}_step{step}/"
    ours = trained(straight_through, step)
    names = [k.removeprefix(start) for k in CASE.outputs if k.startswith(start)]
    assert ours.keys() == set(names)
    for name in names:
        expected, tolerance = CASE.outputs[start + name], CASE.tolerance(start + name)
        assert_allclose(ours[name], expected, **tolerance, err_msg=name)


def quantized(train, **remap):
    """What the quantizer makes of the recorded latents, and of its codes."""
    size = {"codebook_size": PARAMS["n_embed"], "dim": PARAMS["embed_dim"]}
    fields = gumbel_fields(PARAMS)
    del fields["name"]
    module = Gumbel(**size, **fields, **remap)
    variables = {"params": GENERATOR["quantizer"]}
    z = nhwc(CASE.outputs["prequant"])
    made = module.apply(variables, z, train=train, step=3, rngs=RNGS)
    return {
        "quant": made.z,
        "diff": made.loss,
        "indices": made.codes,
        "logits": module.apply(variables, z, method="logits"),
        "codebook_entry": module.apply(variables, made.codes, method="lookup"),
    }


def assert_equal(ours, kind, names):
    for name in names:
        expected = CASE.outputs[f"{kind}{name}"]
        expected = nhwc(expected) if expected.ndim == 4 else expected
        if name == "indices":
            assert_array_equal(ours[name], expected)
        else:
            assert_allclose(ours[name], expected, **CASE.tolerance(f"{kind}{name}"))


def test_logits_equal_the_originals():
    assert_equal(quantized(train=False), "", ["logits"])


def test_evaluation_equals_the_originals_without_noise():
    assert_equal(quantized(train=False), "eval_nonoise/", ["quant", "diff", "indices"])


def test_noisy_codes_and_their_vectors_equal_the_originals(noise):
    noise(NOISE)
    names = ["quant", "diff", "indices", "codebook_entry"]
    assert_equal(quantized(train=True), "eval/", names)


@pytest.mark.parametrize("unknown", ["extra", 0])
def test_only_used_codes_are_drawn_as_the_original_draws_them(noise, unknown):
    of_used = np.zeros_like(NOISE)
    of_used[..., USED] = NOISE[..., : len(USED)]  # as recorded
    noise(of_used)
    ours = quantized(train=True, used=USED, unknown=unknown)
    ours["logits"] = ours["logits"][..., USED]
    kind = "remap_extra/" if unknown == "extra" else "remap_int/"
    assert_equal(ours, kind, ["quant", "diff", "indices", "logits"])


def test_images_from_codes_equal_the_originals():
    model = VQGAN(**vqgan_fields(PARAMS))
    decode = jax.jit(partial(model.apply, {"params": GENERATOR}, method="decode"))
    images = decode(CASE.outputs["eval/indices"].astype(np.int32))
    tolerance = CASE.tolerance("eval/decoded")
    assert_allclose(images, nhwc(CASE.outputs["eval/decoded"]), **tolerance)


def test_latents_equal_the_originals():
    model = VQGAN(**vqgan_fields(PARAMS))
    encode = jax.jit(partial(model.apply, {"params": GENERATOR}, method="encode"))
    latents = encode(nhwc(CASE.inputs["x"])).latents
    tolerance = CASE.tolerance("prequant")
    assert_allclose(latents, nhwc(CASE.outputs["prequant"]), **tolerance)


def test_temperatures_equal_the_originals():
    fields = gumbel_fields(PARAMS)
    steps = jnp.array(CASE.config["temperature_steps"])
    ours = warm_up_cosine(steps, fields["temperature"], fields["temperature_steps"])
    assert_allclose(ours, CASE.outputs["temperatures"], rtol=1e-6)


def test_the_published_temperature_ends_exactly_where_it_should():
    last = warm_up_cosine(1_000_001, (0.9, 0.9, 1e-6), (0, 1_000_001))
    assert_allclose(last, 1e-6, rtol=1e-6)


def test_a_temperature_that_is_divided_by_is_not_zero():
    with pytest.raises(ValueError, match=r"temperature=\(1.0, 1.0, 0.0\).*ends at 1e"):
        Gumbel(8, 4, temperature=(1.0, 1.0, 0.0))


def test_codes_are_drawn_by_their_odds():
    module, z = Gumbel(4, 3), jnp.ones((1, 50, 50, 3))

    @jax.jit
    def draw(key):
        variables = module.init(key, z, train=False)
        logits = module.apply(variables, z, method="logits")
        return logits, module.apply(variables, z, train=True, rngs=RNGS).codes

    logits, codes = draw(jax.random.key(1))
    shares = np.bincount(codes.ravel(), minlength=4) / codes.size
    # Four standard deviations of a share, at most.
    error = 4 * 0.5 / np.sqrt(codes.size)
    assert_allclose(shares, jax.nn.softmax(logits[0, 0, 0]), rtol=0, atol=error)
