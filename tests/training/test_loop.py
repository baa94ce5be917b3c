"""The loop: what a run leaves, and that no way of ending it makes a difference."""

import dataclasses
import itertools
import json
import os
import signal
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from tiny_stage import stage

from taming_jax.stored import read_checkpoint
from taming_jax.training.loop import train
from taming_jax.training.mesh import create_mesh
from taming_jax.training.recipe import Mesh
from taming_jax.training.state import TrainState

ENDS = {signal.SIGTERM: 143, signal.SIGINT: 130}


def batches(start):
    """Pictures that depend on the step alone, as those of the pipeline do."""
    for step in itertools.count(start):
        image = np.random.default_rng(step).integers(0, 256, (4, 8, 8, 3), np.uint8)
        yield {"image": image, "index": 4 * step + np.arange(4)}


def held_out():
    """Two batches; the last picture is padding."""
    for n in range(2):
        image = np.random.default_rng([7, n]).integers(0, 256, (4, 8, 8, 3), np.uint8)
        mask = np.arange(4) + 4 * n < 7
        yield {"image": image, "index": np.arange(4), "mask": mask}


def interrupted(step, act):
    """The batches, and `act` in the moment when that of `step` is asked for."""

    def at(start):
        for n, batch in zip(itertools.count(start), batches(start), strict=False):
            if n == step:
                act()
            yield batch

    return at


def run(directory, *, data=batches, like=None, **settings):
    """Trains in `directory` for the six steps of the tiny stage, or as `settings`."""
    like = like or stage()
    like = like._replace(run=dataclasses.replace(like.run, **settings))
    directory.mkdir(exist_ok=True)
    return train(like, directory, mesh(), data, held_out)


def mesh():
    return create_mesh(Mesh(), jax.devices()[:1])


def lines(directory):
    text = (directory / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def without_speed(entries):
    return [{k: v for k, v in e.items() if "per_second" not in k} for e in entries]


def saved(directory):
    return sorted(int(p.name) for p in (directory / "checkpoints").iterdir())


def assert_same_run(directory, state, reference):
    """All of the state bit for bit, and all that was logged but for the speed."""
    jax.tree.map(assert_array_equal, state, reference.state)
    assert without_speed(lines(directory)) == without_speed(reference.entries)


class Reference(NamedTuple):
    """Six steps without interruption: where they are, their end, what was logged."""

    directory: Path
    state: TrainState
    entries: list[dict]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    directory = tmp_path_factory.mktemp("reference") / "vqgan"
    return Reference(directory, run(directory), lines(directory))


def test_two_halves_equal_the_whole(tmp_path, reference):
    run(tmp_path, steps=3)
    state = run(tmp_path)
    assert_same_run(tmp_path, state, reference)


def test_a_crash_between_two_checkpoints_makes_no_difference(tmp_path, reference):
    def crash():
        raise ConnectionError("the disk with the pictures went away")

    with pytest.raises(ConnectionError):
        run(tmp_path, data=interrupted(5, crash))
    state = run(tmp_path)
    assert_same_run(tmp_path, state, reference)


def test_a_crash_right_after_a_save_makes_no_difference(tmp_path, reference):
    """The metrics of the step that was saved have been written before it was."""

    def crash():
        raise ConnectionError("the disk with the pictures went away")

    with pytest.raises(ConnectionError):
        run(tmp_path, data=interrupted(2, crash), checkpoint_every=2)
    state = run(tmp_path)
    assert_same_run(tmp_path, state, reference)


@pytest.mark.parametrize("number", ENDS)
def test_a_signal_saves_and_makes_no_difference(tmp_path, reference, number):
    """The step under way is finished and saved; the process ends by its own code."""
    with pytest.raises(SystemExit) as end:
        run(tmp_path, data=interrupted(1, lambda: os.kill(os.getpid(), number)))
    assert (end.value.code, saved(tmp_path)) == (ENDS[number], [2])
    assert_same_run(tmp_path, run(tmp_path), reference)


def test_a_second_interrupt_ends_the_run_at_once(tmp_path):
    def insist():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, data=interrupted(1, insist))
    assert saved(tmp_path) == []


def test_signals_mean_what_they_did_once_the_run_is_over(tmp_path):
    before = [signal.getsignal(number) for number in ENDS]
    run(tmp_path, steps=1)
    assert [signal.getsignal(number) for number in ENDS] == before


def test_a_finished_run_has_nothing_left_to_do(reference):
    state = run(reference.directory, data=lambda start: iter(()))
    assert_same_run(reference.directory, state, reference)


def test_every_logged_step_has_one_line(reference):
    assert [entry["step"] for entry in reference.entries] == [1, 2, 3, 4, 5, 6]


@pytest.fixture(scope="module")
def sparing(tmp_path_factory):
    """The directory of a run that is logged, judged and shown every so often."""
    directory = tmp_path_factory.mktemp("sparing") / "vqgan"
    run(directory, log_every=2, eval_every=4, image_every=5)
    return directory


def test_log_every_says_which_steps_are_logged(sparing):
    assert [e["step"] for e in lines(sparing) if "l1" in e] == [2, 4, 6]


def test_held_out_pictures_are_judged_every_so_often_and_at_the_end(sparing):
    assert [e["step"] for e in lines(sparing) if "val_psnr" in e] == [4, 6]


def test_pictures_are_shown_every_so_often_and_at_the_end(sparing):
    names = sorted(path.name for path in (sparing / "images").iterdir())
    assert names == ["reconstructions_0000005.png", "reconstructions_0000006.png"]


def rated(ratings):
    """The stage, with `ratings` by step for the figures of its validation."""

    def evaluate(state, batch):
        return {"psnr": ratings[int(state.step)] * len(batch["mask"]), "count": 4}

    return stage()._replace(evaluate=evaluate)


def test_the_newest_checkpoints_and_the_best_are_kept(tmp_path):
    ratings = {1: 10.0, 2: 30.0, 3: 20.0, 4: 25.0, 5: 26.0, 6: 27.0}
    run(tmp_path, like=rated(ratings), eval_every=1, checkpoint_every=1)
    assert saved(tmp_path) == [2, 5, 6]


def test_a_better_state_is_saved_out_of_turn(tmp_path):
    ratings = {2: 10.0, 4: 30.0, 6: 20.0}
    run(tmp_path, like=rated(ratings), eval_every=2, checkpoint_every=5)
    assert saved(tmp_path) == [4, 5, 6]


def test_best_and_newest_weights_are_the_averages_of_their_steps(tmp_path):
    like = rated({2: 30.0, 4: 10.0, 6: 20.0})
    at_best = run(tmp_path, like=like, eval_every=2, steps=2)
    at_end = run(tmp_path, like=like, eval_every=2)
    for best, expected in ((("psnr", "max"), at_best), (None, at_end)):
        step, weights = read_checkpoint(tmp_path, best)
        assert step == expected.step
        jax.tree.map(assert_array_equal, weights["params"], expected.ema)


def poisoned(start):
    """Images of which that of step 2 holds a NaN."""
    for step, batch in zip(itertools.count(start), batches(start), strict=False):
        image = batch["image"] / np.float32(127.5) - 1
        if step == 2:
            image[1, 2, 3, 0] = np.nan
        yield batch | {"image": image}


def test_a_step_that_is_not_finite_stops_the_run_by_name(tmp_path):
    """What was saved before it is sound."""
    named = r"step 2: l1 is not finite.*pictures \[8, 9, 10, 11\].*on_nonfinite='skip'"
    with pytest.raises(FloatingPointError, match=named):
        run(tmp_path, data=poisoned, checkpoint_every=1)
    _, weights = read_checkpoint(tmp_path)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(weights))


def test_a_step_that_is_not_finite_is_left_out_by_choice(tmp_path, capsys):
    """It is counted, named and logged as null."""
    state = run(tmp_path, data=poisoned, on_nonfinite="skip")
    assert (int(state.step), int(state.nonfinite)) == (6, 1)
    assert "step 2: l1 is not finite" in capsys.readouterr().err
    assert [e["step"] for e in lines(tmp_path) if e["l1"] is None] == [3]


class Seen:
    """A number that notes when it is looked at."""

    def __init__(self, value, note):
        self.value, self.note = value, note

    def __int__(self):
        self.note()
        return self.value

    __float__ = __int__


def test_metrics_are_read_while_the_next_step_runs(tmp_path):
    """By step: save, next batch, dispatch, then the metrics of the step before."""
    events = []

    def observed(start):
        for batch in batches(start):
            events.append("batch")
            yield batch

    def step(state, batch):
        n = int(state.step)
        state, _ = stage().step(state, batch)
        events.append(f"step {n}")
        bad = Seen(-1, lambda: events.append(f"read {n}"))
        return state, {"nonfinite_term": bad}

    settings = {"steps": 3, "log_every": 9, "eval_every": 9, "image_every": 9}
    run(tmp_path, data=observed, like=stage()._replace(step=step), **settings)
    first, *middle = " ".join(events).split("batch ")[1:]
    assert [first, *middle] == ["step 0 ", "step 1 read 0 ", "step 2 read 1 read 2"]
