"""Several processes do what one does: training, evaluation, sampling."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
import several
import tiny_run

from taming_jax import stored
from taming_jax.metrics import judge

STAGES = ["vqgan", "prior"]


@pytest.mark.parametrize("stage", STAGES)
def test_several_processes_learn_what_one_does(tour, alone, stage):
    together, by_one = (
        stored.read_checkpoint(workdir / stage) for workdir in (tour.workdir, alone)
    )
    assert together[0] == by_one[0] == 6
    # Six steps of Adam from gradients that were summed in another order.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), together[1], by_one[1]
    )


@pytest.mark.parametrize("stage", STAGES)
def test_one_process_writes_what_one_would(tour, alone, stage):
    """The same files, and every step once in metrics.jsonl, by the same names."""
    files = [
        sorted(
            re.sub(r"(tfevents|\.lock).*", r"\1", str(path.relative_to(workdir)))
            for path in (workdir / stage).rglob("*")
            if "checkpoints" not in path.parts and path.name != "evaluation.json"
        )
        for workdir in (tour.workdir, alone)
    ]
    assert files[0] == files[1]
    logs = [logged(workdir / stage) for workdir in (tour.workdir, alone)]
    assert [line.keys() for line in logs[0]] == [line.keys() for line in logs[1]]


@pytest.mark.parametrize("stage", STAGES)
def test_held_out_figures_are_of_all_examples(tour, alone, stage):
    """Two batches of four rows for six pictures, shared by the processes."""
    measured, expected = (
        [
            value
            for line in logged(workdir / stage)
            for name, value in line.items()
            if name in ("val_l1", "val_psnr", "val_loss", "val_bits_per_token")
        ]
        for workdir in (tour.workdir, alone)
    )
    assert measured == pytest.approx(expected, rel=1e-4)


def logged(stage_dir):
    text = (stage_dir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_the_first_process_alone_speaks(tour):
    said = tour.said[0]
    assert said.count("processes with 1 device(s) each, by host") == 1
    assert said.count("vqgan 6/6") == said.count("prior 6/6") == 1
    assert not any("vqgan" in re.sub(".*WARNING.*", "", text) for text in tour.said[1:])


@pytest.mark.parametrize("stage", STAGES)
def test_an_evaluation_gives_the_same_figures(tour, tmp_path, monkeypatch, stage):
    monkeypatch.setattr(judge, "judge_of", judge.judge_of)  # is quick from here on
    several.quick_judge()
    shutil.copytree(tour.workdir, tmp_path, dirs_exist_ok=True)
    of_all = figures(tmp_path / stage)
    several.perform([several.evaluations(tmp_path)[STAGES.index(stage)]])
    assert of_all["examples"] == 6
    # Rows of half a batch may round differently than those of a whole one.
    assert of_all == pytest.approx(figures(tmp_path / stage), rel=1e-4)


def figures(stage_dir):
    found = json.loads((stage_dir / "evaluation.json").read_text())
    return {k: v for k, v in found.items() if k not in ("data", "stage")}


def test_the_files_of_samples_are_those_that_one_process_writes(tour, tmp_path):
    sample = ["sample", f"--workdir={tour.workdir}", f"--output={tmp_path / 'out'}"]
    several.perform([[*sample, *several.REQUEST]])
    assert_same_files(tour.output, tmp_path / "out")


def test_one_process_completes_what_several_have_begun(tour, tmp_path):
    shutil.copytree(tour.output, tmp_path / "out")
    for name in ("00000.png", "00005.png", "samples.npz", "grid.png"):
        (tmp_path / "out" / name).unlink()
    sample = ["sample", f"--workdir={tour.workdir}", f"--output={tmp_path / 'out'}"]
    several.perform([[*sample, *several.REQUEST]])
    assert_same_files(tour.output, tmp_path / "out")


@pytest.mark.slow
def test_several_processes_accept_what_one_would(tmp_path, monkeypatch):
    """Each judges its batches of candidates; all draw those that are kept."""
    workdir = tiny_run.write_prior(tiny_run.write_run(tmp_path / "run"))
    sample = ["sample", f"--workdir={workdir}", "--classes=1,2", "--count=2"]
    sample += ["--batch_size=2", "--accept=0.4"]
    with several.started(2, [[*sample, f"--output={tmp_path / 'two'}"]]) as run:
        assert run.finish() == [0, 0], "\n".join(run.said)
    monkeypatch.setattr(judge, "judge_of", judge.judge_of)  # is quick from here on
    several.quick_judge()
    several.perform([[*sample, f"--output={tmp_path / 'one'}"]])
    assert_same_files(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two" / "accepted.json").exists()


def assert_same_files(*directories):
    """Byte for byte, but for the time that is written into samples.npz."""
    one, other = (
        {path.name: path.read_bytes() for path in directory.iterdir()}
        for directory in directories
    )
    packed = [np.load(directory / "samples.npz") for directory in directories]
    for name in ("arr_0", "labels"):
        np.testing.assert_array_equal(packed[0][name], packed[1][name])
    del one["samples.npz"], other["samples.npz"]
    assert one == other
