"""Does to a training run what machines do to it, and asks whether it shows.

One life: the real command trains a tiny stage; at moments that (seed, life) choose it
is killed, its disk fills up, its newest checkpoint is damaged, a second run wants its
directory; after each fault the same command is given again, until the run ends. What it
leaves must be what a run leaves that nothing has happened to: every array of the last
checkpoint bit for bit, and every line of the metrics.

    before a start  truncated, deleted, flipped: a file of the newest checkpoint
    while it runs   kill -9, SIGTERM, Ctrl-C, disk full, second run
"""

import contextlib
import functools
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from etils import epath
from tiny_command import (
    STEPS,
    Run,
    assert_same,
    ended,
    reached,
    step_said,
    until,
)

from taming_jax import soundness

STAGES = ("vqgan", "vqgan", "prior")  # of the lives that one process leads
DISK = 32  # MB that a life's file system has


class Event(NamedTuple):
    """A start of the command and how it ended.

    Attributes:
      damage: what was done to which file of the newest checkpoint before it.
      began: the step that it began from.
      fault: what was done to it while it ran.
      step: where it was then.
      ending: its exit code, and how long after the fault.
    """

    damage: str
    began: int
    fault: str
    step: int
    ending: str


def killed(run: Run, process: subprocess.Popen) -> str:
    """kill -9: between two steps or in one, or while a checkpoint is written."""
    if run.rng.random() < 0.5:
        until(run.saves, run, process)
    time.sleep(run.rng.uniform(0, 0.03))
    return ended(run, process, signal.SIGKILL, -signal.SIGKILL)


def terminated(run: Run, process: subprocess.Popen) -> str:
    """SIGTERM, as before a preemption."""
    return ended(run, process, signal.SIGTERM, 128 + signal.SIGTERM)


def interrupted(run: Run, process: subprocess.Popen) -> str:
    """Ctrl-C."""
    return ended(run, process, signal.SIGINT, 128 + signal.SIGINT)


def disk_full(run: Run, process: subprocess.Popen) -> str:
    """Something else fills the disk; it is removed when the run has ended."""
    filler = run.workdir / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    result = ended(run, process, None, 2)
    filler.unlink()
    assert "no room left on the disk" in run.said()
    return result


def second_run(run: Run, process: subprocess.Popen) -> str:
    """The same command again while the first is alive, which then is killed."""
    process.send_signal(signal.SIGSTOP)  # or it might end before the second begins
    second = run.start()
    ended(run, second, None, 2)
    assert f"in use by process {process.pid}" in run.said()
    return ended(run, process, signal.SIGKILL, -signal.SIGKILL)


def truncated(run: Run, file: Path) -> None:
    """The file ends too early."""
    content = file.read_bytes()
    file.write_bytes(content[: run.rng.randrange(len(content))])


def deleted(run: Run, file: Path) -> None:
    """The file is gone."""
    file.unlink()


def flipped(run: Run, file: Path) -> None:
    """One bit of the file is another."""
    content = bytearray(file.read_bytes())
    content[run.rng.randrange(len(content))] ^= 1 << run.rng.randrange(8)
    file.write_bytes(content)


DURING = (killed, terminated, interrupted, disk_full, second_run)
BEFORE = (truncated, deleted, flipped)


def live(run: Run, expected: Path) -> list[Event]:
    """One life: every fault once, in an order that rng chooses.

    Args:
      run: not begun yet.
      expected: the workdir of a run of the same card that nothing has happened to.

    Returns:
      What has happened.

    Raises:
      AssertionError: if anything is lost or different.
    """
    faults = [*run.rng.sample(DURING, len(DURING)), None]
    damages = run.rng.sample(BEFORE, len(BEFORE))
    events, target = [], 0
    for left, fault in zip(reversed(range(len(faults))), faults, strict=True):
        newest = _newest(run)
        spoilt = ""
        if newest and damages and run.rng.random() < len(damages) / (left + 1):
            spoilt = _spoil(run, newest, damages.pop())
        before = len(run.said())
        process = run.start()
        if fault:
            target += run.rng.randint(0, (STEPS[run.stage] - target) // (left + 2))
            heard = fault in (terminated, interrupted)  # from the first step on
            moment = max(target, int(heard))
            until(functools.partial(reached, run, before, moment), run, process)
        ending = fault(run, process) if fault else ended(run, process, None, 0)
        said = run.said()[before:]
        events.append(
            Event(
                spoilt,
                step_said(said, first=True),
                _name(fault),
                step_said(said),
                ending,
            )
        )
    assert_same(run, expected)
    return events


def life(number: int, *, seed: int, card: Path, expected: Path) -> list[Event]:
    """Life `number` of a seed, on a small disk of its own beside `expected`."""
    stage = STAGES[number % 5]
    with small_disk(expected.with_name(f"life-{number}")) as workdir:
        if stage == "prior":
            shutil.copytree(expected / "vqgan", workdir / "vqgan")
        rng = random.Random(f"{seed}, {number}")
        return live(Run(stage, workdir, card, rng), expected)


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of `DISK` MB; PermissionError where one may not be mounted."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(directory)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        raise PermissionError(f"no file system can be mounted at {directory}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def _newest(run: Run) -> Path | None:
    checkpoints = run.directory / "checkpoints"
    steps = soundness.steps_in(epath.Path(checkpoints))
    return checkpoints / str(max(steps)) if steps else None


def _spoil(run: Run, checkpoint: Path, damage: Callable) -> str:
    """Damages a file of the checkpoint; returns how and which.

    Not one of Orbax's drafts (ocdbt.process_0), which nobody reads again.
    """
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    file = run.rng.choice([path for path in files if "ocdbt.process" not in str(path)])
    damage(run, file)
    return f"{_name(damage)} {file.relative_to(checkpoint.parent)}"


def _name(function: Callable | None) -> str:
    return function.__name__.replace("_", " ") if function else ""
