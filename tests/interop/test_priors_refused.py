"""Published priors that cannot be converted or asked: what is wrong is said."""

import dataclasses
import shutil

import numpy as np
import pytest
from golden import FOLDER, golden, llamagens

import taming_jax
from taming_jax import stored
from taming_jax.interop import convert_checkpoint
from taming_jax.interop.formats.torch_files import write_torch

CODES = np.zeros((2, 6, 8), np.int32)
DEPTH = golden("13_net2net_ckpt").outputs["c_indices"].astype(np.int32)
CLASSES = golden("09_net2net_classcond")


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (None, r"is told depth, as tokens .* from 0 to 23, and was told nothing"),
        (DEPTH + 9, r"told depth.*; the condition reaches from 10 to 26"),
        (DEPTH / 2, r"told depth.*; the condition is float64 \(2, 16\)"),
        (DEPTH[0], r"the condition is int32 \(16,\)"),
        (np.tile(DEPTH, 2), r"32 condition tokens and 6 x 8 codes take 79 .* has 64"),
    ],
)
def test_a_condition_that_cannot_be_is_refused(depth, condition, message):
    with pytest.raises(ValueError, match=message):
        depth.logits(CODES, condition)


def changed(**changes):
    params = CLASSES.config["params"]
    node = params["transformer_config"]
    gpt = node["params"] | changes.pop("gpt", {})
    node = node | {"params": gpt} | changes.pop("node", {})
    params = params | {"transformer_config": node} | changes
    return {"model": {"target": "Net2NetTransformer", "params": params}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed(pkip=1), r"has no key 'pkip'; did you mean 'pkeep'\?"),
        (changed(pkeep=0.0), r"pkeep=0\.0; it is a share"),
        (changed(gpt={"n_layers": 2}), r"no key 'n_layers'; did you mean 'n_layer'\?"),
        (changed(gpt={"n_head": "2"}), r"n_head is '2'; it takes a whole number"),
        (changed(gpt={"n_head": 3}), r"width=32 is not divided by heads=3"),
        (changed(gpt={"vocab_size": 12}), r"vocab_size=12 .*16 codes"),
        (changed(node={"target": "CodeGPT"}), r"target is 'CodeGPT'; known is GPT"),
        (changed(permuter_config={"target": "Hilbert"}), r"'Hilbert'; known are Ident"),
        (
            changed(
                permuter_config={"target": "Subsample", "params": {"H": 6, "W": 6}}
            ),
            r"order='subsample' halves .* 6 x 6",
        ),
        (changed(gpt={"n_layer": 3}), r"wants transformer\.|wants blocks\.2\."),
        (changed(gpt={"n_layer": 1}), r"the file has blocks\.1\."),
    ],
)
def test_a_configuration_that_is_not_the_files_is_refused(tmp_path, config, message):
    write_torch(tmp_path / "model.ckpt", {"state_dict": CLASSES.weights})
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(tmp_path / "model.ckpt", config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_of_another_size_is_refused(tmp_path, depth):
    case = llamagens("gpt")
    write_torch(tmp_path / "gpt.pt", {"model": case.weights})
    arguments = {"gpt": case.config["gpt"]}
    tokenizer = depth.directory.parent
    with pytest.raises(ValueError, match=r"has 24 codes, and the transformer draws 29"):
        convert_checkpoint(tmp_path / "gpt.pt", arguments, tmp_path / "o", tokenizer)


def test_a_second_tokenizer_is_refused(tmp_path, depth):
    config = FOLDER / "13_net2net.yaml"
    file, tokenizer = FOLDER / "13_net2net.ckpt", depth.directory.parent
    with pytest.raises(ValueError, match="brings its own tokenizer along: leave it"):
        convert_checkpoint(file, config, tmp_path / "out", tokenizer)


def test_a_tokenizer_that_took_the_place_of_the_priors_is_refused(tmp_path, depth):
    """Of as many codes and the same names: its fingerprint tells."""
    shutil.copytree(depth.directory.parent, tmp_path / "out")
    tokenizer = stored.read(tmp_path / "out", "vqgan")
    params = dict(tokenizer.variables["params"])
    table = params["quantizer"]["embedding"]
    params["quantizer"] = {"embedding": table[::-1]}
    other = dataclasses.replace(
        tokenizer, variables={**tokenizer.variables, "params": params}
    )
    stored.write(tmp_path / "out" / "vqgan", other, dtype="float32", card={})
    with pytest.raises(ValueError, match="codes of another tokenizer"):
        taming_jax.load_prior(tmp_path / "out")
