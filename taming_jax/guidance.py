"""How much guidance each place gets: g and a schedule's name -> float32 [T].

    "constant"         g everywhere
    "linear"           from 1 at the first place to g at the last
    "power-cosine:P"   1 + (g - 1) (1 - cos(pi (t / T)^P)) / 2 at place t: late, and
                       the later the larger P is (Gao et al. 2023; RAR, Yu et al. 2024)
    "interval:N"       g at the first N + 2 places, then 1, as LlamaGen's `cfg_interval`
                       counts them; -1: everywhere

Places are counted in the order in which they are drawn. A schedule says which share of
g - 1 is added to 1, so that a guidance of 1 is none whatever the schedule is.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

RAR_POWER = 2.75  # of the published RAR-B; L has 2.5, XL 1.5, XXL 1.2


def guidance_of(guidance: float, schedule: str, count: int) -> np.ndarray:
    """Guidance of each of `count` places, float32 [count].

    Raises:
      ValueError: for a schedule that there is not.
    """
    shares = _shares(schedule)(np.arange(count), count)
    return np.float32(1.0 + (guidance - 1.0) * shares)


def check_schedule(schedule: str) -> None:
    """Raises ValueError for a schedule that there is not; it says which there are."""
    _shares(schedule)


class _Schedule(NamedTuple):
    """What a name stands for.

    shares: of g - 1: (places [T], T) -> [T], or with the option before them.
    option: what the number after the colon is called; "": there is none.
    allowed: whether the option may be this number.
    wanted: the same for people.
    default: the option where it is not said; None: it has to be.
    """

    shares: Callable
    option: str = ""
    allowed: Callable[[float], bool] = bool
    wanted: str = ""
    default: float | None = None


def _linear(places, count):
    return places / max(count - 1, 1)


def _power_cosine(power, places, count):
    return (1.0 - np.cos(np.pi * (places / count) ** power)) / 2.0


def _interval(last, places, count):
    del count
    return np.where((last < 0) | (places < last + 2), 1.0, 0.0)


SCHEDULES = {
    "constant": _Schedule(lambda places, count: np.ones(count)),
    "linear": _Schedule(_linear),
    "power-cosine": _Schedule(
        _power_cosine, "POWER", lambda p: 0 < p < np.inf, "above 0", RAR_POWER
    ),
    "interval": _Schedule(
        _interval, "N", lambda n: n >= -1 and n == n // 1, "a whole number from -1 on"
    ),
}


def _shares(schedule: str) -> Callable:
    """`(places, count) -> shares` of a schedule as it is said."""
    name, colon, said = str(schedule).partition(":")
    if name not in SCHEDULES or (colon and not SCHEDULES[name].option):
        raise ValueError(f"guidance_schedule={schedule!r}: there are {_names()}")
    known = SCHEDULES[name]
    if not known.option:
        return known.shares
    option = _number(said) if colon else known.default
    if option is None or not known.allowed(option):
        raise ValueError(
            f"guidance_schedule={schedule!r}: {known.option} of {name}:{known.option} "
            f"is {known.wanted}"
        )
    return lambda places, count: known.shares(option, places, count)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _names() -> str:
    """constant, ..., power-cosine[:POWER], interval:N."""
    names = []
    for name, known in SCHEDULES.items():
        option = f":{known.option}" if known.option else ""
        names.append(name + (option if known.default is None else f"[{option}]"))
    return ", ".join(names)
