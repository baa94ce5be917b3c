import pytest
from ml_collections import ConfigDict
from tiny_stage import SECTION

from taming_jax.training.loss_weights import NEVER
from taming_jax.training.recipe import Mesh, VQGANRecipe, mesh_from_config
from taming_jax.training.sections import plain


def recipe(**changes):
    return VQGANRecipe.from_config(SECTION | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ema_decy": 0.9}, "unknown key 'ema_decy'.*did you mean 'ema_decay'"),
        ({"zzz": 1}, "unknown key 'zzz'.*known: .*adversarial_weight"),
        ({"optimizer": {"clp": 1.0}}, "unknown key 'clp'.*did you mean 'clip'"),
        ({"steps": 0}, "steps=0 is not allowed: it must be at least 1"),
        ({"batch_size": 0}, "batch_size=0 is not allowed: it must be at least 1"),
        ({"log_every": 0}, "log_every=0 is not allowed"),
        ({"checkpoint_every": -1}, "checkpoint_every=-1 is not allowed"),
        ({"ema_decay": 1.0}, r"ema_decay=1.0 is not allowed: it must be in \[0, 1\)"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 is not allowed.*above 0"),
        ({"l1_weight": -1.0}, "l1_weight=-1.0 is not allowed.*at least 0"),
        ({"adversarial_loss": "hing"}, "='hing'.*hinge, vanilla, non_saturating"),
        ({"on_nonfinite": "panic"}, "on_nonfinite='panic'.*one of stop, skip"),
        ({"optimizer": {"schedule": "cos"}}, "schedule='cos'.*constant, cosine"),
        ({"accumulate": 3}, "batch_size=4 is not allowed.*multiple of accumulate=3"),
        ({"alternating": True, "accumulate": 2}, "accumulate=2, set it to 1"),
        ({"lecam_weight": -0.1}, "lecam_weight=-0.1 is not allowed.*at least 0"),
        ({"lecam_decay": 1.0}, r"lecam_decay=1.0 is not allowed.*in \[0, 1\)"),
        ({"r1_weight": -1.0}, "r1_weight=-1.0 is not allowed.*at least 0"),
        ({"r1_every": 0}, "r1_every=0 is not allowed.*whole number of steps"),
        ({"r1_every": 2.5}, "r1_every=2.5 is not allowed.*whole number of steps"),
        (
            {"lecam_weight": 0.1, "adversarial_weight": 0.0},
            "lecam_weight=0.1 is about a discriminator, and adversarial_weight=0",
        ),
        (
            {"r1_weight": 1.0, "adversarial_weight": 0.0},
            "r1_weight=1.0 is about a discriminator, and adversarial_weight=0",
        ),
        (
            {"lecam_weight": 0.1, "alternating": True},
            "lecam_weight=0.1 with alternating=True.*set one of them to 0, or False",
        ),
        ({"r1_weight": 1.0, "alternating": True}, "r1_weight=1.0 with alternating"),
        (
            {"r1_weight": 1.0, "discriminator": {"norm": "batch"}},
            "r1_weight=1.0 with discriminator.norm='batch'.*norm='none'",
        ),
        (
            {"r1_weight": 1.0, "discriminator": {}},
            "r1_weight=1.0 with discriminator.norm='batch'.*or r1_weight=0",
        ),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as refusal:
        recipe(**changes)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("key", ["model", "learning_rate", "steps", "batch_size"])
def test_a_missing_key_is_named(key):
    section = {name: value for name, value in SECTION.items() if name != key}
    with pytest.raises(ValueError, match=f"{key} is missing, set it"):
        VQGANRecipe.from_config(section)


@pytest.mark.parametrize(("start", "step"), [(7, 7), (0, 0), (0.25, 25), (12.0, 12)])
def test_a_start_is_a_step_or_a_share_of_the_run(start, step):
    assert recipe(disc_start=start, steps=100).loss.disc_start == step


def test_adversary_counts_as_soon_as_it_learns_unless_told():
    assert recipe(disc_start=5, adversarial_start=None).loss.adversarial_start == 5


@pytest.mark.parametrize(("given", "counts"), [(None, 105), (7, 7)])
def test_after_init_from_the_discriminator_learns_before_it_counts(given, counts):
    starts = {"disc_start": 5, "adversarial_start": given, "disc_warmup": 100}
    assert recipe(init_from="W", **starts).loss.adversarial_start == counts


def test_a_model_that_brings_a_codebook_does_not_wait_for_one():
    model = {"quantizer": {"codebook_size": 8, "dim": 2, "start_step": 500}}
    begun = recipe(model=model, init_from="W").model["quantizer"]
    assert begun == {"codebook_size": 8, "dim": 2, "start_step": 0}
    assert recipe(model=model).model == model


def test_codes_are_never_frozen_unless_told():
    assert recipe(decoder_only_start=None).loss.decoder_only_start == NEVER


def test_both_players_learn_alike_unless_told():
    alike = recipe()
    assert alike.disc_optimizer == alike.optimizer


def test_discriminator_may_have_a_rate_of_its_own():
    assert recipe(disc_learning_rate=0.5).disc_optimizer.learning_rate == 0.5


def test_a_card_becomes_plain_values():
    card = ConfigDict({"a": {"b": (1, 2)}, "c": None})
    assert plain(card) == {"a": {"b": [1, 2]}, "c": None}


def test_mesh_comes_from_its_section():
    assert mesh_from_config({"fsdp": 2}) == Mesh(data=-1, fsdp=2, tensor=1)


def test_an_axis_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"unknown key 'fdsp'.*did you mean 'fsdp'"):
        mesh_from_config({"fdsp": 2})
