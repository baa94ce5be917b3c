"""config.prior: in which order codes are read, and what does not go together."""

import pytest
import tiny_run

from taming_jax.conditions import Vocabulary
from taming_jax.training.prior import make_transformer, make_vocabulary
from taming_jax.training.recipe import PriorRecipe

VOCABULARY = Vocabulary(codes=16, classes=10)


def recipe(model=(), **changes):
    section = {**tiny_run.PRIOR, **changes}
    return PriorRecipe.from_config(section | {"model": section["model"] | dict(model)})


def transformer(**changes):
    made = recipe(**changes)
    return make_transformer(made.model, VOCABULARY, (4, 4), made.order)


def test_rows_are_the_order_that_needs_no_saying():
    assert transformer().order is None
    assert transformer(order=list(range(16))).order is None


@pytest.mark.parametrize("order", ["z_curve", list(range(16))[::-1]])
def test_an_order_is_a_name_or_the_places(order):
    assert sorted(transformer(order=order).order) == list(range(16))


def test_a_model_for_random_orders_has_a_place_for_the_last_token():
    assert transformer().length == 16
    assert transformer(model={"target_positions": True}).length == 17


def test_random_orders_end_at_shares_of_the_run_or_at_steps():
    shares = recipe(model={"target_positions": True}, random_order=1.0, steps=400)
    assert shares.random_order_steps == (200, 300)
    steps = {"random_order_start": 7, "random_order_end": 9}
    assert recipe(**steps).random_order_steps == (7, 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": "spirals"}, "no order 'spirals'; did you mean 'spiral_"),
        ({"order": list(range(9))}, "9 places does not fit a grid of 4 x 4"),
        ({"random_order": 1.0}, r"set model\.target_positions=True"),
        ({"random_order": 2.0}, r"random_order=2\.0 is not allowed: .* in \[0, 1\]"),
        ({"sampling": {"guidance_schedule": "steep"}}, "'steep': there are constant"),
        ({"random_order_end": 0.25}, "not before random_order_start=0.5"),
        ({"model": {"kv_heads": 3}}, "heads=2 do not share kv_heads=3 evenly"),
        ({"model": {"vocab_size": 20}}, "vocab_size=20 .* 16 codes, .* 27 tokens"),
        ({"model": {"head_size": 12}}, "logits of 12 tokens; .* 16 codes"),
    ],
)
def test_what_does_not_go_together_is_said(change, message):
    with pytest.raises(ValueError, match=message):
        transformer(**change)


def test_tokens_that_are_given_cannot_be_learned_from():
    told = recipe(condition="tokens", label_dropout=0.0, sampling={})
    with pytest.raises(ValueError, match="'tokens' is told by whoever draws"):
        make_vocabulary(told, 16, ["disc"])
