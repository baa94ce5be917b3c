from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models.quantizers import SimVQ

KEY = jax.random.key(0)
Z = 1.5 * jax.random.normal(jax.random.key(1), (2, 6, 6, 5)) + 0.3
MODULE = SimVQ(40, 5)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(partial(MODULE.init, train=True))(KEY, Z)


def codebook(variables):
    """E W + b, in float64."""
    basis = np.float64(variables["codebook"]["basis"])
    return basis @ np.float64(variables["params"]["kernel"]) + np.float64(
        variables["params"]["bias"]
    )


def test_the_basis_is_drawn_with_variance_one_over_dim():
    basis = SimVQ(4000, 10).init(KEY, Z[..., :1].repeat(10, -1), train=True)
    deviation = np.std(basis["codebook"]["basis"])
    # Of 40,000 numbers: four standard deviations of their standard deviation.
    assert_allclose(deviation, 10**-0.5, rtol=4 / np.sqrt(2 * 40_000))


def test_codes_are_the_nearest_in_the_projected_basis(variables):
    distances = np.square(np.float64(Z)[..., None, :] - codebook(variables)).sum(-1)
    quantized = MODULE.apply(variables, Z, train=False)
    assert_array_equal(quantized.codes, distances.argmin(-1))


def test_codes_are_looked_up_through_the_same_projection(variables):
    vectors = MODULE.apply(variables, jnp.arange(40), method="lookup")
    assert_allclose(vectors, codebook(variables), rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_loss_by_projection_and_bias_alone(variables):
    def loss(params):
        return MODULE.apply({**variables, "params": params}, Z, train=True).loss

    quantized = MODULE.apply(variables, Z, train=True)
    pulls = jax.grad(loss)(variables["params"])
    assert pulls.keys() == {"kernel", "bias"}
    basis = np.float64(variables["codebook"]["basis"])[quantized.codes.ravel()]
    apart = (codebook(variables)[quantized.codes] - Z).reshape(-1, 5)
    by_q = 2 * apart / apart.size
    assert_allclose(pulls["kernel"], basis.T @ by_q, rtol=1e-4, atol=1e-6)
    assert_allclose(pulls["bias"], by_q.sum(0), rtol=1e-4, atol=1e-6)


def test_a_step_moves_codes_that_were_not_drawn(variables):
    def loss(params):
        return MODULE.apply(
            {**variables, "params": params}, Z[:1, :1, :1], train=True
        ).loss

    pulls = jax.grad(loss)(variables["params"])
    params = jax.tree.map(jnp.subtract, variables["params"], pulls)
    moved = codebook({**variables, "params": params}) != codebook(variables)
    assert moved.any(-1).all()


def test_the_basis_stays_as_it_is(variables):
    apply = partial(MODULE.apply, train=True, mutable=["codebook"])
    _, state = apply(variables, Z)
    given = variables["params"], state["codebook"]
    _, after = MODULE.after_update(*given, Z, step=3, key=KEY)
    assert_array_equal(after["basis"], variables["codebook"]["basis"])


def test_quantization_begins_with_codes_spread_as_the_latents_are():
    module = SimVQ(20_000, 5, start_step=10)
    mixed = Z @ jax.random.normal(KEY, (5, 5))
    variables = jax.jit(partial(module.init, train=True))(KEY, Z)
    given = variables["params"], variables["codebook"]
    params, _ = module.after_update(*given, mixed, step=9, key=KEY)
    codes, latents = codebook({**variables, "params": params}), mixed.reshape(-1, 5)
    # Of 20,000 draws: moments within some percent.
    scale = np.std(latents)
    assert_allclose(codes.mean(0), latents.mean(0), rtol=0, atol=0.05 * scale)
    assert_allclose(np.cov(codes.T), np.cov(latents.T), rtol=0, atol=0.1 * scale**2)


@pytest.mark.parametrize("step", [8, 10])
def test_at_other_steps_the_projection_is_the_optimizers(variables, step):
    module = SimVQ(40, 5, start_step=10)
    given = variables["params"], variables["codebook"]
    params, _ = module.after_update(*given, Z, step=step, key=KEY)
    jax.tree.map(assert_array_equal, params, variables["params"])


def test_rows_cannot_be_revived():
    with pytest.raises(ValueError, match=r"SimVQ has revive_every=5, .*no rows that"):
        SimVQ(8, 4, revive_every=5)
