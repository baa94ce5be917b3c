"""Quantizers that cannot be, refused where they are made."""

import pytest

from taming_jax.models.quantizers import EMA, IBQ, L2, VQ, Gumbel


@pytest.mark.parametrize(
    ("quantizer", "fields", "message"),
    [
        (VQ, {"codebook_size": 0, "dim": 4}, "codebook_size=0 and dim=4; .* 1 or more"),
        (VQ, {"codebook_size": 8, "dim": 0}, "codebook_size=8 and dim=0; .* 1 or more"),
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
        (
            L2,
            {"codebook_size": 8, "dim": 4, "normalize": False},
            "L2 has normalize=Fal",
        ),
        (
            EMA,
            {"codebook_size": 8, "dim": 4, "entropy_weight": -1.0},
            "EMA has entropy_weight=-1.0 .*allowed: 0 or more",
        ),
        (
            IBQ,
            {"codebook_size": 8, "dim": 4, "entropy_temperature": 0.0},
            "IBQ has .*entropy_temperature=0.0; allowed: .* above 0",
        ),
        (
            Gumbel,
            {"codebook_size": 8, "dim": 4, "gradient": "rotation"},
            "Gumbel has no field 'gradient'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(quantizer, fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        quantizer(**fields)
    assert "\n" not in str(caught.value)
