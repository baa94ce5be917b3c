import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models.gradients import (
    GRADIENTS,
    rotated,
    straight_through,
    unit_length,
)
from taming_jax.models.quantizers import EMA, L2, VQ, Online, SimVQ

Z = jax.random.normal(jax.random.key(0), (3, 4, 5))
Q = jax.random.normal(jax.random.key(1), (3, 4, 5))
PROBE = jax.random.normal(jax.random.key(2), (3, 4, 5))


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_value_is_blended(name, share):
    value = GRADIENTS[name](Z, Q, share)
    assert_allclose(value, Z + share * (Q - Z), rtol=0, atol=1e-6)


def test_the_straight_through_gradient_is_that_of_the_latents():
    _, pull = jax.vjp(lambda z: straight_through(z, Q, 1.0), Z)
    assert_array_equal(pull(PROBE)[0], PROBE)


def reflection(direction):
    """Householder's matrix, which turns the direction round."""
    direction = direction / np.linalg.norm(direction)
    return np.eye(len(direction)) - 2 * np.outer(direction, direction)


def test_the_gradient_is_turned_as_the_latent_is_to_its_code():
    """Two reflections: z's direction to -q's by that along their sum, then to q's."""
    _, pull = jax.vjp(lambda z: rotated(z, Q, 1.0), Z)
    (ours,) = pull(PROBE)
    for z, q, g, gradient in zip(
        *(np.float64(x).reshape(-1, 5) for x in (Z, Q, PROBE, ours)), strict=True
    ):
        u, v = z / np.linalg.norm(z), q / np.linalg.norm(q)
        matrix = reflection(v) @ reflection(u + v)
        assert_allclose(matrix @ u, v, rtol=0, atol=1e-12)
        scaled = np.linalg.norm(q) / np.linalg.norm(z) * matrix
        assert_allclose(scaled @ z, q, rtol=0, atol=1e-12)
        assert_allclose(gradient, scaled.T @ g, rtol=1e-4, atol=1e-5)


def test_lengths_and_angles_between_gradient_and_vector_are_kept():
    _, pull = jax.vjp(lambda z: rotated(z, Q, 1.0), Z)
    (ours,) = pull(PROBE)
    norm = jnp.linalg.norm
    cosines = jnp.sum(ours * Z, -1) / norm(ours, axis=-1) / norm(Z, axis=-1)
    expected = jnp.sum(PROBE * Q, -1) / norm(PROBE, axis=-1) / norm(Q, axis=-1)
    assert_allclose(cosines, expected, rtol=0, atol=1e-5)
    stretch = norm(Q, axis=-1) / norm(Z, axis=-1)
    assert_allclose(norm(ours, axis=-1), stretch * norm(PROBE, axis=-1), rtol=1e-5)


@pytest.mark.parametrize("z", [0.0, 1e-30, -1.0], ids=["zero", "nothing", "opposite"])
def test_where_no_rotation_is_defined_value_and_gradient_hold(z):
    q = jnp.full((1, 5), 1.0)
    value, pull = jax.vjp(lambda z: rotated(z, q, 1.0), jnp.full((1, 5), z))
    assert_allclose(value, q, rtol=1e-6)
    (gradient,) = pull(q)
    assert jnp.isfinite(gradient).all()
    assert jnp.abs(gradient).max() < 10


def test_no_gradient_reaches_the_code():
    for past in (straight_through, rotated):
        pull = jax.grad(lambda q: jnp.vdot(past(Z, q, 1.0), PROBE))(Q)  # noqa: B023
        assert_array_equal(pull, np.zeros_like(Q))


@pytest.mark.parametrize("quantizer", [VQ, L2, EMA, Online, SimVQ])
def test_quantizers_by_distance_pass_gradients_in_either_way(quantizer):
    z = Z[None]

    def gradient(way):
        module = quantizer(16, 5, gradient=way, beta=0.0)
        variables = module.init(jax.random.key(3), z, train=False)
        value, pull = jax.vjp(lambda z: module.apply(variables, z, train=True).z, z)
        return value, pull(PROBE[None])[0]

    (value, straight), (same, turned) = map(gradient, ("straight_through", "rotation"))
    assert_allclose(same, value, rtol=0, atol=1e-6)
    assert not np.allclose(straight, turned)


def test_another_way_is_refused():
    with pytest.raises(ValueError, match=r"VQ has no gradient 'rotate'.*'rotation'"):
        VQ(8, 4, gradient="rotate")


def test_unit_length_of_zero_is_zero_with_a_finite_gradient():
    value, pull = jax.vjp(unit_length, jnp.zeros(3))
    assert_array_equal(value, np.zeros(3))
    assert jnp.isfinite(pull(jnp.ones(3))[0]).all()
