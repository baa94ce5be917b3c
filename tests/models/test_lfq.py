import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models import arithmetic
from taming_jax.models.quantizers import LFQ

Z = 0.1 * jax.random.normal(jax.random.key(0), (2, 4, 5, 6))
FIELDS = {"codebook_size": 64, "entropy_temperature": 0.1}
MODULE = LFQ(**FIELDS)


def quantized(z=Z, module=MODULE):
    return module.apply({}, z, train=True)


def test_a_code_is_written_in_the_signs_of_its_latent():
    expected = np.zeros(Z.shape[:-1], int)
    for place in np.ndindex(expected.shape):
        expected[place] = int("".join("01"[int(x > 0)] for x in Z[place][::-1]), 2)
    assert_array_equal(quantized().codes, expected)


def test_codes_stand_for_their_bits_as_signs():
    vectors = MODULE.apply({}, jnp.array([[[0, 1, 6]]]), method="lookup")
    assert_array_equal(vectors[0, 0, 0], [-1, -1, -1, -1, -1, -1])
    assert_array_equal(vectors[0, 0, 1], [1, -1, -1, -1, -1, -1])
    assert_array_equal(vectors[0, 0, 2], [-1, 1, 1, -1, -1, -1])


def brute_entropies(z, temperature):
    """Over all codes, each of which is compared with each latent."""
    bits = z.shape[-1]
    codes = np.arange(2**bits)[:, None] >> np.arange(bits) & 1
    z = np.float64(z).reshape(-1, 1, bits)
    scores = -np.square(z - (2.0 * codes - 1)).sum(-1) / temperature
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    mean = p.mean(0)
    each = -(p * np.log(p + 1e-300)).sum(-1).mean()
    return each, -(mean * np.log(mean + 1e-300)).sum()


def test_entropies_are_those_over_all_codes():
    stats = quantized().stats
    each, of_mean = brute_entropies(Z, 0.1)
    assert_allclose(stats["entropy_each"], each, rtol=1e-5)
    assert_allclose(stats["entropy_of_mean"], of_mean, rtol=1e-5)


def test_the_loss_is_commitment_and_what_entropies_want():
    each, of_mean = brute_entropies(Z, 0.1)
    distance = np.mean(np.square(Z - np.sign(Z)))
    expected = 0.25 * distance + 0.1 * (each - of_mean)
    # Terms a hundred times as large cancel.
    assert_allclose(quantized().loss, expected, rtol=1e-4)


def test_groups_of_bits_have_their_own_entropies(monkeypatch):
    monkeypatch.setattr(arithmetic, "GROUP_BITS", 2)
    stats = quantized().stats
    groups = [brute_entropies(Z[..., i : i + 2], 0.1) for i in (0, 2, 4)]
    each, of_mean = map(sum, zip(*groups, strict=True))
    assert_allclose(stats["entropy_each"], each, rtol=1e-5)
    assert_allclose(stats["entropy_of_mean"], of_mean, rtol=1e-5)
    # By bits a latent's own entropy is the same; that of the mean is no lower.
    whole = brute_entropies(Z, 0.1)
    assert_allclose(each, whole[0], rtol=1e-9)
    assert of_mean > whole[1]


def test_a_large_codebook_is_two_groups_of_nine_bits():
    module, z = LFQ(2**18), jax.ShapeDtypeStruct((4, 16, 16, 18), "float32")
    seen = str(jax.make_jaxpr(lambda z: module.apply({}, z, train=True).loss)(z))
    assert "f32[1024,512]" in seen
    assert "262144" not in seen


def test_the_gradient_passes_the_signs():
    probe = jax.random.normal(jax.random.key(1), Z.shape)
    pull = jax.grad(lambda z: jnp.vdot(quantized(z).z, probe))(Z)
    assert_array_equal(pull, probe)


def test_zeros_have_a_finite_gradient():
    pull = jax.grad(lambda z: quantized(z).loss)(jnp.zeros_like(Z))
    assert jnp.isfinite(pull).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"codebook_size": 1000},
            "=1000 is no power of two.* take 512 or 1024",
        ),
        ({"codebook_size": 1}, "codebook_size=1 is no power of two.* take 2 or 4"),
        (
            {"codebook_size": 64, "dim": 8},
            "has 6 bits, and dim=8 .*codebook_size=256",
        ),
        ({"codebook_size": 2**31}, r"would take 24.0 GiB .* allowed are 16"),
        ({"codebook_size": 64.0}, "LFQ has codebook_size=64.0; allowed: a whole numb"),
        ({"codebook_size": 64, "dim": -3}, "LFQ has dim=-3; allowed: a whole number"),
    ],
)
def test_sizes_that_are_no_bits_are_refused(fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        LFQ(**fields)
    assert "\n" not in str(caught.value)
