"""Published priors that cannot be converted or asked: what is wrong is said."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
import tiny_run
from golden import FOLDER, golden, llamagens

import taming_jax
from taming_jax import stored
from taming_jax.cli.conditions import asked_for
from taming_jax.conditions import Vocabulary
from taming_jax.interop import convert_checkpoint
from taming_jax.interop.formats.torch_files import write_torch
from taming_jax.models.transformer import Transformer
from taming_jax.models.vqgan import VQGAN
from taming_jax.pretrained.prior import PretrainedPrior
from taming_jax.pretrained.vqgan import PretrainedVQGAN
from taming_jax.training.recipe import PriorRecipe

KEY = jax.random.key(0)
CODES = np.zeros((2, 6, 8), np.int32)
DEPTH = golden("13_net2net_ckpt").outputs["c_indices"].astype(np.int32)
CLASSES = golden("09_net2net_classcond")


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (None, r"is told depth, as tokens .* from 0 to 19, and was told nothing"),
        (DEPTH + 9, r"told depth.*; the condition reaches from 10 to 26"),
        (DEPTH / 2, r"told depth.*; the condition is float64 \(2, 16\)"),
        (DEPTH[0], r"the condition is int32 \(16,\)"),
        (DEPTH * 0 + 20, r"from 0 to 19; the condition reaches from 20 to 20"),
        (DEPTH[:, :15], r"6 x 8 codes is told depth by 16 tokens or 4 x 4 codes; .*15"),
        (DEPTH[:, :1], r"by 16 tokens or 4 x 4 codes; the condition is \(2, 1\)"),
        (np.tile(DEPTH, 2)[:, :17], r"by 16 tokens .*; the condition is \(2, 17\)"),
        (DEPTH[:, :4].reshape(2, 2, 2), r"by 16 tokens .* is \(2, 2, 2\)"),
        (DEPTH.reshape(2, 2, 8), r"by 16 tokens .* is \(2, 2, 8\)"),
    ],
)
def test_a_condition_that_cannot_be_is_refused(depth, condition, message):
    with pytest.raises(ValueError, match=message):
        depth.logits(CODES, condition)


def test_codes_and_their_condition_that_are_longer_than_the_prior_are_refused(depth):
    message = r"16 condition tokens and 8 x 8 codes take 79 places, .* has 64"
    with pytest.raises(ValueError, match=message):
        depth.logits(np.zeros((2, 8, 8), np.int32), DEPTH)


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
        (changed(gpt={"n_layer": None}), r"n_layer is None; it takes a whole number"),
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


@pytest.mark.parametrize("stage", ["vqgan", "condition_vqgan"])
def test_a_tokenizer_that_took_the_place_of_the_priors_is_refused(
    tmp_path, depth, stage
):
    """Of as many codes and the same names: its fingerprint tells."""
    shutil.copytree(depth.directory.parent, tmp_path / "out")
    tokenizer = stored.read(tmp_path / "out", stage)
    params = dict(tokenizer.variables["params"])
    table = params["quantizer"]["embedding"]
    params["quantizer"] = {"embedding": table[::-1]}
    other = dataclasses.replace(
        tokenizer, variables={**tokenizer.variables, "params": params}
    )
    stored.write(tmp_path / "out" / stage, other, dtype="float32", card={})
    with pytest.raises(ValueError, match="codes of another tokenizer"):
        taming_jax.load_prior(tmp_path / "out")


# Maps.


@pytest.fixture(scope="module")
def without_tokenizer(depth, tmp_path_factory):
    """Golden 13, whose directory has lost the tokenizer of depth."""
    output = tmp_path_factory.mktemp("lost") / "out"
    shutil.copytree(depth.directory.parent, output)
    shutil.rmtree(output / "condition_vqgan")
    return taming_jax.load_prior(output)


def test_a_map_s_tokenizer_that_is_missing_is_named(without_tokenizer):
    prior, maps = without_tokenizer, np.zeros((2, 12, 16, 1), np.float32)
    message = (
        r"tokenizer of the depth .* is missing: .* no condition_vqgan beside .*out"
    )
    with pytest.raises(ValueError, match=message + r".*int32 \[B, 4, 4\]"):
        prior.logits(CODES, maps)
    with pytest.raises(ValueError, match=message):
        prior.sample(KEY, maps, shape=(14, 14))  # by windows
    with pytest.raises(ValueError, match="--condition asked.png: the " + message):
        asked_for("all", "asked.png", prior)


def test_codes_of_a_map_do_without_its_tokenizer(without_tokenizer, depth):
    tokens = DEPTH.reshape(2, 4, 4)
    expected = depth.logits(CODES, tokens)
    np.testing.assert_array_equal(without_tokenizer.logits(CODES, tokens), expected)


@pytest.mark.parametrize("sides", [(1, 1), (5, 7), (8, 8), (3, 4), (16, 12)])
def test_a_map_of_other_proportions_or_of_too_few_pixels_is_refused(depth, sides):
    """A picture of 6 x 8 codes, told 4 x 4 codes of depth, one of each pixel."""
    message = (
        r"6 x 8 codes is told depth by a map in these proportions, of at least 4 x"
    )
    with pytest.raises(ValueError, match=message):
        depth.logits(CODES, np.zeros((2, *sides, 1), np.float32))


@pytest.fixture(scope="module")
def of_classes():
    """4 x 4 codes, told as many of class maps; a code of these covers 4 x 4 pixels."""
    settings = tiny_run.maps_model(3)
    vqgan = PretrainedVQGAN(
        VQGAN(**settings),
        {"params": tiny_run.random_params(0, settings)},
        stage="condition_vqgan",
        config={"condition_vqgan": {"model": settings}},
        directory="somewhere",
        step=0,
        fingerprint="",
    )
    sizes = {"vocab_size": 16, "length": 32, "width": 8, "layers": 1, "heads": 2}
    module = Transformer(grid=(4, 4), prefix=16, **sizes)
    params = jax.jit(module.init)(jax.random.key(1), np.zeros((1, 2), np.int32))
    return PretrainedPrior(
        module,
        params["params"],
        Vocabulary(16, shared=True, told={}),
        recipe=PriorRecipe.from_config(
            {
                "model": {},
                "condition": "tokens",
                "learning_rate": 1e-3,
                "steps": 1,
                "batch_size": 1,
            }
        ),
        vqgan=None,
        condition_vqgan=vqgan,
        class_names=(),
        told="segmentation",
        about={"tokenizer": "condition_vqgan", "side": None},
        any_grid=True,
        config={},
        directory="somewhere",
        step=0,
    )


@pytest.mark.parametrize("side", [2, 8, 12])
def test_a_small_class_map_is_not_taken_for_codes(of_classes, side):
    codes = np.zeros((1, 4, 4), np.int32)
    with pytest.raises(ValueError, match=rf"at least 16 x 16 .* \(1, {side}, {side}\)"):
        of_classes.logits(codes, np.zeros((1, side, side), np.int32))


def test_class_maps_are_reduced_and_codes_are_taken_as_they_are(of_classes):
    codes, maps = np.zeros((1, 4, 4), np.int32), np.arange(256).reshape(1, 16, 16) % 3
    told = np.asarray(of_classes.condition_vqgan.encode(maps))
    expected = of_classes.logits(codes, told)
    for each in (maps, maps.repeat(2, 1).repeat(2, 2)):
        np.testing.assert_array_equal(of_classes.logits(codes, each), expected)


def test_of_what_was_not_reduced_there_are_as_many_codes_as_the_picture_has(of_classes):
    """Or as many as in training, behind which the picture's codes stand as they did."""
    codes = np.zeros((1, 2, 6), np.int32)
    for many in (12, 16):
        of_classes.logits(codes, np.zeros((1, many), np.int32))
    message = r"by 12 tokens or 16 tokens or 2 x 6 codes or 4 x 4 codes; .*\(1, 13\)"
    with pytest.raises(ValueError, match=message):
        of_classes.logits(codes, np.zeros((1, 13), np.int32))


def test_what_is_no_grid_is_told_by_as_many_tokens_as_in_training(of_classes):
    """As boxes are, whose tokens mean nothing by rows and columns."""
    module = of_classes.module.clone(prefix=14)
    boxes = PretrainedPrior(
        module,
        of_classes.params,
        of_classes.vocabulary,
        recipe=of_classes._recipe,
        vqgan=None,
        class_names=(),
        told="objects_bbox",
        about={"tokenizer": None, "side": None},
        any_grid=True,
        config={},
        directory="somewhere",
        step=0,
    )
    codes = np.zeros((1, 4, 4), np.int32)
    assert boxes.logits(codes, np.zeros((1, 14), np.int32)).shape == (1, 16, 16)
    for many in (9, 15):  # 9: of the largest square in 14
        with pytest.raises(
            ValueError, match=rf"told objects_bbox by 14 tokens; .*{many}"
        ):
            boxes.logits(codes, np.zeros((1, many), np.int32))


def test_what_was_not_reduced_is_as_large_as_the_picture_asks_for(of_classes):
    """As the original: so many codes of the map as of the picture."""
    codes, maps = np.zeros((1, 2, 6), np.int32), np.arange(192).reshape(1, 8, 24) % 3
    tokens = np.asarray(of_classes.condition_vqgan.encode(maps)).reshape(1, 12)
    expected = of_classes.logits(codes, tokens)
    np.testing.assert_array_equal(of_classes.logits(codes, maps), expected)
