"""The prior's training command: from a tokenizer's run to samples, and on."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
import tiny_run
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from taming_jax import cli, data, load_prior, load_vqgan, stored
from taming_jax.cli.train import main
from taming_jax.units import from_uint8, to_uint8

RUN = {"log_every": 2, "image_every": 2, "eval_every": 2, "checkpoint_every": 2}
CONFIG = {
    **tiny_run.CONFIG,
    "prior": {
        **tiny_run.PRIOR,
        **RUN,
        "model": {**tiny_run.PRIOR["model"], "unmasked": 0},
        "optimizer": {"muon": 2.0},
    },
    "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
}


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    path = tmp_path_factory.mktemp("cards") / "tiny.py"
    path.write_text(
        "from ml_collections import ConfigDict\n\n\n"
        f"def get_config():\n    return ConfigDict({CONFIG!r})\n"
    )
    return path


def train(card, workdir, *flags):
    """The command, in this process."""
    flags = [f"--workdir={workdir}", *map(str, flags)]
    main(["train_prior.py", f"--config={card}", *flags], ["prior"])


def refusal(capsys, card, workdir, *flags):
    """The one line that it ends with."""
    with pytest.raises(SystemExit) as end:
        train(card, workdir, *flags)
    lines = capsys.readouterr().err.splitlines()
    assert (end.value.code, len(lines)) == (2, 1)
    return lines[0]


@pytest.fixture(scope="module")
def workdir(card, tmp_path_factory):
    """Four steps on codes made on the way."""
    run = tiny_run.write_run(tmp_path_factory.mktemp("prior") / "run")
    train(card, run)
    return run


def embedding(workdir):
    return stored.read(workdir, "prior").variables["params"]["embedding"]


def logged(workdir):
    lines = (workdir / "prior" / "metrics.jsonl").read_text().splitlines()
    return {line["step"]: line for line in map(json.loads, lines)}


def test_a_trained_prior_draws(workdir):
    assert load_prior(workdir).sample(jax.random.key(0), [0, 1]).shape == (2, 4, 4)


def test_it_logs_bits_of_training_and_of_held_out_pictures(workdir):
    line = logged(workdir)[4]
    assert line["bits_per_token"] == pytest.approx(line["loss"] / np.log(2))
    assert {"val_loss", "val_bits_per_token", "images_per_second"} < line.keys()


def test_it_leaves_pictures_of_its_samples_and_first_of_its_codes(workdir):
    names = sorted(path.name for path in (workdir / "prior" / "images").iterdir())
    assert names == ["codes_0000000.png", "samples_0000002.png", "samples_0000004.png"]


def test_the_codes_are_shown_as_the_tokenizer_decodes_them(workdir):
    """Every picture of the grid is one that the tokenizer makes of a training one."""
    path = workdir / "prior" / "images" / "codes_0000000.png"
    with Image.open(path) as grid:
        first = np.asarray(grid)[:16, :16]
    pictures = data.open_source(CONFIG["data"], "train").read(
        np.arange(24), None, ("image",)
    )["image"]
    decoded = to_uint8(load_vqgan(workdir).reconstruct(from_uint8(pictures)))
    assert any(np.array_equal(first, picture) for picture in decoded)


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(card, workdir, tmp_path):
    run = tiny_run.write_run(tmp_path / "run")
    train(card, run, "--config.prior.steps=2")
    train(card, run)
    assert_array_equal(embedding(run), embedding(workdir))


def test_codes_on_disk_teach_as_pictures_do(card, workdir, tmp_path):
    """Without crops or flips the codes are the same, and so is what is learned."""
    run = tiny_run.write_run(tmp_path / "run")
    assert cli.main(["tokenize", "--workdir", str(run)]) == 0
    train(card, run)
    # The step that encodes is another program: rounding.
    assert_allclose(embedding(run), embedding(workdir), atol=1e-5)


def test_it_needs_a_tokenizer(card, capsys, tmp_path):
    line = refusal(capsys, card, tmp_path / "run")
    assert re.search("needs a trained tokenizer.*does not exist.*train_vqgan.py", line)
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_trained_again_is_refused(card, workdir, capsys, tmp_path):
    run = tiny_run.write_run(tmp_path / "run", psnr={9: 20.0})
    shutil.copytree(workdir / "prior", run / "prior")
    line = refusal(capsys, card, run)
    assert re.search("tokenizer.fingerprint=.*choose another --workdir", line)


def test_codes_of_another_tokenizer_are_refused(card, capsys, tmp_path):
    run = tiny_run.write_run(tmp_path / "run")
    assert cli.main(["tokenize", "--workdir", str(run)]) == 0
    other = tiny_run.write_run(tmp_path / "other", psnr={9: 20.0})
    shutil.copytree(run / "codes", other / "codes")
    assert re.search("another tokenizer", refusal(capsys, card, other))
    assert not (other / "prior").exists()


def test_it_does_not_begin_with_a_prior_of_another_tokenizer(
    card, workdir, capsys, tmp_path
):
    """Of as many codes: its parameters have the same shapes."""
    other = tiny_run.write_run(tmp_path / "other", psnr={9: 20.0})
    begun = tmp_path / "begun.py"
    begun.write_text(
        card.read_text().replace("'steps': 4", f"'steps': 4, 'init_from': '{workdir}'")
    )
    line = refusal(capsys, begun, other)
    assert re.search("init_from=.* codes of another tokenizer .*prior.tokenizer", line)
    assert not (other / "prior").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.prior.label_dropout=0.0", "guidance=2.0 needs .*label_dropout"),
        ("--config.prior.label_dropout=1.5", r"label_dropout=1.5.*\[0, 1\)"),
        ("--config.prior.model.widht=8", "widht.*did you mean.*width"),
        ("--config.prior.model.heads=3", "heads=3"),
        ("--config.data.image_size=2", "image_size=2 is less than one code"),
        ("--config.prior.model.unmasked=2", "with 1 condition tokens.*set it to 1"),
        ("--config.prior.batch_size=30", "batch size is 30 and there are 24"),
    ],
)
def test_nonsense_is_refused_and_leaves_nothing(card, capsys, tmp_path, flag, message):
    run = tiny_run.write_run(tmp_path / "run")
    assert re.search(message, refusal(capsys, card, run, flag), re.IGNORECASE)
    assert not (run / "prior").exists()
