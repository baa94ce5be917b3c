"""A run that hangs ends, and says where: on a pod nobody else would notice."""

import faulthandler
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from taming_jax import processes

T = TypeVar("T")

STALLED = 75  # the exit code: what failed may go well the next time


class Watchdog:
    """Ends the process if `progress` was not called for `limit` seconds, while entered.

    Before it does, the stacks of all threads go to stderr. There is no tidying up: what
    hangs would hang there too, and the last checkpoint is whole. None: no limit.
    """

    def __init__(self, limit: float | None):
        self._limit = limit
        self._left = threading.Event()
        self.progress()

    def progress(self) -> None:
        """Something was done."""
        self._last = time.monotonic()

    def watched(self, items: Iterable[T]) -> Iterator[T]:
        """The same, each of them a sign of progress."""
        for item in items:
            self.progress()
            yield item

    def __enter__(self):
        self.progress()
        if self._limit:
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._left.set()

    def _watch(self) -> None:
        while not self._left.wait(self._last + self._limit - time.monotonic()):
            if time.monotonic() - self._last >= self._limit:
                faulthandler.dump_traceback(sys.__stderr__)
                processes.end_now(
                    STALLED,
                    f"no progress for {self._limit:g} s (stall_seconds); where every "
                    "thread was is said above",
                )
