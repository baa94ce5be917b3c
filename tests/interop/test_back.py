"""Handed back: theirs -> ours -> theirs is equal, tensor for tensor."""

import json

import numpy as np
import pytest
import tiny_run
import yaml
from golden import FOLDER, OF_NO_USE, golden, llamagens
from numpy.testing import assert_array_equal

from taming_jax import ranking, stored
from taming_jax.files import write_json
from taming_jax.interop import convert_back, convert_checkpoint
from taming_jax.interop.checkpoint import open_checkpoint
from taming_jax.interop.contents import tensors_in
from taming_jax.interop.formats.torch_files import write_torch
from taming_jax.training.checkpoints import Checkpoints

OF_NO_USE = (*OF_NO_USE, "num_batches_tracked")
LLAMAGEN = llamagens("vq")


def test_the_originals_model_comes_back(tmp_path):
    convert_checkpoint(
        FOLDER / "13_vqmodel.ckpt", FOLDER / "13_vqmodel.yaml", tmp_path / "ours"
    )
    convert_back(tmp_path / "ours", tmp_path / "theirs.ckpt")
    content = open_checkpoint(tmp_path / "theirs.ckpt")
    assert content["global_step"] == 123_457
    assert_same(content, golden("13_vqmodel_ckpt").weights)


def test_llamagens_model_comes_back(tmp_path):
    weights, arguments = LLAMAGEN.weights, LLAMAGEN.config["vq"]
    write_torch(tmp_path / "vq.pt", {"model": weights})
    convert_checkpoint(tmp_path / "vq.pt", {"vq": arguments}, tmp_path / "ours")
    convert_back(tmp_path / "ours", tmp_path / "theirs.pt")
    counts = {"quantize.codebook_used": np.zeros(65_536, np.float32)}
    assert_same(open_checkpoint(tmp_path / "theirs.pt"), weights | counts)
    config = yaml.safe_load((tmp_path / "theirs.yaml").read_text())["vq"]
    fact = {"code_margin": arguments["code_margin"]}  # of the reference data
    assert config | fact == arguments


def test_codes_of_length_one_are_llamagens_by_either_name(tmp_path):
    """Trained here as `l2`, which is `vq` with `normalize`."""
    weights, arguments = LLAMAGEN.weights, LLAMAGEN.config["vq"]
    write_torch(tmp_path / "vq.pt", {"model": weights})
    convert_checkpoint(tmp_path / "vq.pt", {"vq": arguments}, tmp_path / "ours")
    path = tmp_path / "ours" / "vqgan" / "config.json"
    record = json.loads(path.read_text())
    del record["card"]["form"]  # a run has none
    quantizer = record["config"]["vqgan"]["model"]["quantizer"]
    del quantizer["normalize"]
    quantizer["name"] = "l2"
    write_json(path, record)
    convert_back(tmp_path / "ours", tmp_path / "theirs.pt")
    config = yaml.safe_load((tmp_path / "theirs.yaml").read_text())["vq"]
    assert config["l2_norm"]
    counts = {"quantize.codebook_used": np.zeros(65_536, np.float32)}
    assert_same(open_checkpoint(tmp_path / "theirs.pt"), weights | counts)


def test_llamagens_discriminator_goes_where_its_programs_look(tmp_path):
    """Their model takes no tensors but its own."""
    weights, arguments = LLAMAGEN.weights, LLAMAGEN.config["vq"]
    judge = golden("06_discriminator_batchnorm").weights
    content = {"model": weights, "discriminator": judge, "steps": 7}
    write_torch(tmp_path / "vq.pt", content)
    convert_checkpoint(tmp_path / "vq.pt", {"vq": arguments}, tmp_path / "ours")
    convert_back(tmp_path / "ours", tmp_path / "theirs.pt")
    back = open_checkpoint(tmp_path / "theirs.pt")
    assert back["steps"] == 7
    assert not [name for name in back["model"] if name.startswith("loss.")]
    assert_same(back["discriminator"], judge)


def kinds():
    """(the original's class, its params, weights) of what else it has."""
    plain, gumbel, classes = (
        golden(name) for name in ("02_vqmodel", "03_gumbelvq", "05_vqsegmentation")
    )
    averages = {
        "quantize.embedding.cluster_size": np.arange(20, dtype=np.float32),
        "quantize.embedding.embed_avg": np.ones((20, 6), np.float32),
    }
    acts = golden("06_discriminator_actnorm").weights
    against = {f"loss.discriminator.{name}": array for name, array in acts.items()}
    used = {"quantize.used": np.array([3, 1, 7])}
    alone = {k: v for k, v in plain.weights.items() if ".attn" not in k}
    ddconfig = plain.config["params"]["ddconfig"] | {"attn_type": "none"}
    without = plain.config["params"] | {"ddconfig": ddconfig}
    yield "VQModel", without, alone
    params = plain.config["params"]
    yield "VQModel", params, plain.weights | used
    yield "VQModel", params, plain.weights | against
    yield "EMAVQ", params, plain.weights | averages
    yield "GumbelVQ", gumbel.config["params"], gumbel.weights
    yield "GumbelVQ", gumbel.config["params"], gumbel.weights | used
    yield "VQSegmentationModel", classes.config["params"], classes.weights


@pytest.mark.parametrize(("target", "params", "weights"), list(kinds()))
def test_every_kind_comes_back_and_can_be_converted_again(
    tmp_path, target, params, weights
):
    config = {"target": f"taming.models.vqgan.{target}", "params": params}
    write_torch(tmp_path / "model.ckpt", {"state_dict": weights})
    convert_checkpoint(tmp_path / "model.ckpt", config, tmp_path / "ours")
    theirs = tmp_path / "theirs.safetensors"
    convert_back(tmp_path / "ours", theirs)
    assert_same(open_checkpoint(theirs), weights)
    convert_checkpoint(theirs, tmp_path / "theirs.yaml", tmp_path / "again")
    models = [
        stored.read(tmp_path / made, "vqgan").config["vqgan"]["model"]
        for made in ("ours", "again")
    ]
    assert models[0] == models[1]


def test_used_codes_are_named_where_the_original_looks_for_them(tmp_path):
    """In the file, and in a list that its configuration names."""
    _, params, weights = next(k for k in kinds() if "quantize.used" in k[2])
    config = {"target": "taming.models.vqgan.VQModel", "params": params}
    write_torch(tmp_path / "model.ckpt", {"state_dict": weights})
    convert_checkpoint(tmp_path / "model.ckpt", config, tmp_path / "ours")
    convert_back(tmp_path / "ours", tmp_path / "theirs.ckpt")
    said = yaml.safe_load((tmp_path / "theirs.yaml").read_text())
    assert said["model"]["params"]["remap"] == "theirs.npy"
    np.testing.assert_array_equal(np.load(tmp_path / "theirs.npy"), [3, 1, 7])


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"discriminator": {"norm": "batch", "blur": 3}}, False),
        ({"discriminator": {"norm": "batch", "spectral_norm": True}}, False),
        ({"discriminator": {"norm": "batch", "blur": 0}}, True),
        ({"adversarial_loss": "non_saturating"}, True),
    ],
)
def test_only_a_discriminator_that_they_have_is_handed_back(tmp_path, changes, kept):
    convert_checkpoint(
        FOLDER / "13_vqmodel.ckpt", FOLDER / "13_vqmodel.yaml", tmp_path / "ours"
    )
    path = tmp_path / "ours" / "vqgan" / "config.json"
    record = json.loads(path.read_text())
    record["config"]["vqgan"] |= changes
    path.write_text(json.dumps(record))
    convert_back(tmp_path / "ours", tmp_path / "theirs.ckpt")
    names = open_checkpoint(tmp_path / "theirs.ckpt")["state_dict"]
    assert any(name.startswith("loss.discriminator.") for name in names) == kept
    said = yaml.safe_load((tmp_path / "theirs.yaml").read_text())["model"]["params"]
    loss = said["lossconfig"].get("params", {}).get("disc_loss")
    vanilla = "adversarial_loss" in changes
    assert loss == (None if not kept else "vanilla" if vanilla else "hinge")


@pytest.mark.parametrize(
    "fails", ["yaml.safe_dump", "numpy.save", "taming_jax.interop.back.write_torch"]
)
def test_where_one_file_cannot_be_written_there_is_none(tmp_path, monkeypatch, fails):
    _, params, weights = next(k for k in kinds() if "quantize.used" in k[2])
    config = {"target": "taming.models.vqgan.VQModel", "params": params}
    write_torch(tmp_path / "model.ckpt", {"state_dict": weights})
    convert_checkpoint(tmp_path / "model.ckpt", config, tmp_path / "ours")
    (tmp_path / "out").mkdir()

    def refuse(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(fails, refuse)
    with pytest.raises(OSError, match="no space left"):
        convert_back(tmp_path / "ours", tmp_path / "out" / "theirs.ckpt")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_run_is_handed_back_with_its_discriminator(tmp_path):
    """One that went on from golden 13, as training leaves it."""
    convert_checkpoint(
        FOLDER / "13_vqmodel.ckpt", FOLDER / "13_vqmodel.yaml", tmp_path / "ours"
    )
    begun = stored.read(tmp_path / "ours", "vqgan")
    judge = stored.read_discriminator(tmp_path / "ours", "vqgan")
    adversary = {"params": judge.pop("params"), "stats": judge}
    stage_dir = tmp_path / "run" / "vqgan"
    stage_dir.mkdir(parents=True)
    write_json(stage_dir / "config.json", {"config": begun.config})
    best = ranking.BEST_BY["vqgan"]
    with Checkpoints(stage_dir / "checkpoints", keep=1, best=best) as checkpoints:
        state = {"ema": begun.variables["params"], "adversary": adversary}
        checkpoints.save(5, state, {"psnr": 20.0})
        checkpoints.wait()
    convert_back(tmp_path / "run", tmp_path / "theirs.ckpt")
    weights = golden("13_vqmodel_ckpt").weights
    kept = {k: v for k, v in weights.items() if "perceptual_loss" not in k}
    assert_same(open_checkpoint(tmp_path / "theirs.ckpt"), kept)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("back.ckpt", r"handed back: Encoder has patch_size=2; the"),
        ("back.h5", r"back\.h5 should end in \.ckpt, \.pt, \.pth, \.safetensors: "),
        ("mine.ckpt", r"mine\.ckpt exists; nothing is overwritten"),
        ("mine.pt", r"mine\.yaml exists; nothing is overwritten"),
    ],
)
def test_what_cannot_be_handed_back_is_refused(tmp_path, name, message):
    for there in ("mine.ckpt", "mine.yaml"):
        (tmp_path / there).touch()
    run = tiny_run.write_run(tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        convert_back(run, tmp_path / name)
    assert not (tmp_path / "back.ckpt").exists()


def assert_same(content, weights):
    tensors, _ = tensors_in(content)
    wanted = {k: v for k, v in weights.items() if not k.endswith(OF_NO_USE)}
    constants = {k for k in tensors if "scaling_layer" in k}
    assert tensors.keys() - constants == wanted.keys()
    for name, array in wanted.items():
        assert_array_equal(tensors[name].read(), array, strict=True, err_msg=name)
