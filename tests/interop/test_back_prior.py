"""Priors handed back: theirs -> ours -> theirs is equal, tensor for tensor."""

import shutil

import numpy as np
import pytest
import tiny_run
import yaml
from golden import FOLDER, OF_NO_USE, golden, llamagens
from numpy.testing import assert_array_equal

from taming_jax import cli, load_prior, stored
from taming_jax.files import write_json
from taming_jax.interop import convert_back, convert_checkpoint
from taming_jax.interop.checkpoint import open_checkpoint
from taming_jax.interop.contents import tensors_in
from taming_jax.interop.formats.torch_files import write_torch

OF_NO_USE = (*OF_NO_USE, "num_batches_tracked", "k_cache", "v_cache")
CLASSES = golden("09_net2net_classcond")


def assert_same(path, weights):
    tensors, _ = tensors_in(open_checkpoint(path))
    wanted = {k: v for k, v in weights.items() if not k.endswith(OF_NO_USE)}
    assert tensors.keys() == wanted.keys()
    for name, array in wanted.items():
        assert_array_equal(tensors[name].read(), array, strict=True, err_msg=name)


@pytest.fixture(scope="module")
def of_depth(tmp_path_factory):
    """Golden 13's two-stage checkpoint, converted."""
    ours = tmp_path_factory.mktemp("depth") / "ours"
    convert_checkpoint(FOLDER / "13_net2net.ckpt", FOLDER / "13_net2net.yaml", ours)
    return ours


def test_the_originals_two_stages_come_back_in_one_file(of_depth, tmp_path):
    theirs = tmp_path / "theirs.ckpt"
    flags = ["convert", "back", of_depth, theirs, "--stage", "prior"]
    assert cli.main([str(flag) for flag in flags]) == 0
    assert_same(theirs, golden("13_net2net_ckpt").weights)
    assert open_checkpoint(theirs)["global_step"] == 123_458


def test_what_came_back_is_converted_to_the_same_model(of_depth, tmp_path):
    convert_back(of_depth, tmp_path / "theirs.safetensors", "prior")
    again = tmp_path / "again"
    convert_checkpoint(tmp_path / "theirs.safetensors", tmp_path / "theirs.yaml", again)
    records = [stored.read_record(place, "prior") for place in (of_depth, again)]
    assert records[0]["facts"] == records[1]["facts"]
    models = [record["config"]["prior"]["model"] for record in records]
    assert models[0] == models[1]


def class_conditional(path, weights, **changes):
    write_torch(path / "model.ckpt", {"state_dict": weights, "global_step": 7})
    target = "taming.models.cond_transformer.Net2NetTransformer"
    config = {"target": target, "params": CLASSES.config["params"] | changes}
    convert_checkpoint(path / "model.ckpt", {"model": config}, path / "ours")
    return path / "ours"


def test_a_prior_of_classes_comes_back(tmp_path):
    ours = class_conditional(tmp_path, CLASSES.weights)
    convert_back(ours, tmp_path / "theirs.ckpt", "prior")
    assert_same(tmp_path / "theirs.ckpt", CLASSES.weights)
    said = yaml.safe_load((tmp_path / "theirs.yaml").read_text())["model"]["params"]
    given = CLASSES.config["params"]["cond_stage_config"]
    assert said["cond_stage_config"] == given


def test_its_order_comes_back(tmp_path):
    order = np.random.default_rng(0).permutation(64)
    shuffled = {"permuter.forward_shuffle_idx": order,
                "permuter.backward_shuffle_idx": np.argsort(order)}  # fmt: skip
    weights = {**CLASSES.weights, **shuffled}
    convert_back(
        class_conditional(tmp_path, weights), tmp_path / "theirs.ckpt", "prior"
    )
    assert_same(tmp_path / "theirs.ckpt", weights)


@pytest.fixture(scope="module")
def llamagen(tmp_path_factory):
    """(golden 15's transformer converted, its weights, its arguments)."""
    path = tmp_path_factory.mktemp("llamagen")
    case = llamagens("gpt")
    weights, arguments = case.weights, case.config["gpt"]
    write_torch(path / "gpt.pt", {"model": weights, "steps": 300})
    convert_checkpoint(path / "gpt.pt", {"gpt": arguments}, path / "ours")
    return path / "ours", weights, arguments


def test_llamagens_transformer_comes_back(llamagen, tmp_path):
    ours, weights, arguments = llamagen
    theirs = tmp_path / "theirs.pt"
    convert_back(ours, theirs, "prior")
    assert_same(theirs, weights)
    assert open_checkpoint(theirs)["steps"] == 300
    said = yaml.safe_load((tmp_path / "theirs.yaml").read_text())["gpt"]
    sizes = ("multiple_of", "ffn_dim_multiplier", "norm_eps")
    assert arguments.items() - {(k, arguments[k]) for k in sizes} <= said.items()


def test_its_arguments_build_the_same_model_again(llamagen, tmp_path):
    """The hidden layer's width is said with other arguments."""
    ours, _, _ = llamagen
    convert_back(ours, tmp_path / "theirs.pt", "prior")
    said = yaml.safe_load((tmp_path / "theirs.yaml").read_text())
    convert_checkpoint(tmp_path / "theirs.pt", said, tmp_path / "again")
    codes = np.arange(16, dtype=np.int32).reshape(1, 4, 4)
    label = np.array([3], np.int32)
    one, two = (
        load_prior(place).logits(codes, label) for place in (ours, tmp_path / "again")
    )
    assert_array_equal(one, two)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of ours: RMS norms, labels with tokens of their own."""
    run = tiny_run.write_run(tmp_path_factory.mktemp("tiny") / "run")
    return tiny_run.write_prior(run)


def test_what_they_could_not_build_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"handed back: norm='rms'; the orig"):
        convert_back(run, tmp_path / "theirs.ckpt", "prior")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"qk_norm": True}}, "qk_norm=True; the original's GPT has False"),
        ({"shared_vocabulary": False}, "shared_vocabulary=False; the original says"),
        ({"kind": "boxes"}, "it is told boxes; the original can be handed a prior"),
    ],
)
def test_what_they_have_no_words_for_is_named(of_depth, tmp_path, changes, message):
    record = stored.read_record(of_depth, "prior")
    section = record["config"]["prior"]
    section["model"] |= changes.get("model", {})
    section["shared_vocabulary"] = changes.get("shared_vocabulary", True)
    if "kind" in changes:
        record["facts"]["condition"] |= {"kind": changes["kind"], "tokenizer": None}
    with pytest.raises(ValueError, match=message):
        handed_back(of_depth, tmp_path, record)
    assert not (tmp_path / "theirs.ckpt").exists()


def handed_back(of_depth, path, record):
    """What is said of golden 13's prior, handed back with another config.json."""
    shutil.copytree(of_depth, path / "ours")
    write_json(path / "ours" / "prior" / "config.json", record)
    convert_back(path / "ours", path / "theirs.ckpt", "prior")
    return yaml.safe_load((path / "theirs.yaml").read_text())["model"]["params"]


@pytest.mark.parametrize("stage", ["vqgan", "condition_vqgan"])
def test_a_tokenizer_that_is_not_the_priors_is_not_handed_on(of_depth, tmp_path, stage):
    record = stored.read_record(of_depth, "prior")
    by = "tokenizer" if stage == "vqgan" else "condition"
    record["facts"][by]["fingerprint"] = "f00d"
    message = rf"ours/{stage} is not the tokenizer that the prior was .*f00d"
    with pytest.raises(ValueError, match=message):
        handed_back(of_depth, tmp_path, record)
    assert not (tmp_path / "theirs.ckpt").exists()


@pytest.mark.parametrize("side", [4, None])
def test_maps_that_were_not_reduced_are_not_there_either(of_depth, tmp_path, side):
    record = stored.read_record(of_depth, "prior")
    record["facts"]["condition"]["side"] = side
    said = handed_back(of_depth, tmp_path, record)
    assert said.get("downsample_cond_size") == side
