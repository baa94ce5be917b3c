"""Batches from a source: in order, sharded, resumable, prefetched.

    step --plan--> positions, indices, chances --read--> examples --stream--> batches

Position p = step * batch_size + row counts examples over all processes. `order.Order`
says which index is shown there, and `Draws(seed, p)` how it is cropped and flipped;
process k of P reads rows [k B / P, (k + 1) B / P). Nothing has to be replayed to start
at a step, and however many processes share a batch, it is the same batch.

Legend: B global batch, L = B / P rows of this process, C rows read in one call.
"""

import math
from collections.abc import Sequence

import numpy as np

from taming_jax.data.draws import Draws
from taming_jax.data.order import Order
from taming_jax.data.source import CHANCES, Field, Source, UnreadableError
from taming_jax.data.stream import Batch, Batches, stream


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    keep: Sequence[str] = ("image", "index"),
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Endless shuffled and augmented batches from `start_step` on.

    A picture that cannot be read is replaced by the next one of its epoch's order that
    can; all other rows stay what they were.

    Args:
      source: what `open_source` gives.
      batch_size: B, examples of a step over all processes.
      seed: of order and augmentation.
      start_step: the step that the first batch belongs to.
      keep: names out of `source.example_spec`, and "index".
      process_index: k, which share of each batch is wanted.
      process_count: P, between how many processes a batch is shared.

    Returns:
      Dictionaries with an array [L, ...] for each name in `keep`, in the dtypes of
      `source.example_spec` (images uint8); index is int64, the place in the source.

    Raises:
      ValueError: at the call, if the batch does not fit the processes or the source;
        while iterating, if too many pictures are bad.
    """
    rows = _rows(batch_size, process_index, process_count)
    spec = _kept(source, keep)
    if len(source) < batch_size:
        raise ValueError(
            f"the batch size is {batch_size} and there are {len(source)} pictures; a "
            f"batch has no picture twice: set batch_size to {len(source)} at most"
        )
    order = Order(len(source), seed)

    def plan(steps):
        positions = steps[:, None] * batch_size + rows
        draws = Draws(seed, positions)
        chances = np.stack([draws.uniform(name, 0, 1) for name in CHANCES], axis=-1)
        return positions, order(positions), chances

    def read(positions, indices, chances):
        return _read_or_replace(source, order, positions, indices, chances, spec)

    steps = range(start_step, 2**62 // batch_size)
    return stream(plan, read, steps, rows=len(rows), chunk=source.chunk, spec=spec)


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    keep: Sequence[str] = ("image", "index"),
    count: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Each example once over all processes, without augmentation; then it ends.

    Examples come in one fixed random order, so that the first `count` of a data set
    sorted by class show all of its classes. All processes get equally many batches.

    Args:
      source: what `open_source` gives.
      batch_size: B, over all processes.
      keep: names out of `source.example_spec`, and "index".
      count: examples to read in all; None reads the whole source.
      process_index: as for `train_batches`.
      process_count: as for `train_batches`.

    Returns:
      As `train_batches`, and "mask" bool [L]: false for the rows that fill up the last
      batch and for pictures that cannot be read; those are zeros, with index -1.

    Raises:
      ValueError: as `train_batches`, except that a source may be smaller than a batch.
    """
    rows = _rows(batch_size, process_index, process_count)
    spec = _kept(source, keep) | {"mask": Field("bool", ())}
    count = len(source) if count is None else min(count, len(source))
    order = Order(len(source), seed=0)

    def plan(steps):
        positions = steps[:, None] * batch_size + rows
        return (np.where(positions < count, order(positions), -1),)

    def read(indices):
        return _read_or_mask(source, indices, spec)

    steps = range(math.ceil(count / batch_size))
    return stream(plan, read, steps, rows=len(rows), chunk=source.chunk, spec=spec)


def ordered_batches(
    source: Source,
    *,
    batch_size: int,
    views: np.ndarray | None = None,
    keep: Sequence[str] = ("image", "index"),
) -> Batches:
    """Each example under each of `views`, in the source's own order; then it ends.

    Args:
      source: what `open_source` gives.
      batch_size: B, the rows of a batch.
      views: float32 [V, 3], what would be drawn of each of `CHANCES`: rows i * V to
        i * V + V - 1, over all batches, are views of example i. None: one view, as in
        evaluation.
      keep: names out of `source.example_spec`, and "index".

    Returns:
      As `eval_batches`, with its mask.

    Raises:
      ValueError: while iterating, if too many pictures are bad.
    """
    spec = _kept(source, keep) | {"mask": Field("bool", ())}
    chances = np.zeros((1, len(CHANCES)), np.float32) if views is None else views
    count = len(source) * len(chances)

    def plan(steps):
        rows = steps[:, None] * batch_size + np.arange(batch_size)
        index, view = np.divmod(rows, len(chances))
        return np.where(rows < count, index, -1), chances[view]

    def read(indices, drawn):
        return _read_or_mask(source, indices, spec, None if views is None else drawn)

    steps = range(math.ceil(count / batch_size))
    return stream(plan, read, steps, rows=batch_size, chunk=source.chunk, spec=spec)


def _rows(batch_size: int, process_index: int, process_count: int) -> np.ndarray:
    """The rows of each global batch that this process reads: int64 [L]."""
    if batch_size < 1 or batch_size % process_count:
        below = batch_size // process_count * process_count
        raise ValueError(
            f"the batch size is {batch_size}; {process_count} processes share it "
            f"equally: set batch_size to {max(below, process_count)} or another "
            f"positive multiple of {process_count}"
        )
    share = batch_size // process_count
    return np.arange(process_index * share, (process_index + 1) * share)


def _kept(source: Source, keep: Sequence[str]) -> dict[str, Field]:
    """The fields of a batch, in the order that they were asked for."""
    offered = dict(source.example_spec) | {"index": Field("int64", ())}
    if missing := [name for name in keep if name not in offered]:
        raise ValueError(
            f"asked for {', '.join(missing)}; this data set has {', '.join(offered)}: "
            "ask for those (a folder has labels if all its pictures lie in "
            "sub-directories)"
        )
    if len(both := [name for name in keep if name in source.one_of]) > 1:
        kind = both[both[0] == "image"]
        raise ValueError(
            f"asked for {' and '.join(both)}, and each file of these data is one of "
            f"them: say where the maps of the pictures are by data.train_maps.{kind} "
            f"(and data.val_maps.{kind}, where data.val is a path)"
        )
    return {name: offered[name] for name in keep}


def _read_or_replace(source, order, positions, indices, chances, spec) -> Batch:
    """C examples for training, each bad one replaced by its successor in the order."""
    names = [name for name in spec if name != "index"]
    source.bad.tried(len(indices))
    while True:
        source.bad.check()
        indices = np.array(
            [
                _sound(source, order, *pair)
                for pair in zip(positions, indices, strict=True)
            ]
        )
        try:
            return source.read(indices, chances, names) | {"index": indices}
        except UnreadableError as record:
            source.bad.add(record)


def _sound(source: Source, order: Order, position: int, index: int) -> int:
    """The index of this position, or the next in its epoch that is not known as bad."""
    shift = 0
    while index in source.bad:
        source.bad.check()
        shift += 1
        index = order(np.array([position]), shift)[0]
    return index


def _read_or_mask(source: Source, indices: np.ndarray, spec, chances=None) -> Batch:
    """C examples of which all are seen; padding and bad rows are zeros, mask false."""
    names = [name for name in spec if name not in ("index", "mask")]
    source.bad.tried(np.count_nonzero(indices >= 0))
    while True:
        source.bad.check()
        mask = np.array([i >= 0 and i not in source.bad for i in indices])
        try:
            drawn = None if chances is None else chances[mask]
            read = source.read(indices[mask], drawn, names) if mask.any() else {}
            break
        except UnreadableError as record:
            source.bad.add(record)
    batch = {"mask": mask, "index": np.where(mask, indices, -1)}
    for name in names:
        batch[name] = np.zeros((len(indices), *spec[name].shape), spec[name].dtype)
        if mask.any():
            batch[name][mask] = read[name]
    return batch
