"""Pictures larger than a prior was trained on: drawn by windows that slide over them.

    Windows --schedule--> steps, in stretches --steps--> codes int32 [B,h,w]

With stride 1 each code is drawn from its window anew, exactly as the paper's script
does; what follows the place and the logits of all others are not computed. With a
larger stride, an approximation, a block of places shares one window, and its keys and
values are kept for as long as the block is drawn.

Steps run in compiled loops, one program for each of a few lengths that what comes
before a place is filled up to. Sample i draws the code at place p, counted by rows,
with fold_in(keys[i], p): neither the batch nor what is drawn at once matters.

Beside the codes, memory is for `at_once` windows of each sample, and with a stride for
the keys and values of one row of blocks.

Legend: as in `steps`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from taming_jax.models.transformer import Transformer
from taming_jax.sampling import checked
from taming_jax.units import Codes, Tokens
from taming_jax.windows.places import (
    Steps,
    Windows,
    lengths,
    rounded_up,
    runs,
    schedule,
)
from taming_jax.windows.steps import Asked, blocks_program, exact_program, extension

# Programs of one picture: so many at most, and one for so many codes of its windows.
# With 16 x 16 codes a seventh would save a hundredth of what a 64 x 64 picture costs.
_PROGRAMS, _CODES = 6, 40

Told = Callable[[jax.Array, jax.Array], Tokens]


def sample_windows(
    model: Transformer,
    params,
    keys: jax.Array,
    told: Told,
    *,
    windows: Windows,
    codes: int,
    untold: Told | None = None,
    given: Codes | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance=1.0,
    greedy: bool = False,
    at_once: int = 16,
) -> Codes:
    """Draws pictures of any size, int32 [B,h,w].

    Args:
      model: the transformer; its grid, if it knows it, is the window.
      params: its parameters.
      keys: [B], one for each sample.
      told: the row and column where a window begins, int32 [] -> condition tokens
        int32 [B,n]; a pytree, as `conditions.windows` has them.
      windows: the picture and its windows.
      codes: K.
      untold: the same of what asks for nothing; needed by guidance.
      given: int32 [B,h,w], codes to be forced in place, -1 where one is drawn.
      temperature: as in `sample_tokens`.
      top_k: likewise.
      top_p: likewise.
      guidance: a number, or float32 [h * w] of the places by rows.
      greedy: as in `sample_tokens`.
      at_once: the most windows of each sample in one pass; memory grows with it.

    Raises:
      ValueError: for a temperature, filter or guidance that cannot be, and a model
        whose image tokens see later ones.
    """
    filters = checked(temperature, top_k, top_p)
    if untold is None and np.any(np.asarray(guidance) != 1):
        raise ValueError(f"guidance={guidance} needs untold: give it, or 1")
    condition = jax.eval_shape(told, *2 * [jax.ShapeDtypeStruct((), np.int32)])
    if model.unmasked > condition.shape[1]:
        raise ValueError(
            f"unmasked={model.unmasked} with {condition.shape[1]} condition tokens: "
            "this transformer sees codes that are to come, which a window does not have"
        )
    height, width = windows.shape
    canvas = _shared((len(keys), height * width), jnp.int32, keys)
    if given is not None:
        given = jnp.asarray(given).reshape(len(keys), -1)
        canvas = jnp.maximum(given, 0).astype(jnp.int32)
    guidance = jnp.asarray(guidance, jnp.float32)
    asked = Asked(
        keys,
        told,
        untold,
        given,
        filters,
        jnp.broadcast_to(guidance, (height * width,)),
    )
    drawn = None if given is None else np.any(given < 0, axis=0).reshape(height, width)
    every = schedule(windows, at_once=at_once)
    steps = every
    if drawn is not None:
        steps = schedule(windows, drawn, every.rows.shape[1])
    draw = draw_exactly if windows.stride == 1 else draw_by_blocks
    canvas = draw(model, params, canvas, asked, steps, every, windows, codes, greedy)
    return canvas.reshape(len(keys), height, width)


def draw_exactly(
    model, params, canvas, asked, steps: Steps, every: Steps, windows, codes, greedy
):
    """Draws each code from a window of its own: canvas int32 [B,h*w] -> the same.

    every: the steps of a picture of which all codes are drawn. Programs are as these
      need them, whatever is given: so they are compiled once.
    """
    known = rounded_up(lengths(windows, every).max(1), programs(windows))
    known = np.unique(known)
    longest = lengths(windows, steps).max(1, initial=0)
    table = _filled((steps.rows, steps.blocks), windows, every)
    for length, start, stop in runs(known[np.searchsorted(known, longest)]):
        program = exact_program(model, windows, codes, greedy, length)
        canvas = program(canvas, params, asked, table, start, stop)
    return canvas


def draw_by_blocks(
    model, params, canvas, asked, steps: Steps, every: Steps, windows, codes, greedy
):
    """Draws the codes of each block from one window: as `draw_exactly`."""
    n = jax.eval_shape(asked.told, *2 * [jax.ShapeDtypeStruct((), np.int32)]).shape[1]
    rows = canvas.shape[0] * (1 if asked.untold is None else 2)
    cache = jax.eval_shape(
        lambda: model.empty_cache(
            rows * windows.blocks[1], n + windows.window[0] * windows.window[1] - 1
        )
    )
    shape = cache.keys.shape  # [L,B*blocks,G,S,E]
    shape = shape[0], rows, windows.blocks[1], *shape[2:]
    caches = [_shared(shape, cache.keys.dtype, asked.keys, axis=1) for _ in range(2)]
    partly = asked.given is not None
    known = known_beginnings(windows, every, partly=partly)
    found, begun = beginnings(windows, steps, steps.rows.shape[1] if partly else None)
    which = np.searchsorted(known, found)
    table = _filled((steps[:2], begun[:2], which), windows, every)
    program = blocks_program(model, windows, codes, greedy, tuple(known.tolist()))
    canvas, *_ = program((canvas, *caches), params, asked, table, 0, len(found))
    return canvas


def _shared(shape, dtype, keys, axis: int = 0) -> jax.Array:
    """Zeros, along `axis` on the devices that the samples' keys are on."""
    where = None
    if isinstance(keys.sharding, NamedSharding):
        spec = PartitionSpec(*axis * [None], *keys.sharding.spec)
        where = NamedSharding(keys.sharding.mesh, spec)
    return jnp.zeros(shape, dtype, device=where)


def beginnings(
    windows: Windows, steps: Steps, most: int | None = None
) -> tuple[np.ndarray, Steps]:
    """With how many codes the new blocks of each step begin, int32 [steps]; -1 of none.

    And these blocks alone, up to `most` in a step; None: as many as there are.
    """
    begun = _begun(steps, most)
    before = lengths(windows, begun).max(1, initial=-1)
    fewer = np.maximum(before - extension(windows), 0)
    return np.where(before >= 0, fewer, -1), begun


def known_beginnings(windows: Windows, every: Steps, *, partly: bool) -> np.ndarray:
    """The lengths for which the beginnings of blocks are compiled, ascending.

    partly: whether codes may be given: blocks then begin in any of their rows.
    """
    found, _ = beginnings(windows, every)
    # They cost little, once in a block, and each length is compiled.
    some = rounded_up(found[found >= 0], -(-programs(windows) // 2))
    rest = found[found < 0]
    if partly:
        latest = lengths(windows, every).max() - extension(windows)
        rest = np.array([-1, max(latest, 0)])
    return np.unique(np.concatenate([some, rest]))


def programs(windows: Windows) -> int:
    """How many lengths of what comes before a place are compiled, at most."""
    return min(_PROGRAMS, -(-windows.window[0] * windows.window[1] // _CODES))


def _begun(steps: Steps, most: int | None) -> Steps:
    """Of each step the units alone that begin a block, side by side."""
    most = most or max(1, int(steps.begins.sum(1).max(initial=0)))
    order = np.argsort(~steps.begins, axis=1, kind="stable")[:, :most]
    begins = np.take_along_axis(steps.begins, order, axis=1)
    parts = (np.take_along_axis(part, order, axis=1) for part in steps[:2])
    return Steps(*(np.where(begins, part, -1) for part in parts), begins)


def _filled(tables, windows: Windows, every: Steps):
    """Arrays [steps,...] with rows for as many steps as there can be, unused ones.

    What is given decides how many there are, and another shape would be compiled anew.
    Fewer units wait for one another no longer: their waves are no more than those of
    all, and each has at most one step that is not full.
    """
    units = windows.shape[0] * windows.blocks[1]
    most = len(every.rows) + units // every.rows.shape[1]

    def fill(table):
        rest = [(0, 0)] * (table.ndim - 1)
        return jnp.pad(table, [(0, most - len(table)), *rest])

    return jax.tree.map(fill, tables)
