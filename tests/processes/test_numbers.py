"""How many processes there are may change, as long as there is an example for each."""

import json
import shutil

import jax
import numpy as np
import pytest
import several

from taming_jax import stored

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("tour", ["2"], indirect=True),
]


def test_two_processes_continue_what_one_has_begun(tour, alone, tmp_path):
    shutil.copytree(tour.workdir / "vqgan", tmp_path / "vqgan")
    training = ["train_prior", f"--config={tour.card}", f"--workdir={tmp_path}"]
    several.perform([[*training, "--config.prior.steps=4"]])
    with several.started(2, [training]) as run:
        assert run.finish() == [0, 0], run.said
    step, weights = stored.read_checkpoint(tmp_path / "prior")
    log = (tmp_path / "prior" / "metrics.jsonl").read_text().splitlines()
    assert step == 6
    assert sorted({json.loads(line)["step"] for line in log}) == [1, 2, 3, 4, 5, 6]
    # Six steps of Adam from gradients that were summed in another order.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
        weights,
        stored.read_checkpoint(alone / "prior")[1],
    )


def test_fewer_pictures_than_processes_are_refused_by_all(tour, tmp_path):
    training = ["train_vqgan", f"--config={tour.card}", f"--workdir={tmp_path}"]
    with several.started(2, [[*training, "--config.data.train=1"]]) as run:
        assert run.finish() == [2, 2], run.said
        assert all("1 picture" in said for said in run.said), run.said
    assert not list(tmp_path.iterdir())
