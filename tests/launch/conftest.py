"""Stand-ins for gcloud, srun, kubectl, ...: first in PATH, they note their calls.

`stage.offers(name, behaviour)` puts one there that then does what the shell text
`behaviour` says; `stage.calls` are the command lines so far, quoted for a shell.
"""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

STAND_IN = """#!/usr/bin/env bash
printf -v line ' %q' {name} "$@"
echo "${{line:1}}" >>{calls}
{behaviour}
"""


class Stage:
    """A copy of launch/ in a repository of its own, and programs that only pretend."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.repository = folder / "repository"
        self.environment = os.environ | {"PATH": f"{folder}/bin:{os.environ['PATH']}"}
        self._calls = folder / "calls"
        self._calls.touch()
        (folder / "bin").mkdir()
        shutil.copytree(ROOT / "launch", self.repository / "launch")

    def offers(self, name: str, behaviour: str = ""):
        program = self.folder / "bin" / name
        program.write_text(
            STAND_IN.format(name=name, calls=self._calls, behaviour=behaviour)
        )
        program.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines()

    def begin(self, script: str, *arguments: str, **variables: str) -> subprocess.Popen:
        """Starts a script of launch/ without waiting for it."""
        return subprocess.Popen(
            ["bash", f"launch/{script}", *arguments],
            cwd=self.repository,
            env=self.environment | variables,
            start_new_session=True,  # its process group is its terminal
            # A shell keeps what it inherits as ignored: jobs in the background do.
            preexec_fn=_hear_ctrl_c,  # noqa: PLW1509, no thread holds a lock of it
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, script: str, *arguments: str, **variables: str
    ) -> subprocess.CompletedProcess:
        process = self.begin(script, *arguments, **variables)
        printed = process.communicate(timeout=60)
        return subprocess.CompletedProcess(script, process.returncode, *printed)


def _hear_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)
