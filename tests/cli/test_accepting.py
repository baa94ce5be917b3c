"""`sample --accept`: those candidates stay that a judge is surest of."""

import functools
import json
import re
import shutil
import types

import jax
import numpy as np
import pytest
import tiny_run

from taming_jax import cli, load_prior
from taming_jax.cli import accepting, judges, samples
from taming_jax.metrics import judge
from taming_jax.units import to_uint8

LABELS, COUNT, EACH = np.array([7, 2]), 2, 5  # ceil(2 / .4)
REQUEST = ["--classes", "7,2", "--count", COUNT, "--accept", 0.4, "--batch_size", 4]


class RedJudge:
    """Takes red pictures for even classes, and others for odd ones."""

    card = types.MappingProxyType({"weights_sha256": "red"})

    def __init__(self):
        self.judged = []

    def log_odds(self, pictures, labels):
        self.judged.append(len(pictures))
        red = pictures[..., 0].mean((1, 2)) - pictures[..., 1:].mean((1, 2, 3))
        return np.where(labels % 2 == 0, red, -red)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tiny_run.write_prior(tiny_run.write_run(tmp_path_factory.mktemp("accept")))


@pytest.fixture
def red(monkeypatch):
    judge = RedJudge()
    monkeypatch.setattr(judges, "judge", lambda *arguments: judge)
    return judge


def sample(workdir, output, *flags):
    flags = ["--workdir", workdir, "--output", output, *flags]
    return cli.main(["sample", *map(str, flags)])


@pytest.fixture
def output(workdir, red, tmp_path):
    assert sample(workdir, tmp_path / "out", *REQUEST) == 0
    return tmp_path / "out"


@pytest.fixture(scope="module")
def best(workdir):
    """(pictures, scores) of all candidates at once, of which a sort takes the best."""
    prior, labels = load_prior(workdir), LABELS.repeat(EACH)
    settings = prior.default_settings
    drawn = to_uint8(prior.generate(jax.random.key(0), labels, **settings))
    scores = RedJudge().log_odds(drawn, labels)
    halves = np.arange(EACH), np.arange(EACH, 2 * EACH)
    best = [sorted(half, key=lambda i: -scores[i])[:COUNT] for half in halves]
    numbers = [number for half in best for number in sorted(half)]
    return drawn[numbers], scores[numbers]


def test_those_stay_that_the_judge_is_surest_of(output, best):
    with np.load(output / "samples.npz") as packed:
        assert packed["labels"].tolist() == LABELS.repeat(COUNT).tolist()
        np.testing.assert_array_equal(packed["arr_0"], best[0])
        # Of the same bytes; a batch of four may round a pixel in another way.
        np.testing.assert_allclose(packed["scores"], best[1], atol=0.1)


def test_nothing_of_the_others_stays(output):
    assert names(output) == [
        *(f"{i:05}.png" for i in range(len(LABELS) * COUNT)),
        "accepted.json", "grid.png", "request.json", "samples.npz",
    ]  # fmt: skip


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_candidates_that_were_judged_are_not_judged_again(
    workdir, output, red, tmp_path, monkeypatch
):
    """Stopped in the second batch of three; its line is cut off, too."""
    add = accepting._add_scores

    def add_and_die(directory, start, scores):
        add(directory, start, scores)
        if start:
            path = directory / "scores-0.jsonl"
            path.write_text(path.read_text()[:-3])
            raise KeyboardInterrupt

    monkeypatch.setattr(accepting, "_add_scores", add_and_die)
    with pytest.raises(KeyboardInterrupt):
        sample(workdir, tmp_path / "two", *REQUEST)
    assert names(tmp_path / "two") == ["request.json", "scores-0.jsonl"]
    monkeypatch.setattr(accepting, "_add_scores", add)
    red.judged.clear()
    assert sample(workdir, tmp_path / "two", *REQUEST) == 0
    assert red.judged == [4, 2]
    assert contents(tmp_path / "two") == contents(output)


def test_a_picture_that_is_lost_is_drawn_again_and_nothing_judged(
    workdir, output, red, tmp_path
):
    shutil.copytree(output, tmp_path / "copy")
    samples.path_of(tmp_path / "copy", 2).unlink()
    red.judged.clear()
    assert sample(workdir, tmp_path / "copy", *REQUEST) == 0
    assert red.judged == []
    assert contents(tmp_path / "copy") == contents(output)


def test_another_share_is_another_request(workdir, output, capsys):
    assert sample(workdir, output, *REQUEST, "--accept", 0.5) == 2
    assert "accept=0.4, now accept=0.5" in capsys.readouterr().err


def test_more_of_one_class_are_not_those_that_were_kept(workdir, red, tmp_path, capsys):
    flags = ["--classes", 7, "--accept", 0.5, "--count"]
    assert sample(workdir, tmp_path / "out", *flags, 1) == 0
    assert sample(workdir, tmp_path / "out", *flags, 2) == 2
    assert "count=1, now count=2" in capsys.readouterr().err


def test_a_judge_is_trained_beside_the_run_and_its_scores_are_written(
    tmp_path, monkeypatch
):
    workdir = tiny_run.write_prior(tiny_run.write_run(tmp_path / "run"))
    recipe = judge.Recipe(size=16, widths=(8,), features=4, steps=3, batch_size=8)
    quick = functools.partial(judge.judge_of, recipe=recipe)
    monkeypatch.setattr(judge, "judge_of", quick)
    assert sample(workdir, tmp_path / "out", *REQUEST) == 0
    card = json.loads((workdir / "judge" / "judge.json").read_text())
    request = json.loads((tmp_path / "out" / "request.json").read_text())
    assert request["judge"] == card["weights_sha256"]
    network = judge.Network(10, recipe)
    params = judge.kept.load(workdir / "judge", "judge")[0]
    with np.load(tmp_path / "out" / "samples.npz") as packed:
        said = judge.Judge(network, params, card).log_odds(
            packed["arr_0"], packed["labels"]
        )
        np.testing.assert_allclose(packed["scores"], said, atol=1e-4)


@pytest.mark.parametrize("share", ["0", "1.5", "nan"])
def test_what_is_no_share_leaves_nothing(workdir, tmp_path, capsys, share):
    assert sample(workdir, tmp_path / "out", "--accept", share) == 2
    assert re.search("accept=.*above 0 and at most 1", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_without_labels_there_is_nothing_to_look_for(tmp_path, capsys):
    section = tiny_run.PRIOR | {
        "condition": "none", "label_dropout": 0.0, "sampling": {},
    }  # fmt: skip
    run = tiny_run.write_run(tmp_path / "run")
    tiny_run.write_prior(run, section, class_names=())
    assert sample(run, tmp_path / "out", "--accept", 0.5) == 2
    assert "this prior is told none: leave it out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_its_data_there_is_no_classifier(tmp_path, capsys):
    run = tiny_run.write_prior(tiny_run.write_run(tmp_path / "run"))
    path = run / "prior" / "config.json"
    record = json.loads(path.read_text())
    record["config"]["data"] = {
        "name": "folder", "train": "gone", "val": "gone", "image_size": 16,
    }  # fmt: skip
    path.write_text(json.dumps(record))
    assert sample(run, tmp_path / "out", "--accept", 0.5) == 2
    said = capsys.readouterr().err
    assert "needs a classifier" in said
    assert "not at hand" in said
