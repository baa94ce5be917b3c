"""Runs Python readers under tf.data: in order, in parallel, ahead of the consumer.

    steps [S] --plan--> what to read [S, L, ...] --> [C, ...] --read, in parallel-->
        examples [C, ...] --rebatch, prefetch--> {name: array [L, ...]}

tf.data brings its order, its threads and its bound on what is kept ready; the work
itself is Python (numpy and Pillow, which let go of the interpreter's lock). TensorFlow
is imported when the first batches are asked for, and never sees an accelerator.

Legend: S steps planned in one call, L rows of a batch, C rows read in one call, of one
batch or of several.
"""

import functools
import math
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from taming_jax.data.source import Field

READY = 2  # batches kept waiting: one to hand over, one while a slow file is read
PLANNED = 32  # steps that one call plans, for little more than a single one costs

# A picture holds the interpreter's lock for about 0.2 ms: more threads would queue.
MOST_THREADS = 16

Batch = dict[str, np.ndarray]
Batches = Iterator[Batch]


def stream(
    plan: Callable,
    read: Callable,
    steps: range,
    *,
    rows: int,
    chunk: int,
    spec: Mapping[str, Field],
) -> Batches:
    """The batches of all `steps`, read ahead of whoever takes them.

    Args:
      plan: int64 steps [S] -> a tuple of arrays [S, L, ...], what to read.
      read: these arrays, as [C, ...] -> the fields of `spec` by name, [C, ...] each;
        called by several threads at once.
      steps: which batches there are.
      rows: L.
      chunk: C at most; it is made to divide S * L.
      spec: the fields of an example.

    Raises:
      Exception: while iterating, what `plan` or `read` raised.
    """
    tf = _tensorflow()
    chunk = math.gcd(PLANNED * rows, chunk)
    failures: list[Exception] = []

    def planned(first):
        arrays = plan(first + np.arange(PLANNED))
        return [array.reshape(-1, chunk, *array.shape[2:]) for array in arrays]

    def examples(*chosen):
        batch = read(*chosen)
        return [batch[name] for name in spec]

    def called(function, fields):
        function = _kept_failure(function, failures)
        return functools.partial(_call, tf, function, tuple(fields))

    plans = [Field(a.dtype.name, (chunk, *a.shape[2:])) for a in plan(np.arange(1))]
    dataset = tf.data.Dataset.range(steps.start, steps.stop, PLANNED)
    dataset = dataset.map(called(planned, plans)).unbatch()
    dataset = dataset.map(
        called(examples, spec.values()),
        num_parallel_calls=worker_threads(),
        deterministic=True,
    )
    dataset = dataset.rebatch(rows).take(len(steps)).prefetch(READY)
    alive = [dataset.with_options(_options(tf)).as_numpy_iterator()]
    batches = _named(alive, spec, failures)
    # An iterator that outlives Python waits for ever for readers that cannot return.
    weakref.finalize(batches, alive.clear)
    return batches


def worker_threads() -> int:
    """Half of the cores that this process may use: the others are for training."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return min(MOST_THREADS, max(1, cores // 2))


def _options(tf):
    """Threads of its own, as many as there are readers, and no more memory unasked."""
    options = tf.data.Options()
    options.threading.private_threadpool_size = worker_threads()
    options.threading.max_intra_op_parallelism = 1
    options.autotune.enabled = False
    return options


def _call(tf, function: Callable, fields: Sequence[Field], *inputs):
    """A Python function as a step of a graph: tensors [number of them, ...]."""
    outputs = tf.numpy_function(function, inputs, [field.dtype for field in fields])
    return tuple(
        tf.ensure_shape(output, (None, *field.shape))
        for output, field in zip(outputs, fields, strict=True)
    )


def _named(alive: list, spec: Mapping, failures: list[Exception]) -> Batches:
    """Batches as dictionaries; an error in a reader is raised as what it was."""
    while True:
        try:
            arrays = next(alive[0], None)
        except Exception:
            if failures:
                raise failures[0] from None
            raise
        if arrays is None:
            return
        yield dict(zip(spec, arrays, strict=True))


def _kept_failure(function: Callable, failures: list[Exception]) -> Callable:
    """Keeps what the function raises, which TensorFlow would turn into a string."""

    def watched(*arguments):
        try:
            return function(*arguments)
        except Exception as error:
            failures.append(error)
            raise

    return watched


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
