"""Process 0's part of the line: hears every process, and tells all of them.

See `line.py` for what is said.
"""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

REFUSED = 2  # exit codes
MISSING = 75  # what may be there next time (EX_TEMPFAIL)
LINGER_SECONDS = 5.0


class Switchboard:
    """Joins the connections of all processes; lives in threads of process 0.

    Args:
      port: on which it listens until all processes are there.
      processes: how many that are.

    Raises:
      ValueError: if the port is taken.
    """

    def __init__(self, port: int, processes: int):
        self._processes = processes
        self._lock = threading.RLock()
        self._connections: dict[int, socket.socket] = {}
        self._places: dict[int, str] = {}
        self._given: dict[str, dict[int, Any]] = {}
        self._timers: dict[str, threading.Timer] = {}
        self._left: set[int] = set()
        self._stops, self._ending = 0, None
        self._others_are_gone = threading.Event()
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        try:
            self._listener = socket.create_server(
                ("", port), family=family, dualstack_ipv6=both, backlog=processes
            )
        except OSError as error:
            raise ValueError(
                f"process 0 cannot listen for the others at port {port}: "
                f"{error.strerror}; is there another process 0, or another program? "
                "Number the processes from 0 on, end it, or choose another port"
            ) from None
        _in_thread(self._accept)

    def linger(self) -> None:
        """Waits a little for the others to end: without process 0 jax aborts them."""
        self._others_are_gone.wait(LINGER_SECONDS)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it was closed: all are there
            while True:
                _in_thread(self._serve, self._listener.accept()[0])

    def _serve(self, connection: socket.socket) -> None:
        process = None
        for kind, *content in messages(connection):
            with self._lock:
                if kind == "join":
                    process = self._join(connection, *content)
                elif process is not None:
                    self._hear(process, kind, content)
        if process is not None:
            self._gone(process)
        connection.close()

    def _join(self, connection, process: int, processes: int, place: str) -> int | None:
        """Its number, or None if it is turned away, and everyone with it."""
        if processes != self._processes:
            self._end(
                REFUSED,
                f"process {process} ({place}) was started as one of {processes}, "
                f"process 0 as one of {self._processes}: start all of them with the "
                "same --processes",
            )
        elif process in self._places:
            self._end(
                REFUSED,
                f"two processes say that they are process {process}: "
                f"({self._places[process]}) and ({place}); give each its own --process",
            )
        if self._ending:
            connection.sendall(encode("end", *self._ending))
            return None
        self._connections[process], self._places[process] = connection, place
        if len(self._connections) == self._processes:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        return process

    def _hear(self, process: int, kind: str, content: list) -> None:
        match kind:
            case "give":
                self._give(process, *content)
            case "stop" if content[1] > self._stops:
                self._stops = content[1]
                self._tell("stop", *content)
            case "end":
                self._end(*content)
            case "leave":
                self._left.add(process)

    def _give(self, process: int, name: str, value: Any, seconds: float) -> None:
        given = self._given.setdefault(name, {})
        given[process] = value
        if len(given) == self._processes:
            self._timers.pop(name).cancel()
            del self._given[name]
            self._tell("all", name, [given[i] for i in range(self._processes)])
        elif len(given) == 1:
            timer = threading.Timer(seconds, self._overdue, (name, seconds))
            timer.daemon = True
            timer.start()
            self._timers[name] = timer

    def _overdue(self, name: str, seconds: float) -> None:
        with self._lock:
            if name not in self._given:  # it came at the last moment
                return
            late = [i for i in range(self._processes) if i not in self._given[name]]
            those = ", ".join(f"{i} ({self._places.get(i, 'not seen')})" for i in late)
            self._end(
                MISSING,
                f"waited {seconds:g} s at {name} for process {those} of "
                f"{self._processes}: see what it printed, and start all of them again",
            )

    def _gone(self, process: int) -> None:
        with self._lock:
            del self._connections[process]
            if process not in self._left:
                self._end(
                    1,
                    f"process {process} ({self._places[process]}) is gone: all stop; "
                    "the same command continues from the last checkpoint",
                )
            if not self._connections.keys() - {0}:
                self._others_are_gone.set()

    def _end(self, code: int, reason: str) -> None:
        if self._ending is None:
            self._ending = code, reason
            self._tell("end", code, reason)

    def _tell(self, *message: Any) -> None:
        """Process 0 is told last: when it ends, this does."""
        for process in sorted(self._connections, reverse=True):
            with contextlib.suppress(OSError):
                self._connections[process].sendall(encode(*message))


def encode(*message: Any) -> bytes:
    """A message as it goes over the line."""
    return json.dumps(message).encode() + b"\n"


def messages(connection: socket.socket) -> Iterator[list]:
    """What the other end says, until it is gone or turns out to be none of ours."""
    with contextlib.suppress(OSError, ValueError), connection.makefile("rb") as lines:
        for line in lines:
            yield json.loads(line)


def _in_thread(work, *arguments: Any) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()
