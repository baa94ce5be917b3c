"""Several processes as one command: who they are, that they agree, how they end.

    start(...)                   flags or environment -> jax.distributed, or one process
      roll call                  all there within the limit, none twice, all alike
    gather, barrier, ...         small things that all have to know
    stop_point(wish)             all stop at the same place
    end(code, reason)            all end, with the same line and code

What a cluster says of itself (TPU, SLURM, Kubernetes, MPI) is read by jax. Beside jax's
own service there is a line between the processes (`line.py`): jax aborts a process that
waits in vain without saying for whom, notices a death after a minute, and lets all wait
five minutes for one that ended with an error.

Alone, all of this costs nothing: no thread, no socket, and every call returns at once.
"""

import atexit
import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
from flax.traverse_util import flatten_dict

from taming_jax.processes.line import Line
from taming_jax.processes.place import Place, find_place

# A process that says nothing for so long (frozen, or cut off) counts as dead; one that
# dies is noticed at once, by its connection.
HEARTBEAT_SECONDS = 60
# An error may be the echo of another process's death: the news of that comes first.
_ECHO_SECONDS = 1.0
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class _Here:
    """This process's line to the others; None: it is alone."""

    line: Line | None = None


def start(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    alike: Mapping[str, Any] | None = None,
    timeout: float = 300,
) -> None:
    """Joins the processes of this command, if there are several; before jax is used.

    From then on only process 0 prints to stdout, and an error in one process ends all.
    The first line is `describe()`.

    Args:
      coordinator: HOST:PORT of process 0. None, like the next two: as jax finds it in
        the environment; on a plain machine there is one process.
      processes: how many there are.
      process: which one this is, from 0.
      alike: name -> JSON, what has to be the same in all of them. The package's files
        and the libraries' versions have to be in any case.
      timeout: seconds within which all have to be there.

    Raises:
      ValueError: for places that cannot be, and for processes that are not alike.
      SystemExit: 75 if process 0 does not answer. (If others are missing, or two have
        the same number, all that are there are ended, by 75 and 2.)
    """
    if _Here.line is not None:  # a second command in the same processes
        _check_alike(alike or {})
    elif place := find_place(coordinator, processes, process, timeout):
        _join(place, alike or {}, timeout)


def end(code: int, reason: str) -> NoReturn:
    """Ends this process with an exit code and a line on stderr, and all others too."""
    if _Here.line is not None:
        time.sleep(_ECHO_SECONDS)
        _Here.line.end(code, reason)
    print(f"error: {reason}", file=sys.stderr)
    raise SystemExit(code) from None


def end_now(code: int, reason: str) -> NoReturn:
    """As `end`, from any thread and whatever the main one is doing."""
    if _Here.line is not None:
        _Here.line.end(code, reason)
    print(f"error: {reason}", file=sys.stderr, flush=True)
    os._exit(code)


def is_first() -> bool:
    """Whether this is the process that writes what there is one of."""
    return jax.process_index() == 0


def describe() -> str:
    """The topology in one line."""
    hosts = gather("host", platform.node())
    devices = Counter(device.process_index for device in jax.devices())
    each = " or ".join(str(n) for n in sorted(set(devices.values())))
    where = [
        f"{host}: {', '.join(str(i) for i, h in enumerate(hosts) if h == host)}"
        for host in dict.fromkeys(hosts)
    ]
    return (
        f"{len(hosts)} processes with {each} device(s) each, by host "
        f"({'; '.join(where[:8])}{'; ...' if len(where) > 8 else ''})"
    )


def gather(name: str, value: Any, seconds: float = 600) -> list[Any]:
    """Each process's value, in JSON's types; called by all with the same names.

    If one has not called it within `seconds`, all are ended by a line that names it.
    """
    return [value] if _Here.line is None else _Here.line.gather(name, value, seconds)


def barrier(name: str, seconds: float = 600) -> None:
    """Returns when all processes have got here."""
    gather(name, None, seconds)


@contextlib.contextmanager
def first_goes_first(name: str, seconds: float = 3600) -> Iterator[None]:
    """The others enter the block once process 0 has left it, and find its work done."""
    if not is_first():
        barrier(name, seconds)
    yield
    if is_first():
        barrier(name, seconds)


def same_everywhere(name: str, value: Any) -> None:
    """Checks that all processes have the same value, in JSON's types.

    Raises:
      ValueError: in all of them, naming those that differ from most, and in what.
    """
    text = json.dumps(value, sort_keys=True)
    digests = gather(name, hashlib.sha256(text.encode()).hexdigest())
    if len(set(digests)) == 1:
        return
    values = gather(f"{name} in full", json.loads(text))
    usual, votes = Counter(digests).most_common(1)[0]
    odd = [i for i, digest in enumerate(digests) if digest != usual]
    parts = [_difference(values[digests.index(usual)], values[i]) for i in odd[:3]]
    if 2 * votes > len(digests):
        those = "; ".join(
            f"process {i} ({_Here.line.places[i]}): {part}"
            for i, part in zip(odd, parts, strict=False)
        )
        which = f"{those} (the others' first)"
    else:
        pair = digests.index(usual), odd[0]
        named = " and ".join(f"process {i} ({_Here.line.places[i]})" for i in pair)
        which = f"{named} differ: {parts[0]}"
    raise ValueError(
        f"the processes have not the same {name}: {which}; start all of them by the "
        "same command, from the same files, in the same environment"
    )


def stop_point(wish: int) -> int:
    """The signal for which all processes stop here, or 0; called by all equally often.

    Args:
      wish: the signal that this process was sent, or 0.
    """
    return wish if _Here.line is None else _Here.line.stop_point(wish)


def versions() -> dict[str, str]:
    """Of Python and of the libraries that the numbers depend on, as far as they are."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _join(place: Place, alike: Mapping[str, Any], timeout: float) -> None:
    _Here.line = Line(place.coordinator, place.processes, place.process, timeout)
    sys.excepthook = _end_by_exception
    atexit.register(_leave)
    _check_alike({"code": _code(), "versions": versions(), **alike})
    jax.distributed.initialize(
        place.coordinator,
        place.processes,
        place.process,
        place.device_ids,
        cluster_detection_method="deactivate",
        initialization_timeout=round(timeout),
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
    )
    # jax takes SIGTERM for itself; until a loop wants it, it ends the process.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if place.process:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (for good)
    print(describe(), flush=True)


def _check_alike(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        same_everywhere(name, value)


def _leave() -> None:
    """The way out, before jax's: once all have got here, nobody is missed."""
    _Here.line.leave()
    _Here.line = None


def _end_by_exception(kind, error, trace) -> None:
    """What nobody caught ends all processes: jax would have it wait for the others."""
    traceback.print_exception(kind, error, trace)
    code = 130 if kind is KeyboardInterrupt else 1
    end(code, f"{kind.__name__}: {str(error).partition(chr(10))[0]}")


def _difference(usual: Any, odd: Any) -> str:
    """'KEY: usual, odd' for up to three keys in which two values differ."""
    usual, odd = _flat(usual), _flat(odd)
    keys = [k for k in sorted(usual.keys() | odd) if usual.get(k) != odd.get(k)]
    shown = [f"{k}: {usual.get(k)!r}, {odd.get(k)!r}".lstrip(": ") for k in keys[:3]]
    return "; ".join(shown) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _flat(value: Any) -> dict[str, Any]:
    return flatten_dict(value, sep=".") if isinstance(value, dict) else {"": value}


def _code() -> dict[str, str]:
    """File of this package -> digest."""
    package = Path(__file__).parents[1]
    digests = {}
    for path in sorted(package.rglob("*.py")):
        digest = hashlib.blake2b(path.read_bytes(), digest_size=6)
        digests[str(path.relative_to(package))] = digest.hexdigest()
    return digests
