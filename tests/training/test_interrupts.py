"""A wish to stop that is not fulfilled in time is answered, too."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

# The main thread computes where no handler of Python's is called.
BUSY = """
import os, signal
import numpy as np
from taming_jax.training.interrupts import Interrupts
with Interrupts(seconds=0.5) as interrupts:
    os.kill(os.getpid(), signal.{name})
    np.linalg.matrix_power(np.eye({size}), 2**63 - 1)
    print("asked", int(interrupts.asked()))
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_step_that_does_not_end_in_time_is_said_not_to_be_saved(name, code):
    began = time.monotonic()
    finished = run(BUSY.format(name=name, size=2048))
    assert finished.returncode == code, finished.stderr
    assert f"{name}: saving after this step" in finished.stderr
    assert "have not ended within 0.5 s, so it is not saved" in finished.stderr
    assert time.monotonic() - began < 30


def test_a_step_that_ends_in_time_is_asked_to_stop():
    finished = run(BUSY.format(name="SIGTERM", size=2))
    assert (finished.returncode, finished.stdout) == (0, "asked 15\n")


def run(program):
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        check=False,
        capture_output=True,
        text=True,
    )
