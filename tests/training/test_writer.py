import json
import sys

import numpy as np
import pytest
from PIL import Image

from taming_jax.training.writer import Writer


@pytest.fixture
def plain(monkeypatch):
    """Without clu, and so without TensorBoard."""
    monkeypatch.setitem(sys.modules, "clu", None)


def write(directory, *entries, start=0):
    with Writer(directory, start) as writer:
        for step, values in entries:
            writer.scalars(step, values)


def written(directory):
    text = (directory / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_is_on_the_disk_at_once(tmp_path, plain):
    with Writer(tmp_path, 0) as writer:
        writer.scalars(1, {"loss": 0.5})
        assert written(tmp_path) == [{"step": 1, "loss": 0.5}]


def test_a_step_has_one_line(tmp_path, plain):
    write(tmp_path, (1, {"loss": 0.5}), (1, {"val_loss": 0.7}), (2, {"loss": 0.4}))
    assert written(tmp_path) == [
        {"step": 1, "loss": 0.5, "val_loss": 0.7},
        {"step": 2, "loss": 0.4},
    ]


def test_what_is_not_finite_becomes_null(tmp_path, plain):
    write(tmp_path, (1, {"a": float("nan"), "b": float("inf"), "c": 1.0}))
    assert written(tmp_path) == [{"step": 1, "a": None, "b": None, "c": 1.0}]


def test_steps_that_are_done_again_are_not_kept_twice(tmp_path, plain):
    write(tmp_path, (1, {"run": 1}), (2, {"run": 1}), (3, {"run": 1}))
    write(tmp_path, (3, {"run": 2}), start=2)
    assert [entry["run"] for entry in written(tmp_path)] == [1, 1, 2]


def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path, plain):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    write(tmp_path, (3, {}), start=2)
    assert written(tmp_path) == [{"step": 1}, {"step": 3}]


def test_a_picture_is_a_png_named_by_its_step(tmp_path, plain):
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    with Writer(tmp_path, 0) as writer:
        writer.picture(12, "reconstructions", picture)
    with Image.open(tmp_path / "images" / "reconstructions_0000012.png") as image:
        np.testing.assert_array_equal(np.asarray(image), picture)


def test_curves_are_written_where_tensorboard_is(tmp_path):
    write(tmp_path, (1, {"loss": 0.5}))
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_no_curves_without_tensorboard(tmp_path, plain):
    write(tmp_path, (1, {"loss": 0.5}))
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
