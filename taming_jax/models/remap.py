"""Codes renumbered: of a table's K codes some are used, and become 0 to n - 1.

    codes in [0, K) --outward--> codes in [0, n), or [0, n] --inward--> codes in [0, K)

What an encoder still gives of the others is answered in one of three ways, `unknown`:

    "random"   each is one of the used ones, drawn once and for all
    "extra"    all are n, one more code, which stands for the first of the used ones
    an integer all are that code, of those in [0, n)

The original's, but that its "random" is drawn anew for every latent: here pictures have
the same codes whenever they are encoded.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

UNKNOWN = ("random", "extra")


class Remap(NamedTuple):
    """Both directions, each as a table that codes are looked up in."""

    outward: np.ndarray  # int32 [K]
    inward: np.ndarray  # int32 [n], or [n + 1] with "extra"


def make_remap(
    owner: str, codebook_size: int, used: Sequence[int], unknown: str | int
) -> Remap:
    """Return the tables for the codes `used`, in this order, of `codebook_size`.

    Raises:
      ValueError: in the name of `owner`, where `used` or `unknown` do not fit.
    """
    used = _checked(owner, codebook_size, used)
    count = len(used)
    if unknown == "random":
        others = np.random.default_rng(0).integers(count, size=codebook_size)
    elif unknown == "extra":
        others = np.full(codebook_size, count)
    elif isinstance(unknown, int) and 0 <= unknown < count:
        others = np.full(codebook_size, unknown)
    else:
        raise ValueError(
            f"{owner} has no unknown={unknown!r}; allowed: {', '.join(UNKNOWN)}, or a "
            f"code from 0 to {count - 1} of the {count} used"
        )
    others[used] = np.arange(count)
    inward = np.append(used, used[0]) if unknown == "extra" else used
    return Remap(others.astype(np.int32), inward.astype(np.int32))


def _checked(owner, codebook_size, used) -> np.ndarray:
    used = np.asarray(used)
    if used.ndim != 1 or not used.size or not np.issubdtype(used.dtype, np.integer):
        problem = f"is {used.dtype} of shape {used.shape}"
    elif used.min() < 0 or used.max() >= codebook_size:
        problem = f"reaches from {used.min()} to {used.max()}"
    elif len(np.unique(used)) < len(used):
        codes, times = np.unique(used, return_counts=True)
        problem = f"has {codes[times > 1][0]} more than once"
    else:
        return used
    raise ValueError(
        f"{owner}'s list of used codes {problem}; it takes distinct integers from 0 to "
        f"{codebook_size - 1}, one at least: was it made for another codebook?"
    )
