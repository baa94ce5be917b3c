"""`convert`: each kind does what its function does, and says what was made."""

import pytest
import yaml
from golden import FOLDER

import taming_jax
from taming_jax import cli
from taming_jax.interop import perceptual
from taming_jax.interop.known import KNOWN

CHECKPOINT, CONFIG = FOLDER / "13_vqmodel.ckpt", FOLDER / "13_vqmodel.yaml"


def convert(*arguments):
    return cli.main(["convert", *map(str, arguments)])


def test_a_model_is_converted_and_handed_back(tmp_path, capsys):
    assert convert("model", CHECKPOINT, CONFIG, tmp_path / "ours") == 0
    said = capsys.readouterr().out
    assert "vqgan: 0.2M parameters, with discriminator, with perceptual" in said
    assert f"python train_vqgan.py --config {tmp_path}/ours/card.py" in said
    assert convert("back", tmp_path / "ours", tmp_path / "theirs.ckpt") == 0
    theirs = tmp_path / "theirs.ckpt", tmp_path / "theirs.yaml"
    assert convert("model", *theirs, tmp_path / "again") == 0
    fingerprints = {
        taming_jax.load_vqgan(tmp_path / made).fingerprint for made in ("ours", "again")
    }
    assert len(fingerprints) == 1


def test_a_transformer_is_converted_with_its_tokenizers(tmp_path, capsys):
    files = FOLDER / "13_net2net.ckpt", FOLDER / "13_net2net.yaml"
    assert convert("model", *files, tmp_path / "out") == 0
    said = capsys.readouterr().out
    for stage in ("vqgan", "condition_vqgan", "prior"):
        assert f"{tmp_path}/out/{stage}: 0." in said
    assert f"python train_prior.py --config {tmp_path}/out/card.py" in said


def test_what_is_told_boxes_is_not_said_to_be_trained_further(tmp_path, capsys):
    """As those of COCO and OpenImages."""
    config = yaml.safe_load((FOLDER / "13_net2net.yaml").read_text())
    target = "taming.models.dummy_cond_stage.DummyCondStage"
    config["model"]["params"]["cond_stage_key"] = "objects_bbox"
    config["model"]["params"]["cond_stage_config"] = {"target": target}
    (tmp_path / "boxes.yaml").write_text(yaml.safe_dump(config))
    files = FOLDER / "13_net2net.ckpt", tmp_path / "boxes.yaml"
    assert convert("model", *files, tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert (
        "draws and gives logits; training here does not read its objects_bbox" in said
    )
    assert "train_" not in said


def test_perceptual_weights_are_converted(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(perceptual, "convert_perceptual", lambda *a: asked.append(a))
    assert convert("perceptual", "vgg16.pth", "vgg.pth", "out.npz") == 0
    assert asked == [("vgg16.pth", "vgg.pth", "out.npz")]
    assert "out.npz" in capsys.readouterr().out


def test_a_tokenizer_is_asked_for_in_vain(tmp_path, capsys):
    flags = ("--tokenizer", "W")
    assert convert("model", CHECKPOINT, CONFIG, tmp_path / "out", *flags) == 2
    assert "tokenizer='W' belongs to a prior" in capsys.readouterr().err


def test_what_is_wrong_is_one_line(tmp_path, capsys):
    assert convert("model", tmp_path / "none.ckpt", CONFIG, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "none.ckpt: it is not there" in error
    assert list(tmp_path.iterdir()) == []


def test_help_lists_what_is_known(capsys):
    with pytest.raises(SystemExit, match="0"):
        convert("--help")
    listed = capsys.readouterr().out
    assert all(name in listed for name in KNOWN)
    lines = {line.split()[0]: line for line in listed.splitlines() if line.strip()}
    assert "unproved" in lines["ldm_vq_f4_noattn"]
    assert "derived" in lines["llamagen_gpt_xl_256"]
    assert "derived" not in lines["llamagen_gpt_l_256"]
