"""SIGTERM and Ctrl-C as a wish that the loop fulfils between two steps."""

import signal
import socket
import sys
import threading

from taming_jax import processes

SECONDS = 30.0  # within which a state is saved, or it is said that it is not


class Interrupts:
    """While entered, the first signal asks all processes of the run to stop.

    Whoever has not left within `seconds` of it ends with the signal's code, saying that
    nothing was saved. A second Ctrl-C stops at once. A thread watches over this, since
    Python's handlers have to wait while the main thread computes or compiles.

    Attributes:
      signal: 0, or the signal for which all of them stop; set by `asked`.
    """

    def __init__(self, seconds: float = SECONDS):
        self.signal = 0
        self._seconds, self._wish, self._before = seconds, 0, {}
        self._left = threading.Event()

    def asked(self) -> int:
        """`signal`, as it is now; to be called by all processes equally often."""
        self.signal = processes.stop_point(self._wish)
        return self.signal

    def __enter__(self):
        self._ours, self._theirs = socket.socketpair()
        self._theirs.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        theirs = self._theirs.fileno()
        self._fd_before = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, daemon=True, name="interrupts").start()
        return self

    def __exit__(self, *exception):
        self._left.set()
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._theirs.close()  # which ends the thread

    def _note(self, number, frame):
        del frame
        if self._wish and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._wish = number

    def _watch(self) -> None:
        """Sees the first signal as it comes, and waits for what becomes of it."""
        number = None
        with self._ours:
            while number not in self._before:
                number = next(iter(self._ours.recv(1)), None)
                if number is None:
                    return
        name = signal.Signals(number).name
        print(f"{name}: saving after this step", file=sys.stderr, flush=True)
        if not self._left.wait(self._seconds):
            processes.end_now(
                128 + number,
                f"{name}: this step and its save have not ended within "
                f"{self._seconds:g} s, so it is not saved; the same command continues "
                "from the last checkpoint",
            )
