"""What people ask of a prior, checked: each thing that cannot be, in a sentence.

What is asked for comes back in the form that compiled functions take; values are looked
at here, once, on the host.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax.conditions import image_tokens
from taming_jax.conditions.checks import as_array
from taming_jax.guidance import check_schedule
from taming_jax.sampling import sample_keys
from taming_jax.units import Codes


def tokens(given, kind: str, allowed: range) -> np.ndarray:
    """A condition that is given as tokens, int32 [B, n]; a grid of them by rows.

    Raises:
      ValueError: for none, and for what is no [B, n] or [B, h, w] of allowed integers.
    """
    what = (
        f"this prior is told {kind}, as tokens int32 [B, n] or codes [B, h, w] from "
        f"{allowed[0]} to {allowed[-1]}"
    )
    if given is None:
        raise ValueError(f"{what}, and was told nothing: give condition=")
    asked = as_array(given, "condition tokens")
    whole = np.issubdtype(asked.dtype, np.integer)
    if asked.ndim not in (2, 3) or not asked.size or not whole:
        raise ValueError(f"{what}; the condition is {asked.dtype} {asked.shape}")
    if not allowed[0] <= asked.min() <= asked.max() <= allowed[-1]:
        raise ValueError(
            f"{what}; the condition reaches from {asked.min()} to {asked.max()}"
        )
    return asked.reshape(len(asked), -1).astype(np.int32)


def grids(given, grid: tuple[int, int] | None, allowed: range) -> np.ndarray:
    """Codes int32 [B, h, w]; of any grid where `grid` is None.

    Raises:
      ValueError: for another grid, and for codes that are not allowed.
    """
    codes = as_array(given, "codes")
    if codes.ndim != 3 or not codes.size or (grid and codes.shape[1:] != grid):
        wanted = f" with (h, w) = {grid}" if grid else ""
        raise ValueError(
            f"codes have shape {codes.shape}: this prior reads [B, h, w]{wanted}"
        )
    smallest, largest = allowed[0], allowed[-1]
    is_whole = np.issubdtype(codes.dtype, np.integer)
    if not is_whole or not smallest <= codes.min() <= codes.max() <= largest:
        raise ValueError(
            f"codes are {codes.dtype} from {codes.min()} to {codes.max()}; this prior "
            f"knows int32 from {smallest} to {largest}: are they its tokenizer's?"
        )
    return codes.astype(np.int32)


def sides(name: str, given, least: int = 1) -> tuple[int, int]:
    """Two whole numbers from `least` on, or one for both.

    Raises:
      ValueError: for anything else; it says what `name` should be.
    """
    pair = np.asarray(given)
    whole = np.issubdtype(pair.dtype, np.integer) and pair.shape in ((), (2,))
    if not whole or pair.min() < least:
        raise ValueError(
            f"{name}={given!r}: it takes (height, width) in codes, each at least "
            f"{least}, or one number for both"
        )
    return tuple(np.broadcast_to(pair, 2).tolist())


def check_places(shape, condition: int, length: int) -> None:
    """Raises ValueError for a condition and a grid that are longer than the prior."""
    places = condition + shape[0] * shape[1] - 1  # the last token is never shown
    if places > length:
        raise ValueError(
            f"{condition} condition tokens and {shape[0]} x {shape[1]} codes take "
            f"{places} places, and this prior has {length}: give fewer"
        )


def check_given(given: tuple[int, int], shape: tuple[int, int]) -> None:
    """Raises ValueError for given codes of another grid than the one to be drawn."""
    if tuple(given) != tuple(shape):
        raise ValueError(
            f"given codes are {tuple(given)} and shape={tuple(shape)}: give them for "
            "the whole grid, -1 where one is to be drawn"
        )


class LateCodes(UserWarning):
    """Given codes come after drawn ones in the order in which a prior draws."""


def late_codes(given: Codes, order: Sequence[int] | None) -> str:
    """What to say of given codes [B, h, w] that come after drawn ones; "" of none.

    Those that come before are known when a code is drawn; these are not.
    """
    is_given = np.asarray(image_tokens(given, order)) >= 0
    late = is_given & np.logical_or.accumulate(~is_given, axis=1)
    if not late.any():
        return ""
    return (
        f"{late.sum():,} of {is_given.sum():,} given codes come after drawn ones in "
        "this prior's order: they are kept, and what is drawn before them does not "
        "know them"
    )


def check_guidance(guidance: float, schedule: str, knows_unlabelled: bool) -> None:
    """Raises ValueError for guidance that the prior or this package does not know."""
    number = np.ndim(guidance) == 0 and np.asarray(guidance).dtype.kind in "iuf"
    if not number or not np.isfinite(guidance):
        raise ValueError(f"guidance={guidance!r}: a finite number, 1 for none")
    if guidance != 1 and not knows_unlabelled:
        raise ValueError(
            f"guidance={guidance}: this prior was trained without label_dropout and "
            "knows no pictures without a label: use guidance=1"
        )
    check_schedule(schedule)


def _rows(told) -> int:
    """Of how many pictures tokens are, or what windows are told."""
    return len(jax.tree.leaves(told)[0])


def keys(key, batch: int | None, condition, given) -> jax.Array:
    """One key, or keys [B], and all else that has B rows -> keys [B].

    Of one key, sample i gets fold_in(key, i).

    Raises:
      ValueError: for what is no key, if nothing says what B is, if two things say it
        differently, and for none.
    """
    _check_key(key)
    whole = np.issubdtype(np.asarray(batch).dtype, np.integer) and np.ndim(batch) == 0
    if batch is not None and not (whole and batch >= 1):
        raise ValueError(f"batch={batch!r}: how many samples, a whole number from 1 on")
    sizes = {
        "batch": batch,
        "condition": None if condition is None else _rows(condition),
        "given": None if given is None else len(given),
        "key": None if jnp.ndim(key) == 0 else len(key),
    }
    sizes = {name: size for name, size in sizes.items() if size is not None}
    if len(set(sizes.values())) != 1:
        found = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(
            f"how many samples? {found or 'nothing says it'}: give batch=, labels, "
            "keys or given codes, all of one length"
        )
    (size,) = set(sizes.values())
    if not size:
        raise ValueError(
            f"how many samples? {', '.join(sizes)} 0: at least one is drawn"
        )
    return sample_keys(key, size) if jnp.ndim(key) == 0 else key


def _check_key(key) -> None:
    """Raises ValueError for anything but keys with a type; old ones look like two."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key) or key.ndim > 1:
        given = type(key).__name__ if dtype is None else f"{dtype} {np.shape(key)}"
        raise ValueError(f"key is {given}: give jax.random.key(seed), or keys [B]")
