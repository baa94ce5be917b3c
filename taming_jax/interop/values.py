"""What a configuration's values may be: each of a kind, or an error in one line.

    check_values("ddconfig", ddconfig, {"ch": COUNT, "dropout": SHARE})

Text that looks like a number, a number where a list belongs, and whatever else a .yaml
can say are named with their key before a model is made of them.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from taming_jax.models.fields import choose


class Kind(NamedTuple):
    """A kind of value, in words, and whether something is of it."""

    described: str
    fits: Callable[[Any], bool]


def check_values(
    owner: str, given: Mapping[str, Any], kinds: Mapping[str, Kind]
) -> None:
    """Raises ValueError for a value of another kind than its key's, if it is there."""
    for key, kind in kinds.items():
        if key in given and not kind.fits(given[key]):
            raise ValueError(
                f"{owner}: {key} is {given[key]!r}; it takes {kind.described}"
            )


def check_keys(owner: str, given: Any, known: Iterable[str]) -> None:
    """Raises ValueError for a key that is not known, and says which are."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{owner}: {given!r} is no mapping of keys to values")
    for key in given:
        choose(owner, "key", key, dict.fromkeys(sorted(known)))


def check_all_there(
    owner: str, given: Mapping[str, Any], needed: Iterable[str]
) -> None:
    """Raises ValueError if a key is missing."""
    missing = [key for key in needed if key not in given]
    if missing:
        raise ValueError(
            f"{owner} do not say {', '.join(missing)}: is this the whole configuration?"
        )


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 0  # True is an int, and none of these


def _number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < float("inf")


def _all(values: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(values, list | tuple) and all(map(fits, values))


WHOLE = Kind("a whole number, 0 or more", _whole)
COUNT = Kind("a whole number above 0", lambda value: _whole(value) and value > 0)
WHOLES = Kind("a list of whole numbers", lambda values: _all(values, _whole))
COUNTS = Kind(
    "a list of whole numbers above 0, one at least",
    lambda values: bool(values) and _all(values, COUNT.fits),
)
NUMBER = Kind("a number, 0 or more", _number)
POSITIVE = Kind("a number above 0", lambda value: _number(value) and value > 0)
SHARE = Kind("a number from 0 to below 1", lambda value: _number(value) and value < 1)
FLAG = Kind("true or false", lambda value: type(value) is bool)
TEXT = Kind("text, or nothing", lambda value: value is None or isinstance(value, str))
MAPPING = Kind(
    "keys with values, or nothing",
    lambda value: value is None or isinstance(value, Mapping),
)
