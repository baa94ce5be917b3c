"""Damaged checkpoints are read right or refused; `python tests/fuzz` has many more."""

import subprocess
import sys
from pathlib import Path


def test_a_thousand_damaged_files_do_no_harm():
    finished = subprocess.run(
        [sys.executable, Path(__file__).parent, "--files=1000", "--seed=1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.endswith("1000 files, 0 failures\n")
