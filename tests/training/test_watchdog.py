"""What happens to a run that hangs, in a process of its own, for it is ended."""

import subprocess
import sys

from taming_jax.training.watchdog import STALLED

SCRIPT = """
import time
from taming_jax.training.watchdog import Watchdog

def stuck_here():
    time.sleep(60)

with Watchdog({limit}) as watchdog:
    for _ in range(4):
        time.sleep(0.2)
        watchdog.progress()
    list(watchdog.watched([1, 2]))
    if {hangs}:
        stuck_here()
print("done")
"""


def run(**how):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(**how)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_a_run_that_hangs_ends_and_says_where():
    finished = run(limit=0.5, hangs=True)
    assert finished.returncode == STALLED
    assert "no progress for 0.5 s (stall_seconds)" in finished.stderr
    assert "in stuck_here" in finished.stderr


def test_a_run_that_gets_on_is_left_alone():
    finished = run(limit=0.5, hangs=False)
    assert (finished.returncode, finished.stdout) == (0, "done\n")


def test_without_a_limit_nothing_is_watched():
    finished = run(limit=None, hangs=False)
    assert (finished.returncode, finished.stdout) == (0, "done\n")
