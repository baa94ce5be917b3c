"""Batches from a source: in order, sharded, resumable, prefetched.

    step --plan--> positions, indices --read (parallel)--> examples --batch--> prefetch

Position p = step * batch_size + row counts examples over all processes. `order.Order`
says which index is shown there, `order.draws` how it is cropped and flipped; process k
of P reads rows [k B / P, (k + 1) B / P). Nothing has to be replayed to start at a step,
and however many processes share a batch, it is the same batch.

The work is done by numpy_functions under tf.data, which runs them in order on threads
of its own, keeps a bounded number of batches ready, and never sees a GPU. TensorFlow is
imported when the first batches are asked for.

Legend: B global batch, L = B / P rows of this process, C rows read in one call.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from taming_jax.data.order import Order, draws
from taming_jax.data.source import Field, Source, UnreadableError

READY = 2  # batches kept waiting: one to hand over, one while a slow file is read
PLANNED = (
    32  # steps whose order is computed in one call, for little more than one costs
)

# A picture holds the interpreter's lock for about 0.2 ms: more threads would queue.
MOST_THREADS = 16

Batch = dict[str, np.ndarray]
Batches = Iterator[Batch]


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
        return positions, order(positions)

    def read(positions, indices):
        chances = draws(seed, positions, 3)
        return _read_or_replace(source, order, positions, indices, chances, spec)

    steps = range(start_step, 2**62 // batch_size)
    return _stream(plan, read, steps, len(rows), source.chunk, spec)


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
        return positions, np.where(positions < count, order(positions), -1)

    def read(positions, indices):
        return _read_or_mask(source, indices, spec)

    steps = range(math.ceil(count / batch_size))
    return _stream(plan, read, steps, len(rows), source.chunk, spec)


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


def _read_or_mask(source: Source, indices: np.ndarray, spec) -> Batch:
    """C examples for evaluation; rows that are padding or bad are zeros, mask false."""
    names = [name for name in spec if name not in ("index", "mask")]
    source.bad.tried(np.count_nonzero(indices >= 0))
    while True:
        source.bad.check()
        mask = np.array([i >= 0 and i not in source.bad for i in indices])
        try:
            read = source.read(indices[mask], None, names) if mask.any() else {}
            break
        except UnreadableError as record:
            source.bad.add(record)
    batch = {"mask": mask, "index": np.where(mask, indices, -1)}
    for name in names:
        batch[name] = np.zeros((len(indices), *spec[name].shape), spec[name].dtype)
        if mask.any():
            batch[name][mask] = read[name]
    return batch


def _stream(
    plan: Callable,
    read: Callable,
    steps: range,
    rows: int,
    chunk: int,
    spec: Mapping[str, Field],
) -> Batches:
    """plan(steps [S]) -> two int64 [S, L], and read(two [C]), run by tf.data."""
    tf = _tensorflow()
    chunk = math.gcd(rows, chunk)
    failures: list[Exception] = []

    def planned(first):
        return [array.reshape(-1, chunk) for array in plan(first + np.arange(PLANNED))]

    def examples(positions, indices):
        batch = read(positions, indices)
        return [batch[name] for name in spec]

    def call(function, inputs, dtypes):
        return tf.numpy_function(_kept_failure(function, failures), inputs, dtypes)

    dtypes = [tf.as_dtype(field.dtype) for field in spec.values()]
    threads = _threads()
    dataset = tf.data.Dataset.range(steps.start, steps.stop, PLANNED)
    dataset = dataset.map(lambda first: tuple(call(planned, [first], [tf.int64] * 2)))
    dataset = dataset.unbatch().take(len(steps) * rows // chunk)
    dataset = dataset.map(
        lambda *chosen: tuple(call(examples, chosen, dtypes)),
        num_parallel_calls=threads,
        deterministic=True,
    )
    dataset = dataset.batch(rows // chunk, drop_remainder=True).prefetch(READY)
    options = tf.data.Options()
    options.autotune.enabled = False  # it trades memory for speed unasked
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    iterator = dataset.with_options(options).as_numpy_iterator()
    return _unstacked(iterator, rows, spec, failures)


def _unstacked(iterator, rows, spec, failures) -> Batches:
    """[L / C, C, ...] -> [L, ...]; an error in a reader is raised as what it was."""
    while True:
        try:
            arrays = next(iterator, None)
        except Exception:
            if failures:
                raise failures[0] from None
            raise
        if arrays is None:
            return
        yield {
            name: array.reshape(rows, *field.shape)
            for (name, field), array in zip(spec.items(), arrays, strict=True)
        }


def _kept_failure(function: Callable, failures: list[Exception]) -> Callable:
    """Keeps what the function raises, which TensorFlow would turn into a string."""

    def watched(*arguments):
        try:
            return function(*arguments)
        except Exception as error:
            failures.append(error)
            raise

    return watched


def _threads() -> int:
    """Half of the cores that this process may use: the others are for training."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return min(MOST_THREADS, max(1, cores // 2))


def _tensorflow():
    """TensorFlow, kept off the accelerators: their memory belongs to training."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(
            "batches are read with TensorFlow, which is not installed: "
            "pip install 'taming_jax[train]'"
        ) from error
    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    return tf
