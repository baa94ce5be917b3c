"""The house stands: imports point down, and load without what only training needs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "taming_jax"

# From the ground up; neighbours on one floor may know each other.
FLOORS = (
    {"compilation", "files", "maps", "npz", "pictures", "processes"}
    | {"soundness", "units", "user_cache"},
    {"models"},
    {"conditions", "fingerprint", "guidance", "losses", "orders", "sampling"}
    | {"ranking", "stored", "tiling", "windows"},
    {"data", "interop", "metrics", "pretrained", "training"},
    {"cli", "__main__"},
)

MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_point_down(path):
    above = {name for name in imported(path) if floor(name) > floor(part(path))}
    assert above == set()


def test_loading_needs_no_extra():
    """Models, losses, training steps and loading, with the extras unimportable."""
    blocked = ["tensorflow", "tensorflow_datasets", "clu", "tensorboard", "skimage"]
    blocked += ["ml_collections", "torch"]
    lines = [f"import sys; sys.modules.update(dict.fromkeys({blocked}))"]
    wanted = ("models", "interop", "training", "pretrained")
    wanted += ("losses.py", "soundness.py", "stored.py", "units.py")
    for path in MODULES:
        relative = path.relative_to(ROOT)
        if relative.parts[1] in wanted and path.stem != "run":  # which opens the data
            lines.append("import " + ".".join(relative.with_suffix("").parts))
    finished = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr


def imported(path: Path) -> set[str]:
    """The parts of the package that a file imports, at its top or in a function."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "taming_jax":
            parts |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts |= below_package(node.module)
        elif isinstance(node, ast.Import):
            parts |= set().union(*(below_package(alias.name) for alias in node.names))
    return parts


def below_package(module: str) -> set[str]:
    """taming_jax.models.vqgan -> {models}; {} for what is not ours."""
    package, _, inner = module.partition(".")
    return {inner.split(".")[0]} if package == "taming_jax" and inner else set()


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def floor(name: str) -> int:
    """The floor a part lives on; a name of the package itself is from below `cli`."""
    floors = [i for i, parts in enumerate(FLOORS) if name in parts]
    return floors[0] if floors else len(FLOORS) - 2
