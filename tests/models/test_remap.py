import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import golden, nhwc
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models.quantizers import QUANTIZERS, VQ
from taming_jax.models.remap import make_remap

CASE = golden("02_vqmodel")
INTEGER = CASE.config["variants"]["remap_unknown_index_int"]


@pytest.fixture(scope="module", params=["extra", "int"])
def remapped(request):
    """The original's name of the case, our VQ of it, and what it makes of latents."""
    table = CASE.weights["quantize.embedding.weight"]
    unknown = INTEGER if request.param == "int" else request.param
    used = CASE.inputs["used"].tolist()
    module = VQ(*table.shape, used=used, unknown=unknown, legacy=True)
    variables = {"params": {"embedding": table}}
    quantize = jax.jit(lambda z: module.apply(variables, z, train=False))
    quantized = quantize(nhwc(CASE.outputs["prequant"]))
    vectors = module.apply(variables, quantized.codes, method="lookup")
    return f"remap_{request.param}_sane", module, quantized, vectors


@pytest.mark.parametrize("sane", [0, 1])
def test_codes_equal_the_originals(remapped, sane):
    name, _, quantized, _ = remapped
    expected = CASE.outputs[f"{name}{sane}/indices"]
    assert_array_equal(quantized.codes.ravel(), expected.ravel())


@pytest.mark.parametrize("sane", [0, 1])
def test_codes_stand_for_the_vectors_that_they_do_there(remapped, sane):
    name, _, _, vectors = remapped
    name = f"{name}{sane}/codebook_entry"
    assert_allclose(vectors, nhwc(CASE.outputs[name]), **CASE.tolerance(name))


@pytest.mark.parametrize("sane", [0, 1])
def test_codes_go_back_to_those_of_the_table(remapped, sane):
    name, module, quantized, _ = remapped
    remap = make_remap("VQ", 20, module.used, module.unknown)
    back = remap.inward[np.asarray(quantized.codes)]
    assert_array_equal(back.ravel(), CASE.outputs[f"{name}{sane}/unmapped"].ravel())


@pytest.mark.parametrize("sane", [0, 1])
def test_the_loss_is_that_of_the_whole_table(remapped, sane):
    name, _, quantized, _ = remapped
    name = f"{name}{sane}/emb_loss"
    # Recorded of the original's default, which is the legacy loss.
    assert_allclose(quantized.loss, CASE.outputs[name], **CASE.tolerance(name))


@pytest.mark.parametrize("sane", [0, 1])
def test_as_many_codes_come_out_as_there(remapped, sane):
    name, module, _, _ = remapped
    assert module.size == CASE.outputs[f"{name}{sane}/re_embed"]


def test_used_codes_become_their_places_in_the_list():
    remap = make_remap("VQ", 8, [6, 1, 3], "random")
    assert_array_equal(remap.outward[[6, 1, 3]], [0, 1, 2])


def test_at_random_every_unknown_code_becomes_some_used_one():
    used = [7, 900, 31, 5]
    others = np.delete(make_remap("VQ", 1000, used, "random").outward, used)
    shares = np.bincount(others, minlength=4) / len(others)
    # Four standard deviations of a share.
    assert_allclose(shares, 0.25, rtol=0, atol=4 * np.sqrt(0.25 * 0.75 / len(others)))


def test_at_random_is_the_same_at_every_time():
    first, second = (make_remap("VQ", 99, [5, 4, 3], "random") for _ in range(2))
    assert_array_equal(first.outward, second.outward)


@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("unknown", ["random", "extra", 2])
def test_every_quantizer_gives_codes_below_its_size(name, unknown):
    fields = {"levels": (4, 4)} if name == "fsq" else {"codebook_size": 16}
    fields |= {} if name in ("fsq", "lfq") else {"dim": 4}
    module = QUANTIZERS[name](**fields, used=(9, 4, 11), unknown=unknown)
    z = jax.random.normal(jax.random.key(0), (2, 6, 6, module.dim))
    quantized, variables = module.init_with_output(jax.random.key(1), z, train=False)
    assert set(np.unique(quantized.codes)) <= set(range(module.size))
    ours = module.apply(variables, jnp.arange(3), method="lookup")
    theirs = module.apply(variables, jnp.array([9, 4, 11]), method="vectors")
    assert_array_equal(ours, theirs)


def test_counts_are_those_of_the_table():
    module = VQ(16, 5, used=(9,), unknown=0)
    z = jax.random.normal(jax.random.key(0), (2, 6, 6, 5))
    variables = module.init(jax.random.key(1), z, train=True)
    _, state = module.apply(variables, z, train=True, mutable=["codebook"])
    assert jnp.sum(state["codebook"]["usage"] > 0) > 1


@pytest.mark.parametrize(
    ("used", "unknown", "message"),
    [
        ([], "extra", r"VQ's list of used codes is \w+ of shape \(0,\); .*from 0 to 7"),
        ([[1]], "extra", r"is int64 of shape \(1, 1\)"),
        ([0.5], "extra", r"is float64 of shape \(1,\)"),
        ([3, 8], "extra", "reaches from 3 to 8; .*0 to 7.*another codebook"),
        ([-1, 2], "extra", "reaches from -1 to 2"),
        ([3, 1, 3], "extra", "has 3 more than once"),
        (
            [3, 1],
            "first",
            "VQ has no unknown='first'; allowed: random, extra, or",
        ),
        ([3, 1], 2, "VQ has no unknown=2; .* from 0 to 1 of the 2 used"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_in_one_line(used, unknown, message):
    with pytest.raises(ValueError, match=message) as caught:
        VQ(8, 5, used=used, unknown=unknown)
    assert "\n" not in str(caught.value)
