"""SpectralNorm against singular values, and the discriminator that is made of it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models.discriminator import Discriminator, SpectralNorm

KERNEL = np.random.default_rng(0).standard_normal((4, 4, 3, 8)).astype(np.float32)
SINGULAR = np.linalg.svd(KERNEL.reshape(-1, 8).astype(np.float64), compute_uv=False)


def spectral(rounds, kernel):
    """SpectralNorm after so many training passes: (its result, its variables)."""
    norm = SpectralNorm()
    variables = norm.init(jax.random.key(0), kernel, train=False)
    pass_ = jax.jit(partial(norm.apply, train=True, mutable=["batch_stats"]))
    for _ in range(rounds):
        y, variables = pass_(variables, kernel)
    return y, variables


def test_a_kernels_norm_becomes_one_as_its_largest_singular_value_is_found():
    y, variables = spectral(60, KERNEL)
    # What is left of the others after r rounds is (s2 / s1)^4r of the error.
    assert (SINGULAR[1] / SINGULAR[0]) ** 240 < 1e-6
    assert_allclose(y, KERNEL / SINGULAR[0], rtol=1e-5)
    evaluated = SpectralNorm().apply(variables, KERNEL, train=False)
    assert_allclose(evaluated, y, rtol=1e-5)


def test_one_training_pass_is_one_round_of_power_iteration():
    w, u = KERNEL.reshape(-1, 8).T.astype(np.float64), np.full(8, 8**-0.5)
    y, variables = spectral(1, KERNEL)
    v = w.T @ u / np.linalg.norm(w.T @ u)
    u = w @ v / np.linalg.norm(w @ v)
    assert_allclose(variables["batch_stats"]["u"], u, rtol=1e-5)
    assert_allclose(y, KERNEL / (u @ w @ v), rtol=1e-5)


def test_a_divided_kernel_has_no_gradient_along_itself():
    """Its length makes no difference any more."""
    _, variables = spectral(5, KERNEL)
    cotangent = np.random.default_rng(1).standard_normal(KERNEL.shape)

    def look(kernel):
        return (SpectralNorm().apply(variables, kernel, train=False) * cotangent).sum()

    gradient = jax.grad(look)(KERNEL)
    scale = np.linalg.norm(gradient) * np.linalg.norm(KERNEL)
    assert_allclose((gradient * KERNEL).sum() / scale, 0, atol=1e-6)


def test_with_spectral_norm_every_kernel_is_divided_and_bfloat16_divides_in_float32():
    net = Discriminator(channels=4, layers=1, spectral_norm=True, dtype=jnp.bfloat16)
    x = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    variables = net.init(jax.random.key(1), x, train=True)
    stats = flatten_dict(variables["batch_stats"], sep="/")
    vectors = {name: u.dtype for name, u in stats.items() if name.endswith("u")}
    kept = {f"conv_{n}/spectral_norm/u": jnp.float32 for n in range(3)}
    assert vectors == kept
    longer = jax.tree.map(lambda p: p, variables)
    for layer in ("conv_0", "conv_1", "conv_2"):
        kernel = variables["params"][layer]["kernel"]
        longer["params"][layer] |= {"kernel": 4 * kernel}  # exact in float32
    look = partial(net.apply, train=False)
    assert_array_equal(look(longer, x), look(variables, x))
