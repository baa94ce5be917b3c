import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.training.accumulation import accumulate

X = jnp.arange(12.0).reshape(6, 2)


def parts(carry, x, part):
    return carry + x.sum(), {"mean": x.mean(), "part": part * 1.0}, x * 10


def test_the_carry_goes_from_part_to_part():
    carry, _, _ = accumulate(parts, jnp.float32(100), X, 3)
    assert carry == 100 + X.sum()


def test_means_over_parts_are_those_of_the_whole():
    _, means, _ = accumulate(parts, jnp.float32(0), X, 3)
    assert_allclose(means["mean"], X.mean(), rtol=1e-6)


def test_every_part_knows_its_number():
    _, means, _ = accumulate(parts, jnp.float32(0), X, 3)
    assert means["part"] == np.mean([0, 1, 2])


def test_samples_are_in_the_batch_s_order():
    _, _, samples = accumulate(parts, jnp.float32(0), X, 3)
    assert_array_equal(samples, X * 10)


def test_neighbours_go_to_different_parts():
    """So that a device, which holds a run of neighbours, works on every part."""
    _, _, seen_by = accumulate(lambda c, x, part: (c, (), x[:, 0] * 0 + part), (), X, 3)
    assert_array_equal(seen_by, [0, 1, 2, 0, 1, 2])


def test_a_batch_may_be_a_tree():
    _, _, samples = accumulate(
        lambda carry, batch, part: (carry, (), batch["a"] + batch["b"]),
        (), {"a": X, "b": -X}, 3,
    )  # fmt: skip
    assert_array_equal(samples, jnp.zeros_like(X))
