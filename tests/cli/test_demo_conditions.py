"""The demo of conditions, on models too small to be good: what it leaves, going on."""

import argparse
import functools
import importlib.util
import json
from pathlib import Path

import pytest
import tiny_run
from PIL import Image

from taming_jax import cli
from taming_jax.cli import demo_conditions
from taming_jax.metrics import judge, reader

FEW = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "eval_examples": 4}
PLAIN = {"perceptual_weight": 0.0, "adversarial_weight": 0.0}
CARD = {
    "seed": 0,
    "data": {"name": "scenes", "train": 24, "val": 8, "image_size": 16},
    "vqgan": {**FEW, **PLAIN, "model": tiny_run.MODEL},
    "condition_vqgan": {
        **FEW,
        "adversarial_weight": 0.0,
        "input": "segmentation",
        "model": tiny_run.maps_model(11),
    },
    "prior": {**tiny_run.PRIOR, **FEW, "tokenizer": "", "condition_tokenizer": ""},
    "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Twice in one directory: the second time everything is there already."""
    place = tmp_path_factory.mktemp("demo")
    (place / "tiny.py").write_text(
        "from ml_collections import ConfigDict\n\n\n"
        "def get_config(variant):\n"
        f"    config = ConfigDict({CARD!r})\n"
        "    config.prior.condition = variant\n"
        "    return config\n"
    )
    flags = ["--config", place / "tiny.py", "--workdir", place / "run", "--samples", 8]
    flags += ["--only", "segmentation,boxes"]
    judges = judge.Recipe(size=16, widths=(8,), features=4, steps=3, batch_size=8)
    readers = reader.Recipe(widths=(8, 8, 8), steps=3, batch_size=8)
    with pytest.MonkeyPatch.context() as patch:
        quick = functools.partial(judge.judge_of, recipe=judges)
        patch.setattr(judge, "judge_of", quick)
        patch.setattr(
            reader, "reader_of", functools.partial(reader.reader_of, recipe=readers)
        )
        assert cli.main(["demo-conditions", *map(str, flags)]) == 0
        first = (place / "run" / "boxes" / "prior" / "evaluation.json").stat()
        assert cli.main(["demo-conditions", *map(str, flags)]) == 0
    return place / "run", first


def test_each_condition_has_its_figure_beside_what_the_reader_says_of_originals(run):
    summary = json.loads((run[0] / "conditions.json").read_text())
    assert {"iou", "iou_of_originals", "seconds"} < summary["segmentation"].keys()
    assert {"boxes_found", "boxes_found_of_originals"} < summary["boxes"].keys()


def test_a_row_is_what_was_asked_for_and_three_samples(run):
    with Image.open(run[0] / "boxes" / "page.png") as page:
        assert page.size == (4 * 16 + 3 * 2, 4 * 16 + 3 * 2)
    with Image.open(run[0] / "conditions.png") as both:
        assert both.height > 2 * (4 * 16 + 3 * 2)


def test_conditions_share_what_they_can(run):
    own = {path.parent.name for path in run[0].glob("*/vqgan")}
    assert own == {"images"}
    weights = [(run[0] / name / "reader" / "weights.npz").read_bytes()
               for name in ("segmentation", "boxes")]  # fmt: skip
    assert weights[0] == weights[1]


def test_what_is_done_is_not_done_again(run):
    again = (run[0] / "boxes" / "prior" / "evaluation.json").stat()
    assert again.st_mtime_ns == run[1].st_mtime_ns


def test_seconds_before_a_stop_count_and_what_is_scored_adds_none(
    tmp_path, monkeypatch
):
    """Commands of ten seconds each; at first the prior's training is stopped."""
    clock, stopped, own = [0.0], [], tmp_path / "run" / "boxes"

    def execute(command):
        clock[0] += 10
        (own / "prior").mkdir(parents=True, exist_ok=True)
        if command[1] == "train_prior.py" and not stopped:
            stopped.append(command)
            raise SystemExit(1)
        if "evaluate" in command:
            (own / "prior" / "evaluation.json").write_text("{}")

    monkeypatch.setattr(demo_conditions.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(demo_conditions, "execute", execute)
    monkeypatch.setattr(demo_conditions, "_draw", lambda *_: None)
    monkeypatch.setattr(demo_conditions, "_sum_up", lambda _: "")
    parser = argparse.ArgumentParser()
    demo_conditions.add_arguments(parser)
    flags = ["--workdir", str(tmp_path / "run"), "--only", "boxes"]
    args = parser.parse_args(flags)
    with pytest.raises(SystemExit):
        demo_conditions.run(args)
    for expected in (20 + 30, 50):
        demo_conditions.run(args)
        assert json.loads((own / "seconds.json").read_text()) == expected


def test_what_is_refused_at_once_leaves_nothing(tmp_path, monkeypatch):
    def execute(command):
        raise SystemExit(2)

    monkeypatch.setattr(demo_conditions, "execute", execute)
    flags = ["--workdir", str(tmp_path / "run"), "--only", "boxes"]
    with pytest.raises(SystemExit):
        cli.main(["demo-conditions", *flags])
    assert not (tmp_path / "run").exists()


def test_every_card_of_a_condition_can_be_had_and_nine_are_made_unasked():
    path = Path(__file__).parents[2] / "configs" / "conditions.py"
    spec = importlib.util.spec_from_file_location("conditions", path)
    cards = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cards)
    assert set(demo_conditions.NAMES) == set(cards.CONDITIONS)
    parser = argparse.ArgumentParser()
    demo_conditions.add_arguments(parser)
    assert parser.parse_args([]).only.split(",") == list(demo_conditions.NAMES[:9])


def test_it_says_which_conditions_there_are(capsys):
    assert cli.main(["demo-conditions", "--only", "boxes,pose"]) == 2
    assert "there is no 'pose'; there are label, segm" in capsys.readouterr().err
