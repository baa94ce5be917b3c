"""The notebooks run from top to bottom, as they are and with files of one's own."""

import base64
import io
import os
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from taming_jax.pictures import GAP, write_png

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
QUICKSTART = ROOT / "notebooks" / "quickstart.ipynb"
MEGAPIXELS = ROOT / "notebooks" / "megapixels.ipynb"


@pytest.fixture(autouse=True)
def package(monkeypatch):
    """The kernel finds this package, and nothing to install."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)


def run(path: Path, directory: Path, **values: str) -> nbformat.NotebookNode:
    """Every cell's output, with other values for some of its names."""
    notebook = nbformat.read(path, as_version=4)
    for name, value in values.items():
        cells = [c for c in notebook.cells if f'\n{name} = "' in f"\n{c.source}"]
        (cell,) = cells
        lines = cell.source.splitlines()
        cell.source = "\n".join(
            f"{name} = {value!r}" if line.startswith(f"{name} = ") else line
            for line in lines
        )
    resources = {"metadata": {"path": str(directory)}}
    return NotebookClient(notebook, timeout=300, resources=resources).execute()


def printed(notebook) -> str:
    return "".join(
        output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", ())
    )


def pictures(notebook) -> int:
    return len(sizes(notebook))


def sizes(notebook) -> list[tuple[int, int]]:
    """Width and height of each picture that is shown."""
    shown = [
        output["data"]["image/png"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", ())
    ]
    return [Image.open(io.BytesIO(base64.b64decode(data))).size for data in shown]


def test_quickstart_shows_its_pictures_and_its_device(tmp_path):
    notebook = run(QUICKSTART, tmp_path)
    assert pictures(notebook) == 4
    assert "running on " in printed(notebook)
    assert "512 codes, one for 8 x 8 pixels" in printed(notebook)


def test_quickstart_takes_a_published_checkpoint_and_ones_own_picture(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    write_png(tmp_path / "mine.png", noise)
    notebook = run(
        QUICKSTART,
        tmp_path,
        PICTURE="mine.png",
        CHECKPOINT=str(GOLDEN / "13_vqmodel.ckpt"),
        CONFIG=str(GOLDEN / "13_vqmodel.yaml"),
    )
    assert pictures(notebook) == 4
    assert "32 codes, stride 2: " in printed(notebook)


def test_megapixels_shows_pictures_larger_than_its_prior_learned(tmp_path):
    notebook = run(MEGAPIXELS, tmp_path)
    assert "16 x 16 codes, one for 8 x 8 pixels" in printed(notebook)
    assert sizes(notebook) == [(2 * (2 * 256 + GAP), 2 * 192)] * 4


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")))
def test_a_notebook_is_kept_without_its_output(path):
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
