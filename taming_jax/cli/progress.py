"""How far a verb is: one line that renews itself, or now and then a line in a file."""

import sys
import time

_SECONDS = {True: 0.5, False: 10.0}  # between two of them; whether people watch


class Progress:
    """Says how much is done, how fast, and for how long it will go on.

    Speed is measured from the end of the first part on, which compiles.

    Args:
      total: how much there is to do.
      what: it is called.
    """

    def __init__(self, total: int, what: str = "pictures"):
        self._total, self._what, self._done = total, what, 0
        self._watched = sys.stdout.isatty()
        self._since = self._said = None
        self._first = 0

    def __call__(self, count: int) -> None:
        """Notes `count` more."""
        from taming_jax.training.progress import clock

        self._done += count
        now, is_over = time.monotonic(), self._done >= self._total
        if self._since is None:
            self._since = self._said = now
            self._first = self._done
            return
        if now - self._said < _SECONDS[self._watched] and not is_over:
            return
        self._said = now
        speed = (self._done - self._first) / max(now - self._since, 1e-9)
        line = (
            f"{self._done:,}/{self._total:,} {self._what}  {speed:.1f}/s  "
            f"{clock((self._total - self._done) / speed)} to go"
        )
        if self._watched:
            # Blanks cover what is left of a longer line.
            print(f"\r{line:<60}", end="\n" if is_over else "", flush=True)
        else:
            print(line, flush=True)
