"""Published priors, converted: what they computed there, they compute here."""

import importlib.util

import jax
import numpy as np
import optax
import pytest
from golden import golden, llamagens, nhwc
from numpy.testing import assert_allclose, assert_array_equal

import taming_jax
from taming_jax import cli, stored
from taming_jax.interop import convert_checkpoint
from taming_jax.interop.formats.torch_files import write_torch
from taming_jax.orders import make_order
from taming_jax.pictures import write_png
from taming_jax.training.initial import check_start
from taming_jax.training.mesh import create_mesh
from taming_jax.training.prior import (
    make_init,
    make_prior_stage,
    make_transformer,
    make_vocabulary,
)
from taming_jax.training.recipe import Mesh, PriorRecipe
from taming_jax.training.sections import plain
from taming_jax.training.tokenizer import load_tokenizer
from taming_jax.units import as_images, to_uint8

KEY = jax.random.key(0)
NET2NET = golden("13_net2net_ckpt")
GRID = (6, 8)  # of the pictures that golden 13 holds
CODES = NET2NET.outputs["z_indices"].reshape(2, *GRID).astype(np.int32)
DEPTH = NET2NET.outputs["c_indices"].astype(np.int32)
CLASSES = golden("09_net2net_classcond")
LLAMAGEN = llamagens("gpt")


def class_conditional(path, *, order=None, **changes):
    """Golden 09's prior in a file and as the original describes it -> load_prior."""
    weights = dict(CLASSES.weights)
    if order is not None:
        weights["permuter.forward_shuffle_idx"] = order.astype(np.int64)
        weights["permuter.backward_shuffle_idx"] = np.argsort(order)
    write_torch(path / "model.ckpt", {"state_dict": weights, "global_step": 7})
    target = "taming.models.cond_transformer.Net2NetTransformer"
    config = {"target": target, "params": CLASSES.config["params"] | changes}
    convert_checkpoint(path / "model.ckpt", {"model": config}, path / "out")
    return taming_jax.load_prior(path / "out")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    return class_conditional(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="module")
def llamagen(tmp_path_factory):
    """Golden 15's transformer, as several processes would have saved it, alone."""
    path = tmp_path_factory.mktemp("llamagen")
    weights = {f"module.{k}": v for k, v in LLAMAGEN.weights.items()}
    write_torch(path / "gpt.pt", {"module": weights, "steps": 300})
    convert_checkpoint(path / "gpt.pt", {"gpt": LLAMAGEN.config["gpt"]}, path / "out")
    return taming_jax.load_prior(path / "out")


# The original's.


def test_logits_of_a_condition_given_as_tokens_equal_the_originals(depth):
    logits = depth.logits(CODES, DEPTH)
    assert_allclose(logits, NET2NET.outputs["logits"], **NET2NET.tolerance("logits"))


def test_the_loss_and_the_reconstruction_equal_the_originals(depth):
    images = nhwc(NET2NET.inputs["x"])
    assert_array_equal(depth.vqgan.encode(images), CODES)
    expected = np.clip(nhwc(NET2NET.outputs["reconstruction"]), -1, 1)
    tolerance = NET2NET.tolerance("reconstruction")
    assert_allclose(depth.vqgan.reconstruct(images), expected, **tolerance)
    loss = mean_loss(depth.logits(CODES, DEPTH), CODES.reshape(2, -1))
    assert_allclose(loss, NET2NET.outputs["loss"], **NET2NET.tolerance("loss"))


def mean_loss(logits, tokens):
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens).mean()


def test_greedy_codes_and_their_picture_equal_the_originals(depth):
    codes = depth.sample(KEY, DEPTH, shape=GRID, greedy=True)
    assert_array_equal(codes.reshape(2, -1), NET2NET.outputs["greedy_indices"])
    images = depth.generate(KEY, DEPTH, shape=GRID, greedy=True)
    expected = np.clip(nhwc(NET2NET.outputs["greedy_image"]), -1, 1)
    assert_allclose(images, expected, **NET2NET.tolerance("greedy_image"))


def test_a_grid_of_condition_codes_is_read_by_rows(depth):
    assert_array_equal(
        depth.logits(CODES, DEPTH.reshape(2, 4, 4)), depth.logits(CODES, DEPTH)
    )


def test_a_map_is_reduced_and_coded_as_the_original_does(depth):
    """12 x 16 pixels of depth are 4 x 4 to its tokenizer, whose codes these are."""
    maps = nhwc(NET2NET.inputs["cond"])
    assert depth.condition_vqgan.stage == "condition_vqgan"
    logits = depth.logits(CODES, maps)
    assert_allclose(logits, NET2NET.outputs["logits"], **NET2NET.tolerance("logits"))
    with pytest.raises(ValueError, match=r"takes \[batch, height, width, 1\]"):
        depth.logits(CODES, np.concatenate([maps, maps], -1))


def test_sample_asks_it_by_maps_in_files(depth, tmp_path):
    side = depth.grid[0] * depth.vqgan.stride
    pixels = np.arange(side**2, dtype=np.uint8).reshape(side, side, 1)
    write_png(tmp_path / "asked.png", pixels)
    flags = ["--model", str(depth.directory.parent), "--output", str(tmp_path / "out")]
    flags += ["--condition", str(tmp_path / "asked.png"), "--count", "2"]
    assert cli.main(["sample", *flags, "--top_k", "1"]) == 0
    grey = pixels.reshape(1, side, side) / np.float32(255)
    maps = depth.condition_vqgan.input.read(grey)
    expected = to_uint8(depth.generate(KEY, maps, greedy=True))
    with np.load(tmp_path / "out" / "samples.npz") as arrays:
        assert_array_equal(arrays["arr_0"], expected.repeat(2, 0))


def test_sample_asks_for_whole_pictures_where_coordinates_are_told(tmp_path):
    """Golden 09's, as if 4 x 4 coordinates in 16 steps were told before 4 x 4 codes."""
    params = CLASSES.config["params"]["first_stage_config"]["params"]
    small = params | {"ddconfig": params["ddconfig"] | {"resolution": 8}}
    vqgan = CLASSES.config["params"]["first_stage_config"] | {"params": small}
    stage = {"target": "CoordStage", "params": {"n_embed": 16, "down_factor": 2}}
    changes = {"cond_stage_key": "coord", "cond_stage_config": stage}
    prior = class_conditional(tmp_path, first_stage_config=vqgan, **changes)
    flags = ["--model", str(tmp_path / "out"), "--output", str(tmp_path / "drawn")]
    assert cli.main(["sample", *flags, "--count", "2", "--top_k", "1"]) == 0
    # The place at row r and column c begins 2 (8 r + c) pixels after the first one,
    # and its own four are on average 4.5 of 64 further on.
    before = 2 * (8 * np.arange(4)[:, None] + np.arange(4)) + 4.5
    told = np.round(16 * before / 64).astype(np.int32)
    expected = to_uint8(prior.generate(KEY, told.reshape(1, 16), greedy=True))
    with np.load(tmp_path / "drawn" / "samples.npz") as arrays:
        assert_array_equal(arrays["arr_0"], expected.repeat(2, 0))


def test_it_says_what_it_is_told(depth):
    assert depth.told == "depth"
    record = stored.read_record(depth.directory, "prior")
    assert record["step"] == 123_458
    assert record["facts"]["condition"] == {
        "kind": "depth",
        "length": 16,
        "start": 0,
        "tokenizer": "condition_vqgan",
        "side": 4,
        "fingerprint": depth.condition_vqgan.fingerprint,
        "null_label": False,
    }
    assert record["facts"]["tokenizer"]["fingerprint"] == depth.vqgan.fingerprint


def test_logits_of_labels_equal_the_originals(labelled):
    codes = CLASSES.outputs["z_indices"].reshape(2, 8, 8).astype(np.int32)
    labels = CLASSES.inputs["class_label"].astype(np.int32)
    logits = labelled.logits(codes, labels)
    assert_allclose(logits, CLASSES.outputs["logits"], **CLASSES.tolerance("logits"))


def test_only_codes_are_drawn_though_the_vocabulary_is_larger(labelled):
    labels = CLASSES.inputs["class_label"].astype(np.int32)
    codes = labelled.sample(KEY, labels, greedy=True)
    logits = labelled.logits(codes, labels)
    assert logits.shape[-1] == 20
    assert_array_equal(logits[..., :16].argmax(-1), codes.reshape(2, -1))


def test_an_unconditional_prior_begins_with_its_token(tmp_path):
    nothing = {"cond_stage_config": "__is_unconditional__", "sos_token": 3}
    prior = class_conditional(tmp_path, **nothing)
    codes = CLASSES.outputs["z_indices"].reshape(2, 8, 8).astype(np.int32)
    loss = mean_loss(prior.logits(codes), codes.reshape(2, -1))
    expected = CLASSES.outputs["uncond/loss"]
    assert_allclose(loss, expected, **CLASSES.tolerance("uncond/loss"))
    assert prior.sample(KEY, batch=1).shape == (1, 8, 8)


PERMUTER = "taming.modules.transformer.permuter.SpiralIn"


@pytest.mark.parametrize("kept", [False, True])
def test_tokens_are_in_the_order_of_the_permuter(tmp_path, labelled, kept):
    """By its name, or by what is kept in the file, which holds."""
    order = make_order("random" if kept else "spiral_in", (8, 8))
    permuter = {"target": PERMUTER, "params": {"H": 8, "W": 8}}
    own = {"order": order} if kept else {}
    prior = class_conditional(tmp_path, permuter_config=permuter, **own)
    assert_array_equal(prior.order, order)
    codes = CLASSES.outputs["z_indices"].reshape(2, 8, 8).astype(np.int32)
    labels = CLASSES.inputs["class_label"].astype(np.int32)
    shuffled = codes.reshape(2, -1)[:, order].reshape(2, 8, 8)
    expected = labelled.logits(shuffled, labels)
    assert_array_equal(prior.logits(codes, labels), expected)
    drawn = prior.sample(KEY, labels, greedy=True).reshape(2, -1)[:, order]
    expected = labelled.sample(KEY, labels, greedy=True).reshape(2, -1)
    assert_array_equal(drawn, expected)


# LlamaGen's.


def test_llamagens_logits_equal_the_originals(llamagen):
    """Those of no class, label 6, too. Tolerance: as the reference data ask for."""
    tokens = LLAMAGEN.inputs["tokens"].reshape(3, 4, 4).astype(np.int32)
    logits = llamagen.logits(tokens, LLAMAGEN.inputs["labels"])
    assert_allclose(logits, LLAMAGEN.outputs["logits"], rtol=0, atol=1e-4)
    loss = mean_loss(logits, LLAMAGEN.inputs["tokens"])
    assert_allclose(loss, LLAMAGEN.outputs["loss"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "schedule"),
    [("plain", "constant"), ("cfg2", "constant"), ("cfg3_interval", "interval:8")],
)
def test_llamagens_greedy_codes_equal_the_originals(llamagen, name, schedule):
    labels, said = LLAMAGEN.inputs["greedy_labels"], LLAMAGEN.config["greedy"][name]
    assert said["cfg_interval"] in (-1, 8)
    guided = {"guidance": said["cfg_scale"], "guidance_schedule": schedule}
    codes = llamagen.sample(KEY, labels, greedy=True, **guided)
    assert_array_equal(codes.reshape(2, -1), LLAMAGEN.outputs[f"greedy_{name}"])


def test_without_a_tokenizer_pictures_are_refused_and_why_is_said(llamagen):
    assert llamagen.vqgan is None
    with pytest.raises(ValueError, match=r"without its tokenizer.*--tokenizer DIR"):
        llamagen.generate(KEY, [0])


def test_its_tokenizer_comes_from_elsewhere(tmp_path):
    config, weights = LLAMAGEN.config, llamagens("vq").weights
    arguments = {"vq": config["vq"] | {"codebook_size": 29}, "gpt": config["gpt"]}
    weights["quantize.embedding.weight"] = weights["quantize.embedding.weight"][:29]
    write_torch(tmp_path / "vq.pt", {"model": weights})
    convert_checkpoint(tmp_path / "vq.pt", arguments, tmp_path / "vq")
    write_torch(tmp_path / "gpt.pt", {"model": LLAMAGEN.weights})
    made = tmp_path / "out", tmp_path / "vq"
    convert_checkpoint(tmp_path / "gpt.pt", arguments, *made)
    prior = taming_jax.load_prior(tmp_path / "out")
    assert prior.vqgan.directory == tmp_path / "out" / "vqgan"
    assert prior.vqgan.fingerprint == taming_jax.load_vqgan(made[1]).fingerprint
    assert prior.generate(KEY, [0], greedy=True).shape == (1, 8, 8, 3)


# Training on.


@pytest.mark.parametrize("name", ["labelled", "llamagen"])
def test_training_begins_with_these_weights(request, name):
    """By the card beside them, whose recipe, classes and first state fit them."""
    prior = request.getfixturevalue(name)
    recipe = PriorRecipe.from_config(card_beside(prior)["prior"])
    vocabulary = make_vocabulary(recipe, prior.vocabulary.codes, prior.class_names)
    model = make_transformer(recipe.model, vocabulary, prior.grid, recipe.order)
    state = jax.eval_shape(make_init(recipe, model), jax.random.key(0))
    known = stored.read_record(prior.directory, "prior")["facts"]
    facts = {key: known[key] for key in ("codes", "grid", "class_names", "tokenizer")}
    settings = {"recipe": recipe, "facts": facts}
    check_start(recipe.init_from, state.params, "prior", settings)


def card_beside(prior):
    """The recipe by which a converted prior is trained on."""
    path = prior.directory.parent / "card.py"
    spec = importlib.util.spec_from_file_location("card", path)
    card = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(card)
    return plain(card.get_config())


def test_one_that_is_told_maps_learns_on_from_what_it_knows(depth):
    """Its first loss on pictures and their depth is that of the published prior.

    Golden 13 has no place for the 8 x 8 codes of its own pictures: of 6 x 6.
    """
    config, mesh = card_beside(depth), create_mesh(Mesh(), jax.devices()[:1])
    config["data"]["image_size"] = 6
    section = config["prior"]
    stage = make_prior_stage(
        config,
        mesh,
        load_tokenizer(section["tokenizer"], mesh),
        (),
        from_codes=False,
        condition=load_tokenizer(
            section["condition_tokenizer"], mesh, "condition_vqgan"
        ),
        shapes={"image": (6, 6, 3), "depth": (6, 6)},
    )
    rows = np.arange(36, dtype=np.float32).reshape(6, 6)
    batch = {
        "image": np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), np.uint8),
        "depth": np.stack([rows, rows.T]) / 35,
        "mask": np.ones(2, bool),
    }
    found = stage.evaluate(stage.init(), batch)
    codes = np.asarray(depth.vqgan.encode(as_images(batch["image"])))
    maps = depth.condition_vqgan.input.read(batch["depth"])
    expected = mean_loss(depth.logits(codes, maps), codes.reshape(2, -1))
    assert_allclose(found["loss"] / found["count"], expected, rtol=1e-5)
