"""One of two processes that train together is killed."""

import functools
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from driver import Event
from tiny_command import (
    PATIENCE,
    STEPS,
    Run,
    assert_same,
    ended,
    reached,
    step_said,
    until,
)

LIMIT = 30  # seconds within which the one that is left has to end
FAULTS = 3


def start_two(run: Run) -> list[subprocess.Popen]:
    """Both processes of a run on this machine; they agree on a port that is free."""
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    place = f"--coordinator=localhost:{port}", "--processes=2"
    return [run.start(*place, f"--process={i}") for i in range(2)]


def two_undisturbed(card: Path, workdir: Path, tokenizer: Path) -> Path:
    """The workdir of two processes to which nothing happens; W/vqgan is a copy."""
    shutil.copytree(tokenizer / "vqgan", workdir / "vqgan")
    run = Run("prior", workdir, card, random.Random(0))
    for process in start_two(run):
        ended(run, process, None, 0)
    return workdir


def live_as_two(number: int, *, seed: int, card: Path, expected: Path) -> list[Event]:
    """One of the two is killed, three times over; then both may end.

    Raises:
      AssertionError: if the other one stays, or anything is lost or different.
    """
    rng = random.Random(f"{seed}, pair {number}")
    run = Run("prior", expected.with_name(f"pair-{number}"), card, rng)
    shutil.copytree(expected / "vqgan", run.workdir / "vqgan")
    events, target = [], 0
    for left in reversed(range(FAULTS + 1)):
        before, both = len(run.said()), start_two(run)
        victim = rng.randrange(2)
        if left:
            target += rng.randint(1, (STEPS[run.stage] - target) // (left + 1))
            until(functools.partial(reached, run, before, target), run, both[0])
            ended(run, both[victim], signal.SIGKILL, -signal.SIGKILL)
            ending = _gives_up(run, both[1 - victim])
        else:
            ending, _ = [ended(run, process, None, 0) for process in both]
        said = run.said()[before:]
        fault = f"process {victim} killed" if left else ""
        events.append(
            Event("", step_said(said, first=True), fault, step_said(said), ending)
        )
    assert_same(run, expected)
    return events


def _gives_up(run: Run, process: subprocess.Popen) -> str:
    start = time.monotonic()
    ending, seconds = process.wait(PATIENCE), time.monotonic() - start
    assert ending, f"ended as if it had finished: {run.said()[-3000:]}"
    assert seconds < LIMIT, f"ended after {seconds:.0f} s: {run.said()[-3000:]}"
    return f"the other by {ending} after {seconds:.1f} s"
