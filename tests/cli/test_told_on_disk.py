"""`tokenize` for conditions without a tokenizer: what they read lies beside codes."""

import json
import re

import pytest
import tiny_run
from numpy.testing import assert_allclose
from tiny_conditions import config, train

from taming_jax import cli

WITHOUT_TOKENIZERS = [
    {"name": "boxes", "vocabulary": 64},
    {"name": "keypoints", "sections": 4},
    {"name": "low_resolution", "side": 4, "levels": 3},
    {"name": "coordinates", "steps": 8},
]


def test_what_is_told_without_a_tokenizer_lies_beside_codes_and_teaches_the_same(
    tmp_path,
):
    """The same losses, with objects in the same random order."""
    losses = []
    for name in ("with", "without"):
        run = tiny_run.write_run(tmp_path / name, config(WITHOUT_TOKENIZERS))
        if name == "with":
            assert cli.main(["tokenize", "--workdir", str(run)]) == 0
        train(run, WITHOUT_TOKENIZERS)
        line = (run / "prior" / "metrics.jsonl").read_text().splitlines()[-1]
        losses.append([json.loads(line)[key] for key in ("loss", "val_loss")])
    assert_allclose(*losses, rtol=1e-5)


def test_codes_that_lack_what_is_told_are_refused(tmp_path, capsys):
    run = tiny_run.write_run(tmp_path / "run", config(WITHOUT_TOKENIZERS))
    assert cli.main(["tokenize", "--workdir", str(run)]) == 0
    told = {"name": "low_resolution", "side": 4, "levels": 4}
    with pytest.raises(SystemExit):
        train(run, told)
    assert "without low_resolution_tokens as prior" in capsys.readouterr().err


def test_pictures_that_are_made_worse_anew_are_not_for_codes_on_disk(tmp_path, capsys):
    told = {"name": "low_resolution", "side": 4, "levels": 4, "degraded": True}
    run = tiny_run.write_run(tmp_path / "run", config(told))
    assert cli.main(["tokenize", "--workdir", str(run)]) != 0
    assert re.search("degraded=True .* encode them on the way", capsys.readouterr().err)
    assert not (run / "codes").exists()
