"""One round through everything, by several processes, which many tests look at."""

from pathlib import Path
from typing import NamedTuple

import pytest
import several


class Tour(NamedTuple):
    """Where it went, and what its processes said."""

    card: Path
    workdir: Path
    output: Path
    said: list[str]


@pytest.fixture(
    scope="session", params=[2, pytest.param(4, marks=pytest.mark.slow)], ids=str
)
def tour(request, tmp_path_factory) -> Tour:
    """Both stages trained, evaluated and drawn from."""
    directory = tmp_path_factory.mktemp("tour")
    card = several.write_card(directory / "tiny.py")
    workdir, output = directory / "run", directory / "drawn"
    training = [f"--config={card}", f"--workdir={workdir}"]
    everything = [
        ["train_vqgan", *training],
        ["train_prior", *training],
        *several.evaluations(workdir),
        ["sample", f"--workdir={workdir}", f"--output={output}", *several.REQUEST],
    ]
    with several.started(request.param, everything) as run:
        assert run.finish() == [0] * request.param, "\n".join(run.said)
        return Tour(card, workdir, output, run.said)


@pytest.fixture(scope="session")
def alone(tour, tmp_path_factory) -> Path:
    """The workdir of one process that trained both stages, in this one."""
    workdir = tmp_path_factory.mktemp("alone")
    training = [f"--config={tour.card}", f"--workdir={workdir}"]
    several.perform([["train_vqgan", *training], ["train_prior", *training]])
    return workdir
