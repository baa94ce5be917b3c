"""What a quantizer cannot be, in words: its fields one by one, and some together.

check_fields(quantizer)          each field of any quantizer, when it is constructed
check_revival(quantizer)         of one that revives codes
check_odds(size)                 Gumbel
check_levels(levels, size, dim)  FSQ -> codebook_size, dim
check_bits(size, dim)            LFQ -> dim

All raise ValueError in one line.
"""

import dataclasses
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

# Codes whose odds may exist all at once: 1 GiB for 8,192 latents, and a handful of it.
GUMBEL_LIMIT = 2**15


class Kind(NamedTuple):
    """What a field may be: in words, and whether something is that."""

    allowed: str
    fits: Callable[[Any], bool]


def _is_whole(value) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_number(value) -> bool:
    fits = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return fits and math.isfinite(value)


def _are(values, count: int, fits: Callable[[Any], bool]) -> bool:
    listed = isinstance(values, list | tuple) and len(values) == count
    return listed and all(map(fits, values))


_COUNT = Kind("a whole number, 1 or more", lambda v: _is_whole(v) and v >= 1)
_STEPS = Kind("a whole number of steps, 0 or more", lambda v: _is_whole(v) and v >= 0)
_WEIGHT = Kind("a number, 0 or more", lambda v: _is_number(v) and v >= 0)
_POSITIVE = Kind("a number above 0", lambda v: _is_number(v) and v > 0)
_DECAY = Kind("a number in [0, 1)", lambda v: _is_number(v) and 0 <= v < 1)
_SWITCH = Kind("True or False", lambda v: isinstance(v, bool))
ALLOWED = {
    "codebook_size": _COUNT,
    "dim": _COUNT,
    "start_step": _STEPS,
    "blend_steps": _STEPS,
    "revive_every": _STEPS,
    "revive_until": _STEPS,
    "beta": _WEIGHT,
    "kl_weight": _WEIGHT,
    "entropy_weight": _WEIGHT,
    "entropy_temperature": _POSITIVE,
    "decay": _DECAY,
    "epsilon": _POSITIVE,
    "legacy": _SWITCH,
    "normalize": _SWITCH,
    "straight_through": _SWITCH,
    "temperature": Kind(
        "three numbers above 0, for the first step, the highest and the last (it is "
        "divided by; the original ends at 1e-6)",
        lambda v: _are(v, 3, _POSITIVE.fits),
    ),
    "temperature_steps": Kind(
        "two whole numbers of steps, of the highest temperature and, not before that, "
        "of the last",
        lambda v: _are(v, 2, _STEPS.fits) and v[0] <= v[1],
    ),
    "perturb_probability": Kind(
        "a number in [0, 1]", lambda v: _is_number(v) and 0 <= v <= 1
    ),
    "perturb_share": Kind("a number in (0, 1]", lambda v: _is_number(v) and 0 < v <= 1),
    "perturb_neighbours": _COUNT,
    "perturb_steps": _STEPS,
}


def check_fields(quantizer) -> None:
    """Whatever it has of ALLOWED must be as it says."""
    owner = type(quantizer).__name__
    for field in dataclasses.fields(quantizer):
        if field.name in ALLOWED:
            _check(owner, field.name, getattr(quantizer, field.name))


def check_revival(quantizer) -> None:
    """Codes are revived where that can be done, and once at least before the end."""
    every, until = quantizer.revive_every, quantizer.revive_until
    if not every:
        return
    owner = type(quantizer).__name__
    if quantizer.NO_REVIVAL:
        raise ValueError(
            f"{owner} has revive_every={every}, and {quantizer.NO_REVIVAL}: leave it "
            "out, or take name='vq'"
        )
    first = quantizer.start_step + every
    if until < first:
        raise ValueError(
            f"{owner} has revive_every={every}, start_step={quantizer.start_step} and "
            f"revive_until={until}, and would never revive a code: raise revive_until "
            f"to {first} or more, or leave revive_every out"
        )


def check_odds(size: int) -> None:
    """Gumbel's softmax over all codes must not take too much."""
    if size > GUMBEL_LIMIT:
        raise ValueError(
            f"Gumbel's codebook_size={size} needs odds of all codes for each latent, "
            f"several times {size * 8192 / 2**28:.0f} GiB for 8192 of them; allowed: "
            f"{GUMBEL_LIMIT} at most. name='ibq' has no such limit"
        )


def check_levels(
    levels: Sequence[int], size: int | None, dim: int | None
) -> tuple[int, int]:
    """-> (codebook_size, dim) of FSQ; if one is given it must not be another."""
    listed = isinstance(levels, list | tuple) and len(levels) > 0
    if not listed or any(not _is_whole(n) or n < 2 for n in levels):
        raise ValueError(
            f"FSQ has levels={levels!r}; it takes how many values each dimension "
            "has, integers of 2 or more, such as levels=(8, 5, 5, 5)"
        )
    product = math.prod(levels)
    if size not in (None, product) or dim not in (None, len(levels)):
        raise ValueError(
            f"FSQ's levels={tuple(levels)} are dim={len(levels)} and make "
            f"codebook_size={product}, and codebook_size={size!r}, dim={dim!r} is "
            "asked for: leave these out, or change the levels"
        )
    return product, len(levels)


def check_bits(size: int, dim: int | None) -> int:
    """-> dim of LFQ; `size` must be a power of two, and not of another dim."""
    _check("LFQ", "codebook_size", size)
    if dim is not None:
        _check("LFQ", "dim", dim)
    bits = max(int(size).bit_length() - 1, 1)
    if size != 2**bits:
        raise ValueError(
            f"LFQ's codebook_size={size} is no power of two: codes are {bits} bits or "
            f"{bits + 1}; take {2**bits} or {2 ** (bits + 1)}"
        )
    if dim not in (None, bits):
        raise ValueError(
            f"LFQ's codebook_size={size} has {bits} bits, and dim={dim} is asked for: "
            f"leave dim out, or take codebook_size={2**dim}"
        )
    return bits


def _check(owner: str, name: str, given: Any) -> None:
    allowed, fits = ALLOWED[name]
    if not fits(given):
        raise ValueError(f"{owner} has {name}={given!r}; allowed: {allowed}")
