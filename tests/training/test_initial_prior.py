"""A prior that begins with another's weights, for the same classes and for others."""

import jax
import numpy as np
import pytest
import tiny_run
from numpy.testing import assert_array_equal

from taming_jax import stored
from taming_jax.conditions import Vocabulary
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


def state(classes, **changes):
    section = {**tiny_run.PRIOR}
    recipe = PriorRecipe.from_config(section | {"model": section["model"] | changes})
    vocabulary = Vocabulary(CODES, classes)
    model = make_transformer(recipe.model, vocabulary, (4, 4))
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


def test_another_model_is_refused(other):
    run, _ = other
    with pytest.raises(ValueError, match=r"is another model: .* parameters differ"):
        check_start(str(run), state(CLASSES, width=8).params, "prior")
