"""What reading files comes to, seen from outside of the process that reads them.

    judged([(path, expected), ...]) -> [Verdict("refused", seconds, megabytes, ""), ...]

The readers are copies of this process with limits to their memory and their time, in
which whatever imports, runs, compiles, connects or opens a file to write is noticed. If
one dies, the file that it was at is to blame, and another copy goes on with the next.
"""

import codecs
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from samples import canonical

SECONDS, MEGABYTES = 20, 1024
OUTCOMES = ("equal", "refused", "other", "else")
_FORBIDDEN = (
    "import", "compile", "exec", "os.system", "os.exec", "os.posix_spawn", "os.fork",
    "os.remove", "os.rename", "os.mkdir", "subprocess.Popen", "socket.connect",
    "pickle.find_class", "marshal.loads", "ctypes.dlopen", "code.__new__",
)  # fmt: skip

for _name in ("raw_unicode_escape", "latin1"):  # imported when first used
    codecs.lookup(_name)


class Verdict(NamedTuple):
    """One of `OUTCOMES`, what it took at most, and if it is the last one, why.

    The memory is the most that its reader had until then, beyond what it began with.
    """

    outcome: str
    seconds: float
    megabytes: float
    reason: str


def judged(cases: Sequence[tuple[Path, str]]) -> list[Verdict]:
    """Reads files; with each goes the `canonical` text of the sound one."""
    verdicts: list[Verdict] = []
    while len(verdicts) < len(cases):
        verdicts += _judged_by_a_copy(cases[len(verdicts) :])
    return verdicts


def _judged_by_a_copy(cases: Sequence[tuple[Path, str]]) -> list[Verdict]:
    """As far as it gets: at least one."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with os.fdopen(writer, "w", buffering=1) as pipe:
            _read_all(cases, pipe)
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        verdicts = [Verdict(*json.loads(line)) for line in pipe]
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        died = signal.Signals(os.WTERMSIG(status)).name
        verdicts.append(Verdict("else", SECONDS, MEGABYTES, died))
    return verdicts


def _read_all(cases: Sequence[tuple[Path, str]], pipe) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEGABYTES * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    seen: list[str] = []
    sys.addaudithook(lambda event, args: _note(seen, event, args))
    memory = _peak()
    for path, expected in cases:
        begin = time.process_time()
        signal.alarm(SECONDS)
        outcome = _read(path, expected, seen)
        signal.alarm(0)
        reason, outcome = " ".join(seen)[:4000], "else" if seen else outcome
        verdict = outcome, time.process_time() - begin, _peak() - memory, reason
        seen.clear()
        print(json.dumps(verdict), file=pipe)


def _read(path: Path, expected: str, seen: list[str]) -> str:
    try:
        return "equal" if canonical(path) == expected else "other"
    except ValueError as error:
        if str(error).isprintable():
            return "refused"
        seen.append(f"in more than a line: {error!r}")
    except BaseException:  # noqa: BLE001  (whatever it is, it is the outcome)
        seen.append(traceback.format_exc(limit=-2))
    return "else"


def _note(seen: list[str], event: str, args: tuple) -> None:
    writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    if writes or event.startswith(_FORBIDDEN):
        seen.append(f"{event}{args!r:.200}")


def _peak() -> float:
    """The most that this process has had, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
