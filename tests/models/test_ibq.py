"""Index backpropagation against the same with all odds of all latents in memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models.quantizers import IBQ

Z = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
TABLE = jax.random.normal(jax.random.key(1), (30, 5))
PROBE = jax.random.normal(jax.random.key(2), Z.shape)
MODULE = IBQ(30, 5, beta=0.3, entropy_weight=0.2, entropy_temperature=0.5)


def ours(z, table):
    variables = {"params": {"embedding": table}}
    quantized = MODULE.apply(variables, z, train=True)
    return quantized.loss + jnp.vdot(quantized.z, PROBE)


def dense(z, table):
    """The paper's equations, with one-hot vectors over all codes."""
    still = jax.lax.stop_gradient
    logits = jnp.einsum("bhwd,kd->bhwk", z, table)
    p = jax.nn.softmax(logits)
    hard = jax.nn.one_hot(jnp.argmax(logits, -1), 30)
    q = jnp.einsum("bhwk,kd->bhwd", hard - still(p) + p, table)
    q_hard = jnp.einsum("bhwk,kd->bhwd", hard, table)
    loss = jnp.mean((z - q) ** 2) + jnp.mean((z - still(q_hard)) ** 2)
    loss += 0.3 * jnp.mean((still(z) - q_hard) ** 2)
    odds = jax.nn.softmax(logits / 0.5).reshape(-1, 30)
    each = -jnp.sum(odds * jnp.log(odds), -1).mean()
    of_mean = -jnp.sum(odds.mean(0) * jnp.log(odds.mean(0)))
    return loss + 0.2 * (each - of_mean) + jnp.vdot(q, PROBE)


def test_value_and_gradients_are_those_of_the_dense_form():
    (value, pulls), (expected, dense_pulls) = (
        jax.jit(jax.value_and_grad(function, (0, 1)))(Z, TABLE)
        for function in (ours, dense)
    )
    assert_allclose(value, expected, rtol=1e-5)
    for one, other in zip(pulls, dense_pulls, strict=True):
        assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_every_code_learns_from_every_latent():
    z = Z[:1, :1, :1]

    def decoded(table):
        return MODULE.apply({"params": {"embedding": table}}, z, train=True).z.sum()

    assert (jax.grad(decoded)(TABLE) != 0).all()


def test_codes_have_the_highest_product_not_the_smallest_distance():
    table = jnp.array([[1.0, 0.0], [10.0, 0.0]])
    variables = {"params": {"embedding": table}}
    codes = IBQ(2, 2).apply(variables, jnp.array([[[[1.0, 0.0]]]]), train=False).codes
    assert_array_equal(codes, [[[1]]])


@pytest.mark.parametrize(("step", "share"), [(9, 0.0), (11, 0.5), (13, 1.0)])
def test_quantization_is_blended_in(step, share):
    module = IBQ(30, 5, start_step=10, blend_steps=4)
    apply = partial(module.apply, {"params": {"embedding": TABLE}}, Z, train=True)
    blended, whole = apply(step=step), apply(step=None)
    assert_allclose(blended.z, Z + share * (whole.z - Z), rtol=0, atol=1e-5)
    assert (blended.loss != 0) == (share > 0)


def test_zeros_and_equal_codes_have_finite_gradients():
    pulls = jax.grad(ours, (0, 1))(jnp.zeros_like(Z), jnp.zeros_like(TABLE))
    assert all(np.isfinite(pull).all() for pull in pulls)


def test_a_soft_start_leaves_the_table_as_it_is():
    """Were it latents, which have a mean, the longest would take all the others."""
    module = IBQ(30, 5, start_step=10)
    given = {"embedding": TABLE}, {"usage": jnp.zeros(30)}
    params, _ = module.after_update(*given, Z, step=9, key=jax.random.key(0))
    assert_array_equal(params["embedding"], TABLE)
