"""`--stage=condition_vqgan`: tokenizers of maps, from the command to every verb."""

import functools
import json
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from tiny_stage import CONFIG, map_section

from taming_jax import cli, data, load_vqgan, maps, ranking, stored
from taming_jax.cli.train import main
from taming_jax.data.shapes import CLASSES
from taming_jax.metrics.classes import mean_iou

STAGE = "condition_vqgan"
CHANNELS = {"segmentation": 1 + len(CLASSES), "depth": 1, "edges": 1}


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """A recipe card with a variant for each kind of map."""
    path = tmp_path_factory.mktemp("cards") / "maps.py"
    sections = {kind: map_section(kind, count) for kind, count in CHANNELS.items()}
    config = {key: CONFIG[key] for key in ("seed", "data", "mesh")}
    path.write_text(
        "from ml_collections import ConfigDict\n\n\n"
        "def get_config(variant):\n"
        f"    config = ConfigDict({config!r})\n"
        f"    config.{STAGE} = {sections!r}[variant]\n"
        "    return config\n"
    )
    return path


def train(card, kind, *flags):
    flags = [f"--config={card}:{kind}", f"--stage={STAGE}", *map(str, flags)]
    main(["train_vqgan.py", *flags], ["vqgan", STAGE])


@pytest.fixture(scope="module", params=["segmentation", "depth"])
def finished(request, card, tmp_path_factory):
    """(kind, the workdir of its run)."""
    workdir = tmp_path_factory.mktemp(request.param)
    train(card, request.param, f"--workdir={workdir}")
    return request.param, workdir


@functools.cache
def load(workdir):
    return load_vqgan(workdir)


def examples(kind):
    """The held-out maps, as the data set has them."""
    source = data.open_source(CONFIG["data"], "val")
    return next(data.eval_batches(source, batch_size=6, keep=(kind,)))[kind]


def logged(workdir):
    return json.loads((workdir / STAGE / "metrics.jsonl").read_text().splitlines()[-1])


def verb(*flags):
    return cli.main([str(flag) for flag in flags])


FIGURES = {
    "segmentation": {"pixel_accuracy", "mean_iou"},
    "depth": {"psnr", "mean_absolute_error"},
}


def test_its_run_has_a_directory_of_its_own(finished):
    _, workdir = finished
    assert [path.name for path in workdir.iterdir()] == [STAGE]
    names = {path.name for path in (workdir / STAGE).iterdir()}
    assert {"config.json", "metrics.jsonl", "checkpoints", "images"} <= names


def test_it_is_judged_by_what_counts_for_its_kind(finished):
    kind, workdir = finished
    judged = {key for key in logged(workdir) if key.startswith("val_")}
    assert judged == {f"val_{name}" for name in FIGURES[kind]}


def test_the_model_comes_back_from_any_of_its_paths(finished):
    kind, workdir = finished
    found = [
        load(workdir),
        load_vqgan(workdir / STAGE),
        load_vqgan(workdir, stage=STAGE),
    ]
    assert {vqgan.fingerprint for vqgan in found} == {load(workdir).fingerprint}
    assert (found[0].stage, found[0].input.kind) == (STAGE, kind)


def test_the_best_is_best_by_its_own_metric(finished):
    kind, _ = finished
    section = {STAGE: map_section(kind, CHANNELS[kind])}
    assert ranking.best_by(section, STAGE)[0] in FIGURES[kind]


def test_maps_come_back_in_the_units_they_went_in(finished):
    kind, workdir = finished
    before = load(workdir).input.read(examples(kind))
    after = load(workdir).reconstruct(before)
    assert (after.shape, after.dtype) == (before.shape, before.dtype)
    low, high = (0, 10) if kind == "segmentation" else (-1, 1)
    assert low <= after.min() <= after.max() <= high


def test_evaluate_and_training_measure_the_same(finished, capsys):
    kind, workdir = finished
    assert verb("evaluate", "--stage", STAGE, "--workdir", workdir) == 0
    figures = json.loads((workdir / STAGE / "evaluation.json").read_text())
    assert figures["examples"] == 6
    for name in FIGURES[kind]:
        expected = logged(workdir)[f"val_{name}"]
        assert_allclose(figures[name], expected, rtol=1e-4, err_msg=name)
    assert "codebook_usage" in capsys.readouterr().out


def test_the_pictures_of_a_run_have_colours(finished):
    kind, workdir = finished
    path = workdir / STAGE / "images" / "reconstructions_0000006.png"
    picture = np.asarray(Image.open(path))
    drawn = maps.Input(kind).draw(load(workdir).input.read(examples(kind)))
    shown = {tuple(colour) for colour in picture.reshape(-1, 3)}
    assert {tuple(colour) for colour in drawn[0].reshape(-1, 3)} <= shown


def test_reconstruct_reads_grey_files_and_writes_colours(finished, tmp_path):
    kind, workdir = finished
    entry = examples(kind)[0]
    grey = entry if kind == "segmentation" else np.round(entry * 255)
    (tmp_path / "in").mkdir()
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "in" / "a.png")
    flags = ["--input", tmp_path / "in", "--output", tmp_path / "out"]
    assert verb("reconstruct", "--workdir", workdir, "--stage", STAGE, *flags) == 0
    read = load(workdir).input.read(data.read_file(tmp_path / "in/a.png", kind)[None])
    expected = load(workdir).input.draw(load(workdir).reconstruct(read))[0]
    written = Image.open(tmp_path / "out" / "a.png").convert("RGB")
    assert_array_equal(written, expected)
    pair = np.asarray(Image.open(tmp_path / "out" / "pairs" / "a.png"))
    assert_array_equal(pair[:8, 8:], expected)


def test_a_class_map_that_was_written_is_one_that_can_be_read(tmp_path):
    classes = examples("segmentation")[0]
    maps.write_class_map(tmp_path / "a.png", classes)
    assert_array_equal(data.read_file(tmp_path / "a.png", "segmentation"), classes)


@pytest.mark.slow
def test_a_run_goes_on_as_if_nothing_had_stopped_it(card, finished, tmp_path):
    kind, workdir = finished
    train(card, kind, f"--workdir={tmp_path}", f"--config.{STAGE}.steps=3")
    train(card, kind, f"--workdir={tmp_path}")
    again = load_vqgan(tmp_path).params["decoder"]["conv_out"]["kernel"]
    assert_array_equal(again, load(workdir).params["decoder"]["conv_out"]["kernel"])


def test_a_tokenizer_is_found_where_it_is_the_only_one(finished):
    """So that training goes on from a converted model, which lies in DIR/vqgan."""
    _, workdir = finished
    assert stored.stage_at(workdir, "vqgan") == STAGE
    assert stored.stage_at(workdir, "prior") == "prior"
    with pytest.raises(ValueError, match="no trained vqgan"):
        load_vqgan(workdir, stage="vqgan")


def test_it_is_exported_with_what_its_classes_are_called(finished, tmp_path):
    kind, workdir = finished
    output = tmp_path / "model"
    assert verb("export", "--workdir", workdir, "--output", output) == 0
    vqgan, names = load_vqgan(output), ("background", *CLASSES)
    assert (vqgan.stage, vqgan.fingerprint) == (STAGE, load(workdir).fingerprint)
    assert vqgan.region_names == (names if kind == "segmentation" else ())


def refusal(capsys, card, kind, *flags):
    """The one line that the command ends with."""
    with pytest.raises(SystemExit) as end:
        train(card, kind, *flags)
    lines = capsys.readouterr().err.splitlines()
    assert (end.value.code, len(lines)) == (2, 1)
    return lines[0]


@pytest.mark.parametrize(
    ("kind", "key", "value", "message"),
    [
        ("segmentation", "input", "depth", "input='depth' and model.classes=True"),
        ("depth", "input", "segmentation", "and model.classes=False: class maps are"),
        ("depth", "input", "normals", "input='normals' is not allowed: .*segmentation"),
        ("depth", "input", "image", "images have shape .*, 3.*this model takes .*, 1"),
        ("segmentation", "l2_weight", "1.0", "l2_weight: weights of images' losses"),
        ("depth", "model.encoder.image_channels", "3", "image_channels is 3, the dec"),
    ],
)
def test_nonsense_is_refused_in_one_line(
    card, capsys, tmp_path, kind, key, value, message
):
    flags = [f"--workdir={tmp_path / 'run'}", f"--config.{STAGE}.{key}={value}"]
    assert re.search(message, refusal(capsys, card, kind, *flags))
    assert not (tmp_path / "run").exists()


def test_a_class_that_the_model_has_not_is_named(card, capsys, tmp_path):
    for n in range(4):
        level = np.full((8, 8), 255 if n == 2 else n, np.uint8)
        (tmp_path / "maps").mkdir(exist_ok=True)
        Image.fromarray(level).save(tmp_path / "maps" / f"{n}.png")
    keys = {"name": "folder", "train": tmp_path / "maps", "val": tmp_path / "maps"}
    path = tmp_path / "folder.py"
    config = (
        f"config.data = { ({k: str(v) for k, v in keys.items()} | {'image_size': 8}) }"
    )
    path.write_text(card.read_text().replace("    return", f"    {config}\n    return"))
    line = refusal(capsys, path, "segmentation", f"--workdir={tmp_path / 'run'}")
    assert re.search(r"reach from 0 to 255 \(pictures \[2\]\); .*classes 0 to 10", line)


def test_iou_is_of_the_classes_that_occur():
    assert mean_iou([2.0, 0.0, 1.0], [4.0, 0.0, 1.0]) == 0.75
