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


SPREAD = {"vqgan": "--config.mesh.fsdp=2", "prior": "--config.mesh.tensor=2"}
TOURS = {  # how many processes, and how each stage lies on them
    "2": (2, {}),
    "4": (4, {}),
    "2, nothing of which is whole": (2, SPREAD),
}


@pytest.fixture(
    scope="session",
    params=[pytest.param(t, marks=[] if t == "2" else pytest.mark.slow) for t in TOURS],
)
def tour(request, tmp_path_factory) -> Tour:
    """Both stages trained, evaluated and drawn from."""
    count, mesh = TOURS[request.param]
    directory = tmp_path_factory.mktemp("tour")
    card = several.write_card(directory / "tiny.py")
    workdir, output = directory / "run", directory / "drawn"
    training = [f"--config={card}", f"--workdir={workdir}"]
    everything = [
        ["train_vqgan", *training, mesh.get("vqgan", "--config.mesh.fsdp=1")],
        ["train_prior", *training, mesh.get("prior", "--config.mesh.fsdp=1")],
        *several.evaluations(workdir),
        ["sample", f"--workdir={workdir}", f"--output={output}", *several.REQUEST],
    ]
    with several.started(count, everything) as run:
        assert run.finish() == [0] * count, "\n".join(run.said)
        return Tour(card, workdir, output, run.said)


@pytest.fixture(scope="session")
def alone(tour, tmp_path_factory) -> Path:
    """The workdir of one process that trained both stages, in this one."""
    workdir = tmp_path_factory.mktemp("alone")
    training = [f"--config={tour.card}", f"--workdir={workdir}"]
    several.perform([["train_vqgan", *training], ["train_prior", *training]])
    return workdir
