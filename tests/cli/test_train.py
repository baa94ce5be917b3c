"""The training command: what it refuses before it begins, and what it leaves."""

import errno
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_stage import CONFIG

from taming_jax.cli.train import main, parse
from taming_jax.stored import read_checkpoint
from taming_jax.training import run
from taming_jax.training.workdir import claimed

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """The tiny stage's recipe card; its variant `long` never ends by itself."""
    path = tmp_path_factory.mktemp("cards") / "tiny.py"
    path.write_text(
        "from ml_collections import ConfigDict\n"
        "from ml_collections.config_dict import placeholder\n\n\n"
        "def get_config(variant=''):\n"
        f"    config = ConfigDict({CONFIG!r})\n"
        "    config.vqgan.init_from = placeholder(str)\n"
        "    if variant == 'long':\n"
        "        config.vqgan.steps = 10**6\n"
        "    return config\n"
    )
    return path


def train(card, *flags):
    """The command, in this process."""
    main(["train_vqgan.py", f"--config={card}", *map(str, flags)], ["vqgan"])


def refusal(capsys, card, *flags):
    """The one line that it ends with."""
    with pytest.raises(SystemExit) as end:
        train(card, *flags)
    lines = capsys.readouterr().err.splitlines()
    assert (end.value.code, len(lines)) == (2, 1)
    return lines[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--config.vqgan.stps=3", "stps.*[Dd]id you mean.*steps"),
        (
            "--config.vqgan.model.encoder.chanels=8",
            "chanels.*[Dd]id you mean.*channels",
        ),
        ("--config.data.image_sise=8", "image_sise.*[Dd]id you mean.*image_size"),
        ("--config.vqgan.steps=many", "steps.*many"),
        ("--workdr=x", "workdr.*[Dd]id you mean.*workdir"),
        ("--stage=vqgn", "vqgn.*should be one of.*vqgan"),
        ("spare", "'spare' is no flag"),
        ("--config.vqgan.zzz=1", "no such key in .*tiny.py: 'zzz'"),
        ("--config.seed.x=1", "no such key in .*tiny.py: .*seed.x"),
        ("--config.vqgan.steps=0", "steps=0 is not allowed"),
        ("--config.mesh.fsdp=3", "fsdp=3 .*does not fit 1 devices"),
        ("--config.data.image_size=9", "image_size=9 .*stride 2: use 8 or 10"),
        ("--config.data.name=foldr", "data.name is 'foldr'; there are shapes"),
        ("--config.data.train=3", "batch size is 4 and there are 3 pictures"),
        ("--config.vqgan.batch_size=30", "batch size is 30 and there are 24 pictures"),
        ("--config.vqgan.perceptual_weight=1.0", "no perceptual weights at"),
        ("--config.vqgan.model.encoder.norm_groups=3", "norm_groups=3 does not divide"),
        ("--config.vqgan.init_from=none", "no model at 'none': it does not exist"),
    ],
)
def test_nonsense_is_refused_in_one_line_and_leaves_nothing(
    card, capsys, tmp_path, monkeypatch, flags, message
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    line = refusal(capsys, card, f"--workdir={tmp_path / 'run'}", flags)
    assert re.search(f"^error: .*{message}", line)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config=configs/none.py"], "configs/none.py does not exist: .*shapes.py"),
        (["--config", "configs/none.py:big"], "none.py:big does not exist: name a"),
        ([], "--config is missing: name a recipe card"),
    ],
)
def test_a_card_that_is_not_there_is_refused(capsys, monkeypatch, flags, message):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match="2"):
        main(["train_vqgan.py", *flags], ["vqgan"])
    assert re.search(f"^error: .*{message}", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("custom.py:big", "custom has no variant 'big': there are 'unconditional'"),
        ("shapes.py:big", "get_config.* takes 0 positional arguments"),
    ],
)
def test_a_variant_that_is_not_there_is_refused(capsys, tmp_path, card, message):
    flags = f"--workdir={tmp_path / 'run'}"
    assert re.search(message, refusal(capsys, ROOT / "configs" / card, flags))


def test_help_names_every_flag(card, capsys):
    train(card, "--help")
    said = capsys.readouterr().out
    assert all(
        flag in said for flag in ("--config ", "--config.", "--workdir", "--stage")
    )


def test_a_full_disk_is_refused_and_leaves_nothing(card, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    line = refusal(capsys, card, f"--workdir={tmp_path / 'run'}")
    assert re.search(r"^error: .*run/vqgan has 0.0 GB of room", line)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_on_the_way_is_named_in_one_line(
    card, capsys, tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")

    monkeypatch.setattr(run, "run", full)
    line = refusal(capsys, card, f"--workdir={tmp_path / 'run'}")
    assert line == "error: [Errno 28] No space left on device: 'metrics.jsonl'"


def test_without_tensorflow_training_says_what_to_install(
    card, capsys, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    line = refusal(capsys, card, f"--workdir={tmp_path / 'run'}")
    assert re.search("TensorFlow, which is not installed: pip install", line)
    assert list(tmp_path.iterdir()) == []


def test_a_workdir_in_use_is_refused_and_left_alone(card, capsys, tmp_path):
    with claimed(tmp_path / "vqgan"):
        line = refusal(capsys, card, f"--workdir={tmp_path}")
    assert line.startswith(
        f"error: {tmp_path}/vqgan is in use by process {os.getpid()}"
    )
    assert [path.name for path in (tmp_path / "vqgan").iterdir()] == [".lock"]


@pytest.mark.devices(8)
def test_a_batch_that_the_devices_cannot_share_is_refused(card, capsys, tmp_path):
    line = refusal(capsys, card, f"--workdir={tmp_path / 'run'}")
    assert re.search("batch_size=4 cannot be split .*multiple of 8, for instance", line)
    assert list(tmp_path.iterdir()) == []


def test_workdir_is_named_after_card_and_variant(card):
    argv = ["train_vqgan.py", f"--config={card}:long"]
    assert parse(argv, ["vqgan"])[1:3] == ("runs/tiny-long", "vqgan")


def test_a_flag_changes_the_cards_value(card):
    argv = ["train_vqgan.py", "--config", str(card), "--config.vqgan.steps=9"]
    assert parse(argv, ["vqgan"])[0].vqgan.steps == 9


@pytest.fixture(scope="module")
def finished(card, tmp_path_factory):
    """The workdir of a run that nothing has interrupted."""
    workdir = tmp_path_factory.mktemp("finished")
    train(card, f"--workdir={workdir}")
    return workdir


def test_a_run_leaves_what_was_promised(finished):
    names = {re.sub(r"tfevents\..*", "tfevents", p.name) for p in finished.glob("*/*")}
    promised = {"config.json", "metrics.jsonl", "checkpoints", "images"}
    assert names == promised | {"events.out.tfevents", ".lock"}


def test_another_model_is_refused_by_its_key(card, capsys, finished):
    flags = [f"--workdir={finished}", "--config.vqgan.model.quantizer.codebook_size=8"]
    line = refusal(capsys, card, *flags)
    assert re.search(r"begun with vqgan\.model\.quantizer\.codebook_size=16", line)


def test_another_data_set_is_refused(card, capsys, finished):
    line = refusal(capsys, card, f"--workdir={finished}", "--config.data.name=scenes")
    assert "was trained on other data" in line


def test_more_steps_are_said_and_made(card, capsys, finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    train(card, f"--workdir={tmp_path}", "--config.vqgan.steps=7")
    said = capsys.readouterr().out
    assert "changed since this run began: vqgan.steps: 6 -> 7" in said
    assert "continuing from step 6" in said
    assert read_checkpoint(tmp_path / "vqgan")[0] == 7
