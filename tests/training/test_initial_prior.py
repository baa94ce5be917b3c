"""A prior that begins with another's weights, for the same classes and for others."""

import jax
import numpy as np
import pytest
import tiny_run
from numpy.testing import assert_allclose, assert_array_equal

from taming_jax import stored
from taming_jax.conditions import Vocabulary
from taming_jax.models.positions import at_grid
from taming_jax.orders import make_order
from taming_jax.training.initial import check_start, start_from
from taming_jax.training.prior import make_init, make_transformer
from taming_jax.training.recipe import PriorRecipe

CODES, CLASSES = tiny_run.CODEBOOK_SIZE, 10


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A run's directory, and the parameters of its prior."""
    run = tiny_run.write_run(tmp_path_factory.mktemp("run"))
    tiny_run.write_prior(run)
    return run, stored.read(run, "prior").variables["params"]


def state(classes, grid=(4, 4), order="raster", **changes):
    section = {**tiny_run.PRIOR}
    recipe = PriorRecipe.from_config(section | {"model": section["model"] | changes})
    vocabulary = Vocabulary(CODES, classes)
    model = make_transformer(recipe.model, vocabulary, grid, order)
    return jax.jit(make_init(recipe, model))(jax.random.key(9))


def test_weights_are_the_other_priors(other):
    run, params = other
    ours = start_from(str(run), state(CLASSES), "prior")
    jax.tree.map(assert_array_equal, ours.params, params)
    jax.tree.map(assert_array_equal, ours.ema, params)


@pytest.mark.parametrize("classes", [0, 3, 10, 12])
def test_other_classes_begin_with_the_first_ones_and_no_class(other, classes):
    run, params = other
    ours = start_from(str(run), state(classes), "prior").params
    for theirs, here in (
        (params["embedding"], ours["embedding"]),
        (params["head"]["kernel"].T, ours["head"]["kernel"].T),
    ):
        kept, nothing = min(classes, CLASSES), theirs[-1]
        assert_array_equal(here[: CODES + kept], theirs[: CODES + kept])
        assert_array_equal(
            here[CODES + kept :], np.tile(nothing, (1 + classes - kept, 1))
        )


@pytest.mark.parametrize("order", ["raster", "spiral_in"])
def test_positions_of_another_grid_lie_between_those_that_were_learned(other, order):
    """As `load_prior(..., grid=)` has them: token i of the new order at its place."""
    run, params = other
    settings = {"grid": (6, 6), "order": order}
    begun = state(CLASSES, (6, 6), order)
    ours = start_from(str(run), begun, "prior", settings).params
    recipe = PriorRecipe.from_config(tiny_run.PRIOR)
    model = make_transformer(recipe.model, Vocabulary(CODES, CLASSES), (4, 4))
    _, expected = at_grid(model, params, (6, 6), make_order(order, (6, 6)))
    assert_array_equal(ours["positions"], expected["positions"])
    assert_array_equal(ours["positions"][0], params["positions"][0])  # of the class
    assert_array_equal(ours["embedding"], params["embedding"])


def test_in_another_order_each_place_keeps_its_position(other):
    """But for the last code of the old order, which was never shown."""
    run, params = other
    settings = {"grid": (4, 4), "order": "spiral_in"}
    begun = state(CLASSES, order="spiral_in")
    ours = start_from(str(run), begun, "prior", settings).params["positions"]
    places = make_order("spiral_in", (4, 4))[:-1]
    known = places < 15
    assert_allclose(ours[1:][known], params["positions"][1 + places[known]], rtol=1e-6)


def test_another_model_is_refused(other):
    run, _ = other
    with pytest.raises(ValueError, match=r"is another model: .* parameters differ"):
        check_start(str(run), state(CLASSES, width=8).params, "prior")
