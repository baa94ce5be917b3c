"""Whether a checkpoint is still what was saved.

    state --record_of--> Record, written beside it
    STEP --read_record, read_arrays--> arrays that are what was saved, or DamagedError

Storage that lost a byte is not noticed by those who read it: the array is wrong. So
every checkpoint carries, for each of its arrays, dtype, shape and 64 bits that any
changed value changes. They are computed where the arrays live, in one pass over their
memory, and are the same however the arrays are spread over devices. This is no
protection against malice.

    STEP/state    arrays, as Orbax writes them
    STEP/record   the record
    STEP/metrics  validation metrics, as Orbax writes them
"""

import contextlib
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from taming_jax import files

# What reading a damaged checkpoint raises: of whatever kind its reader stumbles over.
READING_ERRORS = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError,
                  TypeError, ValueError)  # fmt: skip


PIECE = 2**26  # bytes of an array on the host that are looked at at once


class DamagedError(ValueError):
    """A checkpoint is not what was saved."""


class Array(NamedTuple):
    """What an array should be; the digest is 16 hex digits."""

    dtype: str
    shape: tuple[int, ...]
    digest: str

    @property
    def form(self) -> str:
        """As people write it: float32[3, 4]."""
        return f"{self.dtype}{list(self.shape)}"

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return math.prod(self.shape) * jnp.dtype(self.dtype).itemsize


class Record(NamedTuple):
    """What a checkpoint should hold.

    Attributes:
      arrays: by their path in the state, "ema/encoder/...".
      metrics: the validation's figures, none if there was no validation.
    """

    arrays: Mapping[str, Array]
    metrics: Mapping[str, float]


def record_of(state: Any, metrics: Mapping[str, float] | None = None) -> Record:
    """The record of a pytree of arrays; all processes that they are spread over ask."""
    leaves = dict(_named(state))
    parts = jax.device_get([_parts(leaf) for leaf in leaves.values()])
    sums = np.array([np.sum(part, axis=0, dtype=np.uint32) for part in parts])
    if not all(getattr(leaf, "is_fully_addressable", True) for leaf in leaves.values()):
        everyones = multihost_utils.process_allgather(sums)  # [P, arrays, 2]
        sums = everyones.sum(axis=0, dtype=np.uint32)
    arrays = {
        path: Array(str(leaf.dtype), tuple(leaf.shape), f"{first:08x}{second:08x}")
        for (path, leaf), (first, second) in zip(leaves.items(), sums, strict=True)
    }
    return Record(arrays, dict(metrics or {}))


def to_json(record: Record) -> dict[str, Any]:
    """What is written, with a checksum of its own."""
    content = json.loads(json.dumps(record._asdict()))
    return {**content, "sha256": _checksum(content)}


def steps_in(directory: epath.Path) -> list[int]:
    """The steps that a directory has finished checkpoints of, in order."""
    if not directory.exists():
        return []
    return sorted(int(d.name) for d in directory.iterdir() if d.name.isdigit())


def read_record(checkpoint: epath.Path) -> Record:
    """The record that lies in STEP/.

    Raises:
      DamagedError: if it does not, or it disagrees with itself or with the metrics.
    """
    with damage_named(checkpoint):
        content = json.loads((checkpoint / "record" / "metadata").read_text())
        written = content.pop("sha256")
        metrics = json.loads((checkpoint / "metrics" / "metrics").read_text())
        if written != _checksum(content) or metrics != content["metrics"]:
            raise DamagedError("its record or its metrics have changed")
        arrays = {
            path: Array(dtype, tuple(shape), digest)
            for path, (dtype, shape, digest) in content["arrays"].items()
        }
    return Record(arrays, metrics)


def check_form(record: Record, abstract: Any, checkpoint: epath.Path) -> None:
    """Compares names, dtypes and shapes with those of the state that is wanted.

    Raises:
      ValueError: if they differ: then the checkpoint may be sound, but is another's.
    """
    theirs = {path: array.form for path, array in record.arrays.items()}
    ours = {
        path: Array(str(leaf.dtype), tuple(leaf.shape), "").form
        for path, leaf in _named(abstract)
    }
    odd = sorted(k for k in theirs.keys() | ours.keys() if theirs.get(k) != ours.get(k))
    if odd:
        raise ValueError(
            f"{checkpoint} holds another state: {len(odd)} arrays differ, first "
            f"{odd[0]}: {theirs.get(odd[0])} there, {ours.get(odd[0])} here; go on "
            "with the version and the recipe that wrote it, or choose another --workdir"
        )


def read_arrays(
    checkpoint: epath.Path, record: Record, paths: Iterable[str]
) -> dict[str, np.ndarray]:
    """The arrays of STEP/state at `paths`, read by this process alone and checked.

    Raises:
      DamagedError: naming the first array that is not what was saved.
    """
    paths = set(paths)
    with damage_named(checkpoint):
        read = _read(checkpoint / "state", paths)
    now = record_of(read).arrays
    odd = sorted(path for path in paths if now.get(path) != record.arrays[path])
    if odd:
        raise DamagedError(
            f"{checkpoint}: {len(odd)} arrays are not what was saved, first {odd[0]}"
        )
    return read


@contextlib.contextmanager
def damage_named(checkpoint: epath.Path) -> Iterator[None]:
    """Turns what reading a checkpoint raises into a DamagedError that names it.

    Not being let to it, by permissions or the network, is no damage, and neither is
    what devices raise, which may be short of memory.
    """
    try:
        yield
    except READING_ERRORS as error:
        no_damage = isinstance(error, PermissionError | jax.errors.JaxRuntimeError)
        if no_damage or files.unanswered(error, checkpoint):
            raise
        raise DamagedError(f"{checkpoint}: {error}") from error


def _read(directory: epath.Path, paths: set[str]) -> dict[str, np.ndarray]:
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"reader{me}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
        saved = handler.metadata(directory).tree  # the reader's would hide its errors
        wanted = jax.tree.map_with_path(
            lambda path, leaf: leaf if _name(path) in paths else ocp.PLACEHOLDER, saved
        )
        as_numpy = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted
        )
        arguments = ocp.args.PyTreeRestore(item=wanted, restore_args=as_numpy)
        read = dict(_named(reader.restore(directory, args=arguments)))
    return {path: read[path] for path in paths}


def _parts(array: jax.Array | np.ndarray) -> list[jax.Array | np.ndarray]:
    """The sums of the parts that lie here, of copies the first; each where it lies.

    No device waits for another: so many small programs that all have to meet would be
    too many for some backends.
    """
    none = np.zeros(2, np.uint32)
    if isinstance(array, jax.Array):
        return [none] + [
            _sums_on_device(part.data, [s.start or 0 for s in part.index], array.shape)
            for part in array.addressable_shards
            if part.replica_id == 0
        ]
    rows = array.reshape(1) if array.ndim == 0 else array
    step = max(1, PIECE // max(1, rows[:1].nbytes))
    inner = [0] * (rows.ndim - 1)
    return [none] + [
        _sums(rows[i : i + step], [i, *inner], rows.shape, np)
        for i in range(0, len(rows), step)
    ]


def _sums(array, begin: Sequence[int], shape: tuple[int, ...], xp=jnp):
    """uint32 [2]: two sums over the values, each mixed with its place.

    For a given place the mixing is one to one, so one changed value always changes the
    first sum; more than one escape both with a chance of 2^-64.

    Args:
      array: a part of an array.
      begin: where in that it begins, along each axis.
      shape: of the whole.
      xp: numpy or jax.numpy.
    """
    if array.dtype == bool:
        array = array.astype(xp.uint8)
    values = array.view(f"uint{8 * array.dtype.itemsize}").astype(xp.uint32)
    places = xp.zeros((1,) * array.ndim, xp.uint32)
    for axis, size in enumerate(shape):
        along = xp.arange(array.shape[axis], dtype=xp.uint32) + xp.uint32(begin[axis])
        along = along.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
        places = places * xp.uint32(size) + along
    mixed = _mix(values ^ _mix(places + 1))
    sums = mixed, mixed * (2 * places + 1)
    return xp.stack([each.sum(dtype=xp.uint32) for each in sums])


_sums_on_device = jax.jit(_sums, static_argnames=("shape", "xp"))


def _mix(x):
    """A permutation of uint32 in which every bit of x moves about half of all bits."""
    x = (x ^ (x >> 16)) * np.uint32(0x21F0AAAD)
    x = (x ^ (x >> 15)) * np.uint32(0xD35A2D97)
    return x ^ (x >> 15)


def _named(tree: Any) -> list[tuple[str, Any]]:
    return [(_name(path), leaf) for path, leaf in jax.tree.leaves_with_path(tree)]


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
