"""A line between all processes: who is there, what they agree on, and who is gone.

Process 0 has the switchboard; every process, 0 too, has one connection to it. They
say lines of JSON:

    to the switchboard                     from it, to all
    ["join", process, processes, place]
    ["give", name, value, seconds]         ["all", name, [value of 0, of 1, ...]]
    ["stop", signal, n]                    ["stop", signal, n], once for each n
    ["end", code, reason]                  ["end", code, reason], the first one only
    ["leave"]
    a connection that breaks               ["end", 1, "process 1 (...) is gone"]

It uses the coordinator's port before jax does, and no other: connections outlive the
socket that listened for them.
"""

import contextlib
import os
import platform
import socket
import sys
import threading
import time
from collections import Counter
from typing import Any, NoReturn

from taming_jax.processes.switchboard import MISSING, Switchboard, encode, messages

_STOP = "the place to stop at"
_STOP_SECONDS = 60
_END = "the end"


class Line:
    """This process's end of the line.

    Attributes:
      places: of each process, "host, pid".

    Args:
      coordinator: HOST:PORT of process 0.
      processes: how many there are.
      process: which one this is.
      timeout: seconds within which all have to be there.

    Raises:
      ValueError: in process 0, if the port is taken.
      SystemExit: 75, if process 0 does not answer.
    """

    def __init__(self, coordinator: str, processes: int, process: int, timeout: float):
        host, _, port = coordinator.rpartition(":")
        self._coordinator, self._process = coordinator, process
        self._switchboard = None
        if process == 0:
            self._switchboard, host = Switchboard(int(port), processes), "127.0.0.1"
        self._socket = _connect(host.strip("[]"), int(port), timeout)
        self._speaking = threading.Lock()
        self._news = threading.Condition()
        self._gathered: dict[str, list] = {}
        self._rounds = Counter()  # how often each name was gathered
        self._points = 0  # how many stop points have been passed
        self._signal = self._stop_at = None
        self._stops = 0  # how often all have stopped
        self._left = False
        place = f"{platform.node()}, pid {os.getpid()}"
        self._say("join", process, processes, place)
        threading.Thread(target=self._listen, daemon=True, name="line").start()
        self.places = self.gather("the start", place, timeout)

    def gather(self, name: str, value: Any, seconds: float) -> list[Any]:
        """See `processes.gather`."""
        self._rounds[name] += 1
        key = f"{name} ({self._rounds[name]})" if self._rounds[name] > 1 else name
        try:
            self._say("give", key, value, seconds)
        except OSError:  # whoever hung up said why; `_listen` hears it, and ends us
            time.sleep(10)
            raise
        with self._news:
            self._news.wait_for(lambda: key in self._gathered)
            return self._gathered.pop(key)

    def stop_point(self, wish: int) -> int:
        """See `processes.stop_point`.

        At the news that one process wants to stop, each says how many points it has
        passed, and passes none until all have said so; they stop at the first point
        that none has passed.
        """
        if wish and self._signal is None:
            self._say("stop", wish, self._stops + 1)
            with self._news:
                self._news.wait_for(lambda: self._signal is not None)
        with self._news:
            self._news.wait_for(lambda: self._signal is None or self._stop_at)
            self._points += 1
            if self._points != self._stop_at:
                return 0
            stop, self._signal, self._stop_at = self._signal, None, None
            self._stops += 1
            return stop

    def end(self, code: int, reason: str) -> NoReturn:
        """Ends all processes; the line that is printed is that of the first to call."""
        if self._process:
            reason = f"process {self._process}: {reason}"
        with contextlib.suppress(OSError):
            self._say("end", code, reason)
        time.sleep(10)  # the answer ends this process
        self._exit(code, reason)

    def leave(self, seconds: float = 600) -> None:
        """Hangs up once all are about to, so that nobody is missed."""
        self.gather(_END, None, seconds)
        with contextlib.suppress(OSError):
            self._say("leave")
            self._socket.shutdown(socket.SHUT_RDWR)

    def _say(self, *message: Any) -> None:
        with self._speaking:
            self._socket.sendall(encode(*message))

    def _listen(self) -> None:
        for kind, *content in messages(self._socket):
            match kind:
                case "all":
                    self._hear(*content)
                case "stop":
                    with self._news:
                        self._signal, n = content
                        key = f"{_STOP} ({n})"
                        self._say("give", key, self._points, _STOP_SECONDS)
                        self._news.notify_all()
                case "end":
                    self._exit(*content)
        if not self._left:
            self._exit(
                1,
                f"process 0 ({self._coordinator}) is gone: this one stops; the same "
                "command continues from the last checkpoint",
            )

    def _hear(self, name: str, values: list) -> None:
        with self._news:
            if name.startswith(_STOP):
                self._stop_at = max(values) + 1
            else:
                self._left = name == _END  # from now on a broken connection is none
                self._gathered[name] = values
            self._news.notify_all()

    def _exit(self, code: int, reason: str) -> NoReturn:
        """At once: the main thread may be waiting for a process that is no more."""
        sys.stdout.flush()
        print(f"error: {reason}", file=sys.stderr, flush=True)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._switchboard:
            self._switchboard.linger()
        os._exit(code)


def _connect(host: str, port: int, timeout: float) -> socket.socket:
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection = socket.create_connection((host, port), min(timeout, 10))
        except OSError as error:
            if time.monotonic() > deadline:
                print(
                    f"error: process 0 does not answer at {host}:{port} within "
                    f"{timeout:g} s ({error.strerror or error}): is it running, is "
                    "this its address, and is the port open to this machine?",
                    file=sys.stderr,
                )
                raise SystemExit(MISSING) from None
            time.sleep(0.2)
        else:
            connection.settimeout(None)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
