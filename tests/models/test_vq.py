"""VQ against the original, and what it promises beyond what all quantizers do."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import golden, nhwc
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.metrics.codebook import count_codes, perplexity
from taming_jax.models.arithmetic import codebook_loss
from taming_jax.models.quantizers import L2, VQ

KEY = jax.random.key(0)


def latents(*shape):
    return jax.random.normal(jax.random.key(7), shape)


# Against the original.


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("output", ["emb_loss", "grad_h", "grad_codebook"])
def test_vq_loss_and_gradients_equal_the_originals(legacy, output):
    case = golden("02_vqmodel")
    table = case.weights["quantize.embedding.weight"]
    module = VQ(*table.shape, legacy=legacy)

    def loss(z, table):
        variables = {"params": {"embedding": table}}
        quantized = module.apply(variables, z, train=True)
        probed = jnp.sum(quantized.z * nhwc(case.inputs["probe"]))
        return quantized.loss + probed, quantized.loss

    z = nhwc(case.outputs["prequant"])
    (_, value), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(z, table)
    ours = dict(
        zip(("emb_loss", "grad_h", "grad_codebook"), (value, *gradients), strict=True)
    )
    theirs = case.outputs[f"legacy{legacy:d}_sane1/{output}"]
    theirs = nhwc(theirs) if output == "grad_h" else theirs
    tolerance = case.tolerance(f"legacy{legacy:d}_sane1/{output}")
    assert_allclose(ours[output], theirs, **tolerance)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("sane", [0, 1])
def test_vq_codes_equal_the_originals_whatever_the_loss_and_their_shape(legacy, sane):
    case = golden("02_vqmodel")
    quantized, start = vq(case, legacy=legacy), f"legacy{legacy:d}_sane{sane}"
    indices = case.outputs[f"{start}/indices"].ravel()
    assert_array_equal(quantized.codes.ravel(), indices)
    name = f"{start}/emb_loss"
    assert_allclose(quantized.loss, case.outputs[name], **case.tolerance(name))


def test_vq_equals_the_originals_older_class():
    case = golden("02_vqmodel")
    quantized = vq(case, legacy=True)
    assert_array_equal(quantized.codes.ravel(), case.outputs["v1/indices"].ravel())
    for name, ours in {
        "quant": np.moveaxis(quantized.z, -1, 1),
        "emb_loss": quantized.loss,
        "perplexity": perplexity(count_codes(quantized.codes, 20)),
    }.items():
        name = f"v1/{name}"
        assert_allclose(ours, case.outputs[name], **case.tolerance(name), err_msg=name)


def vq(case, **fields):
    """What our VQ makes of golden 02's latents."""
    table = case.weights["quantize.embedding.weight"]
    module = VQ(*table.shape, **fields)
    variables = {"params": {"embedding": table}}
    z = nhwc(case.outputs["prequant"])
    return jax.jit(partial(module.apply, train=False))(variables, z)


# Its loss, and codes of length one.


def test_no_gradient_of_the_decoder_reaches_the_codebook():
    module = VQ(16, 5)
    z = latents(1, 4, 4, 5)
    params = module.init(KEY, z, train=False)["params"]

    def decoded(params):
        return module.apply({"params": params}, z, train=True).z.sum()

    assert_array_equal(jax.grad(decoded)(params)["embedding"], np.zeros((16, 5)))


def test_the_correct_loss_puts_beta_on_the_commitment():
    z, q = jnp.array([0.0]), jnp.array([3.0])
    pull = jax.grad(
        lambda z, q: codebook_loss(z=z, q=q, beta=0.25, beta_on_commitment=True), (0, 1)
    )
    assert_array_equal(jnp.concatenate(pull(z, q)), [-1.5, 6.0])


def test_normalised_codes_do_not_depend_on_the_length_of_latents():
    module = VQ(32, 5, normalize=True)
    z = latents(1, 6, 6, 5)
    variables = module.init(KEY, z, train=False)
    quantized = module.apply(variables, z, train=False)
    scaled = module.apply(variables, 100 * z, train=False)
    assert_array_equal(quantized.codes, scaled.codes)


def test_normalised_codes_stand_for_vectors_of_length_one():
    module = VQ(32, 5, normalize=True)
    variables = module.init(KEY, latents(1, 1, 1, 5), train=False)
    vectors = module.apply(variables, jnp.arange(32), method="lookup")
    assert_allclose(jnp.linalg.norm(vectors, axis=-1), 1, rtol=1e-6)


@pytest.fixture(scope="module")
def directions():
    """L2 and what it makes of latents, beside all in double precision.

    -> (ours, theirs): each (codes, loss, gradients by latents and by the table).
    """
    module, z, probe = L2(32, 5, beta=0.3), 3 * latents(2, 4, 4, 5), latents(2, 4, 4, 5)
    table = 2 * jax.random.normal(jax.random.key(8), (32, 5))

    def wanted(z, table):
        variables = {"params": {"embedding": table}}
        quantized = module.apply(variables, z, train=True)
        value = quantized.loss + jnp.vdot(quantized.z, probe)
        return value, (quantized.codes, quantized.loss)

    grads, ours = jax.jit(jax.grad(wanted, (0, 1), has_aux=True))(z, table)
    double = (np.asarray(x, np.float64) for x in (z, table, probe))
    return (*ours, *grads), by_cosine(*double)


def by_cosine(z, table, probe, beta=0.3):
    """The same by its own equations: |u - e|^2 = 2 - 2 cos of unit vectors u, e."""
    length, lengths = (np.linalg.norm(x, axis=-1, keepdims=True) for x in (z, table))
    cosines = np.einsum("bhwd,kd->bhwk", z / length, table / lengths)
    codes, cosine = cosines.argmax(-1), cosines.max(-1)[..., None]
    u, e = z / length, (table / lengths)[codes]
    loss = (1 + beta) * np.mean(2 - 2 * cosine) / z.shape[-1]
    # Along a vector nothing changes; across it by 1 / length.
    pull = -2 * beta / z.size * (e - cosine * u)
    pull += probe - np.sum(probe * u, -1, keepdims=True) * u  # straight through to u
    push = np.zeros_like(table)
    np.add.at(push, codes, -2 / z.size * (u - cosine * e) / lengths[codes])
    return codes, loss, pull / length, push


def test_normalised_codes_have_the_highest_cosine(directions):
    ours, theirs = directions
    assert_array_equal(ours[0], theirs[0])


def test_the_loss_of_normalised_codes_is_of_cosines(directions):
    ours, theirs = directions
    assert_allclose(ours[1], theirs[1], rtol=1e-6)


@pytest.mark.parametrize("by", [2, 3], ids=["latents", "table"])
def test_gradients_of_normalised_codes_are_across_them(directions, by):
    ours, theirs = directions
    assert_allclose(ours[by], theirs[by], rtol=1e-5, atol=1e-7)
