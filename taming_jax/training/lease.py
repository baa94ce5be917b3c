"""A directory of a bucket, held by one run: what a lock on a file is on a disk.

    DIRECTORY/.lock   who holds it, and for how long they may keep silent

The holder writes it anew every few seconds. Every write names the generation of the
object that it replaces, so that of two who try one wins, wherever they run. Who finds
it held waits: until it is renewed, then the holder lives, or for as long as they may
keep silent, then they are dead. No clocks are compared.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import PurePath

import tensorstore

from taming_jax.files import reached

SILENCE = 60.0  # seconds; a restart waits as long for a run that died without a word


@contextlib.contextmanager
def leased(
    directory: PurePath, *, lost: Callable[[str], None], silence: float = SILENCE
) -> Iterator[None]:
    """Holds `directory`, gs://..., for this process, and lets it go at the end.

    Args:
      directory: which need not be there.
      lost: called, from a thread, with the reason if the claim is lost on the way:
        this process was cut off for so long that another may have taken over. It has
        to end the process before anything else is written.
      silence: seconds without a renewal that make a holder dead.

    Raises:
      ValueError: if a living run holds it, or the bucket may not be written to.
    """
    lease = _Lease(directory, silence)
    with reached(directory, "--workdir"):
        lease.take()
    keeper = threading.Thread(target=lease.keep, args=(lost,), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        lease.over.set()
        keeper.join()
        lease.let_go()


class _Lease:
    """The object: taken, kept and let go by one process."""

    def __init__(self, directory: PurePath, silence: float):
        self.over = threading.Event()
        self._directory, self._silence = directory, silence
        self._store = tensorstore.KvStore.open(f"{directory}/").result()
        self._generation = b""  # of what was written last
        holder = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "silence": silence,
            "nonce": uuid.uuid4().hex,  # in containers many a process is number 1
        }
        self._content = json.dumps(holder).encode()

    def take(self) -> None:
        """Waits if somebody holds it, and takes it from the dead."""
        found = self._read()
        if found.state == "value":
            found = self._wait(found)
        if not self._replace(found.stamp.generation):
            raise self._in_use(self._read().value)

    def keep(self, lost: Callable[[str], None]) -> None:
        """Renews it until it is over; what is not answered is tried again."""
        renewed, pause = time.monotonic(), self._silence / 8
        while not self.over.wait(pause):
            asked, end = time.monotonic(), renewed + self._silence * 3 / 4
            try:
                if not self._replace(self._generation, max(end - asked, pause)):
                    lost("another run has taken it over")
                    return
                renewed = asked
            except (ValueError, TimeoutError) as error:
                if time.monotonic() >= end:
                    reason = str(error) or "no answer came in time"
                    lost(f"it could not be renewed: {reason}")
                    return

    def let_go(self) -> None:
        """Removes it if it is still ours; who comes next does not have to wait."""
        with contextlib.suppress(ValueError, TimeoutError):
            gone = self._store.write(".lock", None, if_equal=self._generation)
            gone.result(timeout=self._silence)

    def _wait(self, found):
        """What is there after the silence; raises ValueError if it is broken."""
        holder, before = json.loads(found.value), found.stamp.generation
        print(f"waiting for a sign of life: {_named(holder)}", file=sys.stderr)
        end = time.monotonic() + holder["silence"]
        while time.monotonic() < end and found.stamp.generation == before:
            time.sleep(min(1.0, holder["silence"] / 16))
            found = self._read()
        if found.state == "value" and found.stamp.generation != before:
            raise self._in_use(found.value)
        return found

    def _replace(self, before: bytes, timeout: float | None = None) -> bool:
        """Writes over the generation `before`; False if that is there no longer."""
        written = self._store.write(".lock", self._content, if_equal=before)
        generation = written.result(timeout=timeout).generation
        if not generation:  # refused, unless it is just the answer that got lost
            found = self._read(timeout)
            if found.value != self._content:
                return False
            generation = found.stamp.generation
        self._generation = generation
        return True

    def _read(self, timeout: float | None = None):
        return self._store.read(".lock").result(timeout=timeout)

    def _in_use(self, content: bytes) -> ValueError:
        return ValueError(
            f"{self._directory} is in use by {_named(json.loads(content or '{}'))}: "
            "wait for it, stop it, or choose another --workdir"
        )


def _named(holder: dict) -> str:
    return f"process {holder.get('process')} on {holder.get('host')}"
