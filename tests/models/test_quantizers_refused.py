"""Quantizers that cannot be, refused where they are made.

What belongs to one of them alone is in its own file.
"""

import dataclasses

import pytest

from taming_jax.models.quantizer_fields import ALLOWED
from taming_jax.models.quantizers import (
    EMA,
    IBQ,
    L2,
    LFQ,
    QUANTIZERS,
    VQ,
    Gumbel,
    Online,
    SimVQ,
)

SIZE = {"codebook_size": 16, "dim": 4}
NUMBER, STEPS = "a number, 0 or more", "a whole number of steps, 0 or more"
ABOVE, DECAY = "a number above 0", r"a number in \[0, 1\)"


def refused(quantizer, fields):
    """What it says, in one line."""
    with pytest.raises(ValueError, match=rf"^{quantizer.__name__}\b") as caught:
        quantizer(**SIZE | fields)
    assert "\n" not in str(caught.value)
    return caught


@pytest.mark.parametrize(
    ("quantizer", "name", "given", "allowed"),
    [
        (VQ, "codebook_size", 0, "a whole number, 1 or more"),
        (VQ, "codebook_size", "8", "a whole number"),
        (VQ, "codebook_size", True, "a whole number"),
        (VQ, "dim", 0, "a whole number, 1 or more"),
        (VQ, "dim", 4.0, "a whole number"),
        (VQ, "start_step", -1, STEPS),
        (VQ, "start_step", 0.1, STEPS),
        (IBQ, "blend_steps", -1, STEPS),
        (SimVQ, "blend_steps", 0.5, STEPS),
        (EMA, "revive_every", -5, STEPS),
        (EMA, "revive_until", 99.5, STEPS),
        (VQ, "beta", -1, NUMBER),
        (LFQ, "beta", float("nan"), NUMBER),
        (Gumbel, "kl_weight", -1, NUMBER),
        (EMA, "entropy_weight", -1.0, NUMBER),
        (IBQ, "entropy_weight", "0.1", NUMBER),
        (LFQ, "entropy_temperature", 0.0, ABOVE),
        (EMA, "decay", 1.5, DECAY),
        (Online, "decay", 1.0, DECAY),
        (EMA, "epsilon", -1, ABOVE),
        (VQ, "legacy", "no", "True or False"),
        (Gumbel, "straight_through", 0, "True or False"),
        (Gumbel, "temperature", 0.5, "three numbers above 0"),
        (Gumbel, "temperature", (1.0, 0.1), "three numbers above 0"),
        (Gumbel, "temperature_steps", 1000, "two whole numbers of steps"),
        (Gumbel, "temperature_steps", (0, 5, 9), "two whole numbers of steps"),
        (Gumbel, "temperature_steps", (9, 5), "not before that"),
        (VQ, "perturb_probability", 1.5, r"a number in \[0, 1\]"),
        (VQ, "perturb_share", 0.0, r"a number in \(0, 1\]"),
        (VQ, "perturb_neighbours", 0, "a whole number, 1 or more"),
        (VQ, "perturb_steps", -1, STEPS),
    ],
)
def test_a_field_says_what_it_was_given_and_what_it_may_be(
    quantizer, name, given, allowed
):
    caught = refused(quantizer, {name: given})
    assert caught.match(rf" has {name}=.*; allowed: .*{allowed}")
    assert f"{name}={given!r}; allowed" in str(caught.value)


@pytest.mark.parametrize(
    ("quantizer", "fields", "message"),
    [
        (
            VQ,
            {"codebook_size": 2**22, "dim": 256},
            r"VQ's 4194304 codes of dim=256 would take 20.0 GiB .*allowed are 16: take",
        ),
        (
            Gumbel,
            {"codebook_size": 2**18, "dim": 8},
            r"codebook_size=262144 needs .* 8 GiB for 8192 .* 32768 at most.*'ibq'",
        ),
        (L2, {"normalize": False}, "L2 has normalize=Fal"),
        (
            Gumbel,
            {"gradient": "rotation"},
            "Gumbel has no field 'gradient'",
        ),
        (
            EMA,
            {"revive_every": 50},
            "revive_every=50, start_step=0 and revive_until=0, and would never revive "
            "a code: raise revive_until to 50 or more, or leave revive_every out",
        ),
        (
            VQ,
            {"start_step": 100, "revive_every": 10, "revive_until": 50},
            "never revive a code: raise revive_until to 110 or more",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(quantizer, fields, message):
    assert refused(quantizer, fields).match(message)


def test_one_revival_is_enough():
    """After the last step below `revive_until`."""
    fields = SIZE | {"start_step": 100, "revive_every": 10, "revive_until": 110}
    is_revived, _ = VQ(**fields).chosen(usage=0.0, step=109)
    assert is_revived


def test_revival_can_be_switched_off_by_one_field():
    VQ(**SIZE, revive_every=0, revive_until=110)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_no_field_is_taken_unseen(name):
    elsewhere = {"name", "parent", "used", "unknown", "levels", "gradient"}
    names = {field.name for field in dataclasses.fields(QUANTIZERS[name])}
    assert names - elsewhere <= ALLOWED.keys()


@pytest.mark.parametrize("name", QUANTIZERS)
def test_what_a_card_may_say_is_accepted(name):
    """Whole numbers where a number may be, lists from a file for tuples."""
    size = {"levels": [4, 4]} if name == "fsq" else SIZE
    fields = {"perturb_probability": 1, "perturb_steps": 0}
    if name == "gumbel":
        fields |= {"temperature": [1, 1, 0.1], "temperature_steps": [0, 9]}
    if name not in ("fsq", "gumbel"):
        fields |= {"beta": 0, "entropy_weight": 1, "entropy_temperature": 1}
    assert QUANTIZERS[name](**size | fields).codebook_size == 16
