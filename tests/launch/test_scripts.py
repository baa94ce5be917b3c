"""What all scripts of launch/ have in common."""

import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "launch").glob("*.sh"))
OPERATED = [path for path in SCRIPTS if path.name != "worker.sh"]
NAMES = [path.name for path in SCRIPTS]


def test_shellcheck_finds_nothing():
    shellcheck = Path(sysconfig.get_path("scripts"), "shellcheck")
    checked = subprocess.run(
        [shellcheck, *SCRIPTS], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=NAMES)
def test_no_failure_goes_unnoticed(path):
    assert "\nset -euo pipefail\n" in path.read_text()


@pytest.mark.parametrize("path", SCRIPTS, ids=NAMES)
def test_help_is_the_comment_at_the_top(path, stage):
    comment = re.match(r"#!.*\n((?:# ?.*\n|#\n)+?)(?:set|#SBATCH)", path.read_text())
    lines = [line[2:].rstrip() for line in comment.group(1).splitlines()]
    assert stage.run(path.name, "--help").stdout.splitlines() == lines


@pytest.mark.parametrize("path", OPERATED, ids=lambda path: path.name)
def test_every_option_is_explained(path, stage):
    options = re.findall(r"^      (--[a-z-]+)\)", path.read_text(), re.M)
    explained = stage.run(path.name, "--help").stdout
    assert [o for o in options if o not in explained] == ["--help"]


@pytest.mark.parametrize("path", OPERATED, ids=lambda path: path.name)
def test_an_option_that_does_not_exist_is_refused(path, stage):
    verb = ["delete"] if path.name in ("tpu.sh", "kubernetes.sh") else []
    ended = stage.run(path.name, *verb, "--nodez", "3")
    assert (ended.returncode, ended.stderr.partition(":")[0]) == (2, "error")


@pytest.mark.parametrize("name", ["slurm.sh", "gpus.sh"])
def test_a_command_is_needed(name, stage):
    assert "error: no command" in stage.run(name, "--dry-run").stderr
