"""Positions of one grid on another: what lies between is between."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax.models.positions import at_grid, part_of_grid, resized, rotation
from taming_jax.models.transformer import Transformer
from taming_jax.orders import make_order

MODEL = Transformer(
    vocab_size=19, length=16, width=32, layers=1, heads=2, grid=(4, 4), rotary=True
)
# A vector for each place that says where it is: (row, column), from the middle.
ROWS, COLUMNS = np.divmod(np.arange(16), 4)
PLACES = np.stack([ROWS, COLUMNS], axis=1) - 1.5


def test_vectors_between_places_are_between_theirs():
    """A plane stays one, but for its rim, where there is nothing to go on by."""
    table = np.asarray(resized(PLACES, (4, 4), (8, 8))).reshape(8, 8, 2)
    rows, columns = np.mgrid[:8, :8]
    expected = np.stack([rows, columns], axis=-1) / 2 + 0.25 - 2
    assert_allclose(table[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-6)


def test_vectors_are_found_in_both_orders():
    old, new = make_order("spiral_in", (4, 4)), make_order("z_curve", (8, 8))
    shuffled = resized(PLACES[old], (4, 4), (8, 8), old, new)
    assert_array_equal(shuffled, resized(PLACES, (4, 4), (8, 8))[new])


def test_a_vector_that_was_never_learned_is_its_neighbours():
    assert_array_equal(resized(PLACES[:15], (4, 4), (4, 4))[-1], PLACES[14])


def test_angles_stretch_over_the_larger_grid():
    """Place (2r, 2c) of twice the grid turns as (r, c) did."""
    params = jax.eval_shape(MODEL.init, jax.random.key(0), jnp.zeros((1, 2), int))
    larger, _ = at_grid(MODEL.clone(learned_positions=False), params["params"], (8, 8))
    small = rotation(MODEL, 1 + 4 * ROWS + COLUMNS)
    large = rotation(larger, 1 + 8 * 2 * ROWS + 2 * COLUMNS)
    assert_allclose(large.cos, small.cos, atol=1e-6)
    assert_allclose(large.sin, small.sin, atol=1e-6)


@pytest.mark.parametrize("targets", [False, True])
def test_a_model_for_another_grid_takes_its_tokens(targets):
    model = MODEL.clone(target_positions=targets, length=16 + targets)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 2), int))["params"]
    larger, grown = at_grid(model, params, (6, 5))
    wanted = jax.eval_shape(larger.init, jax.random.key(0), jnp.zeros((1, 2), int))
    assert jax.tree.map(jnp.shape, grown) == jax.tree.map(jnp.shape, wanted["params"])
    tokens = jnp.zeros((1, 30), int)
    assert jax.jit(larger.apply)({"params": grown}, tokens).shape == (1, 30, 19)


def test_places_beyond_the_grid_are_left_behind():
    """As in the original's, which may have more of them than their grid takes."""
    positions = np.random.default_rng(0).normal(size=(40, 32))
    for change, grid in ((at_grid, (6, 5)), (part_of_grid, (3, 2))):
        model, params = MODEL.clone(length=17), {"positions": positions[:17]}
        expected, known = change(model, params, grid)
        found, params = change(model.clone(length=40), {"positions": positions}, grid)
        assert_array_equal(params["positions"], known["positions"])
        assert found.length == expected.length == len(params["positions"])


def test_a_model_that_does_not_know_its_grid_is_refused():
    model = Transformer(vocab_size=19, length=16, width=32, layers=1, heads=2)
    with pytest.raises(ValueError, match=r"does not know the grid .* give grid="):
        at_grid(model, {}, (8, 8))
