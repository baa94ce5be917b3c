"""A process that dies, and one that is asked to stop: all stop, and nothing is lost."""

import re
import shutil
import signal
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
import several

from taming_jax import stored

pytestmark = pytest.mark.parametrize("tour", ["2"], indirect=True)

LIMIT = 10.0  # seconds in which the others have stopped


def prior(tour, workdir, *flags):
    return [["train_prior", f"--config={tour.card}", f"--workdir={workdir}", *flags]]


class Ended(NamedTuple):
    """How two processes ended, and how long after the first one the last did."""

    workdir: Path
    codes: list[int]
    seconds: float
    said: list[str]


@pytest.fixture(scope="module")
def killed(tour, tmp_path_factory):
    """Process 1 was killed by -9 in the step after the first save was begun."""
    workdir = tmp_path_factory.mktemp("killed")
    shutil.copytree(tour.workdir / "vqgan", workdir / "vqgan")
    kill = {1: several.kill_after("loop", "", "_put", 6)}
    with several.started(2, prior(tour, workdir), before=kill) as run:
        run.processes[1].wait(several.SECONDS)
        since = time.monotonic()
        codes = run.finish()
        return Ended(workdir, codes, time.monotonic() - since, run.said)


def test_the_others_stop_when_one_is_killed(killed):
    assert killed.codes == [1, -signal.SIGKILL]
    assert killed.seconds < LIMIT
    assert re.search(
        r"error: process 1 \(.*, pid \d+\) is gone: all stop; the same command "
        "continues from the last checkpoint",
        killed.said[0],
    )


@pytest.fixture(scope="module")
def stopped(tour, killed, tmp_path_factory):
    """The run goes on, and process 1 gets SIGTERM between two saves."""
    workdir = tmp_path_factory.mktemp("stopped")
    shutil.copytree(killed.workdir, workdir, dirs_exist_ok=True)
    stop = {1: several.kill_after("loop", "", "_put", 2, signal.SIGTERM)}
    with several.started(2, prior(tour, workdir), before=stop) as run:
        since = time.monotonic()
        codes = run.finish()
        return Ended(workdir, codes, time.monotonic() - since, run.said)


def test_all_save_the_same_step_when_one_is_asked_to_stop(stopped):
    assert stopped.codes == [143, 143]
    steps = [re.search(r"saved at step (\d+);", said).group(1) for said in stopped.said]
    assert (
        steps[0]
        == steps[1]
        == str(stored.read_checkpoint(stopped.workdir / "prior")[0])
    )
    assert 0 < int(steps[0]) < 6
    assert "SIGTERM: saving after this step" in stopped.said[1]


def test_one_process_goes_on_with_what_two_have_saved(tour, stopped, tmp_path, capsys):
    workdir = shutil.copytree(stopped.workdir, tmp_path / "run")
    several.perform(prior(tour, workdir))
    assert "continuing from step" in capsys.readouterr().out
    step, weights = stored.read_checkpoint(workdir / "prior")
    assert step == 6
    expected = stored.read_checkpoint(tour.workdir / "prior")[1]
    # The sums of the last steps were in another order.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), weights, expected
    )


@pytest.mark.slow
def test_two_processes_go_on_as_if_nothing_had_happened(tour, stopped):
    """Bit for bit, if there were two all along."""
    workdir = shutil.copytree(stopped.workdir, stopped.workdir.with_name("finished"))
    with several.started(2, prior(tour, workdir)) as run:
        assert run.finish() == [0, 0], run.said
    together, expected = (
        stored.read_checkpoint(w / "prior") for w in (workdir, tour.workdir)
    )
    jax.tree.map(np.testing.assert_array_equal, together, expected)
