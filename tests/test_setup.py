"""Set-up: what is installed, what is never replaced, what the linter forbids."""

import ast
import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pip
import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("taming_jax", "configs", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
)


def test_requirements_are_the_dependencies_and_extras_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = [line for line in lines if line and not line.startswith("#")]
    assert required == project["dependencies"] + extras["train"] + extras["test"]


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_every_file_is_clean(command):
    finished = ruff(*command, "--quiet", ".")
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.parametrize(
    "line",
    [
        "from jax.experimental.pjit import pjit",
        "from jax.experimental import pjit",
        "from jax.experimental import maps",
        "from jax.experimental.shard_map import shard_map",
        "from jax import pmap",
        "from jax.sharding import use_mesh",
        "from flax.training import checkpoints",
        "import jax; jax.pmap(f)",
        "import jax; jax.tree_map(f, x)",
        "import jax as j; j.tree_map(f, x)",
        "import jax; jax.device_put_replicated(x, d)",
        "import jax; jax.device_put_sharded(x, d)",
        "import jax; jax.sharding.use_mesh(mesh)",
        "import jax; jax.random.PRNGKey(0)",
    ],
)
def test_linter_catches_deprecated(line):
    finished = ruff("check", "--stdin-filename", "taming_jax/probe.py", "-", given=line)
    assert "TID251" in finished.stdout


def test_linter_keeps_tensorflow_in_the_data():
    line = "import tensorflow as tf"
    elsewhere = ruff("check", "--stdin-filename", "taming_jax/x.py", "-", given=line)
    at_home = ruff("check", "--stdin-filename", "taming_jax/data/x.py", "-", given=line)
    assert ("TID253" in elsewhere.stdout, "TID253" in at_home.stdout) == (True, False)


def test_no_mesh_is_a_context():
    """`with mesh:` silently drops sharding constraints; no linter rule can say so."""
    entered = [
        f"{path.relative_to(ROOT)}:{item.context_expr.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.With)
        for item in node.items
        if ast.unparse(item.context_expr).endswith(("mesh", "Mesh"))
    ]
    assert entered == []


def test_set_up_works_around_the_installed_jax(environment):
    """The newest flax wants a newer jax than the accelerator's: an older flax does."""
    finished = environment.make()
    assert environment.installed() == {
        "jax": "0.10.1",
        "jax-cuda12-plugin": "0.10.1",
        "flax": "0.12.0",
    }, finished.stdout + finished.stderr


def test_set_up_installs_only_what_changed(environment):
    environment.make()
    again = environment.make()
    environment.requirements.write_text("jax>=0.10\n")
    changed = environment.make()
    assert ("pip install" in again.stdout, "pip install" in changed.stdout) == (
        False,
        True,
    )


class Environment:
    """A virtual environment with an accelerator's jax, and an index to install from."""

    def __init__(self, folder: Path):
        self.prefix = folder / "env"
        self.requirements = folder / "requirements.txt"
        self._folder = folder
        self._index = folder / "index"
        self._index.mkdir()
        venv.create(self.prefix)
        (packages,) = self.prefix.glob("lib/python*/site-packages")
        (packages / "pip").symlink_to(Path(pip.__file__).parent)  # quick ensurepip
        self.requirements.write_text("jax>=0.10\nflax>=0.12\n")
        self._offer("jax", "0.10.1")
        self._offer("jax", "0.12.0")
        self._offer("jax-cuda12-plugin", "0.10.1", "jax==0.10.1")
        self._offer("flax", "0.12.0", "jax>=0.10")
        self._offer("flax", "0.12.9", "jax>=0.11")
        self._pip("install", "jax==0.10.1", "jax-cuda12-plugin")

    def make(self) -> subprocess.CompletedProcess:
        """Brings the environment up to date, as every target of the Makefile does."""
        return subprocess.run(
            [
                "make",
                "--file",
                ROOT / "Makefile",
                self.prefix / "taming_jax-installed.txt",
            ],
            cwd=self._folder,
            env=self._variables() | {"VIRTUAL_ENV": str(self.prefix)},
            capture_output=True,
            text=True,
            check=False,
        )

    def installed(self) -> dict[str, str]:
        """Name -> version."""
        lines = self._pip("list", "--format=freeze").splitlines()
        return dict(line.split("==") for line in lines)

    def _offer(self, name: str, version: str, *requires: str):
        """Writes an empty wheel."""
        stem = f"{name.replace('-', '_')}-{version}"
        info = f"{stem}.dist-info"
        metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
        metadata += [f"Requires-Dist: {other}" for other in requires]
        wheel = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any"
        with zipfile.ZipFile(self._index / f"{stem}-py3-none-any.whl", "w") as file:
            file.writestr(f"{info}/METADATA", "\n".join(metadata) + "\n")
            file.writestr(f"{info}/WHEEL", wheel + "\n")
            file.writestr(f"{info}/RECORD", "")

    def _pip(self, *arguments: str) -> str:
        command = [self.prefix / "bin" / "python", "-m", "pip", *arguments]
        return subprocess.run(
            command, env=self._variables(), capture_output=True, text=True, check=True
        ).stdout

    def _variables(self) -> dict[str, str]:
        index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self._index)}
        return os.environ | index | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}


@pytest.fixture
def environment(tmp_path):
    return Environment(tmp_path)


def ruff(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess:
    """The linter, run in the repository's root with its configuration."""
    return subprocess.run(
        [sys.executable, "-m", "ruff", *arguments],
        cwd=ROOT,
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
