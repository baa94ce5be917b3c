"""The card beside a converted model trains it further, from these very weights."""

import importlib.util
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from golden import FOLDER, golden

from taming_jax import stored
from taming_jax.conditions.kinds import MapTokenizer
from taming_jax.interop import convert_checkpoint
from taming_jax.interop.configurations import read
from taming_jax.interop.formats.torch_files import write_torch
from taming_jax.interop.known import KNOWN
from taming_jax.interop.priors import find_shapes
from taming_jax.interop.recipe_cards import published, write_card
from taming_jax.maps import Input
from taming_jax.training.mesh import create_mesh
from taming_jax.training.prior import make_init, make_transformer, make_vocabulary
from taming_jax.training.recipe import Mesh, PriorRecipe, VQGANRecipe
from taming_jax.training.sections import plain
from taming_jax.training.vqgan import make_vqgan_stage

CHECKPOINT, CONFIG = FOLDER / "13_vqmodel.ckpt", FOLDER / "13_vqmodel.yaml"


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Golden 13's tokenizer, with the networks of its loss."""
    output = tmp_path_factory.mktemp("cards") / "out"
    convert_checkpoint(CHECKPOINT, CONFIG, output)
    return output


def card(directory):
    spec = importlib.util.spec_from_file_location("card", directory / "card.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def test_it_trains_the_model_further(output):
    """Its stage is built, whole, and fits the weights that lie beside the card."""
    config = plain(card(output))
    stage = make_vqgan_stage(config, create_mesh(Mesh(), jax.devices()[:1]))
    model = stored.read(config["vqgan"]["init_from"], "vqgan")
    judge = stored.read_discriminator(config["vqgan"]["init_from"], "vqgan")
    adversary = stage.abstract.adversary
    ours = stage.abstract.params, {"params": adversary.params, **adversary.stats}
    assert shapes(ours) == shapes((model.variables["params"], judge))


def shapes(tree):
    return jax.tree.map(np.shape, tree)


def test_it_may_be_moved_with_its_model(output, tmp_path):
    moved = shutil.copytree(output, tmp_path / "moved")
    assert card(moved).vqgan.init_from == str(moved)
    weights = str(moved / "vqgan" / "perceptual.npz")
    assert card(moved).vqgan.perceptual_weights == weights


def test_a_discriminator_that_is_new_learns_longer_before_it_counts(output, tmp_path):
    weights = golden("13_vqmodel_ckpt").weights
    alone = {k: v for k, v in weights.items() if not k.startswith("loss.")}
    write_torch(tmp_path / "model.ckpt", {"state_dict": alone})
    convert_checkpoint(tmp_path / "model.ckpt", CONFIG, tmp_path / "out")
    starts = [card(d).vqgan.adversarial_start for d in (tmp_path / "out", output)]
    assert starts == [2_000, 500]


@pytest.mark.parametrize("name", KNOWN)
def test_every_known_model_has_one(name, tmp_path):
    """The recipe as published, and the card, are whole: nothing in them is unknown."""
    models = read(name)
    recipe = published(models)
    condition = models["prior"].readable if "prior" in models else None
    brought = {stage: [] for stage in models}
    write_card(tmp_path / "card.py", recipe, brought, condition=condition)
    further = plain(card(tmp_path))
    assert further["data"]["name"] == "folder"
    stages = further.keys() & {"vqgan", "condition_vqgan", "prior"}
    assert stages == models.keys() - ({"prior"} if condition is None else set())
    for stage in stages:
        kind = PriorRecipe if stage == "prior" else VQGANRecipe
        assert further[stage]["model"] == plain(recipe[stage]["model"])
        assert kind.from_config(recipe[stage]).run.steps
        assert kind.from_config(further[stage]).init_from == str(tmp_path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("cin_transformer", "label"),
        ("faceshq_transformer", {"name": "coordinates", "steps": 1_024, "one": False}),
        ("drin_transformer", "depth"),
        ("coco_scene_transformer", None),
        ("llamagen_gpt_b_256", "label"),
    ],
)
def test_a_prior_learns_on_by_what_it_is_told(name, told):
    """At full size, on such data: of the published names and shapes. Boxes are not."""
    prior = read(name)["prior"]
    assert prior.readable == told
    if told is None:
        return
    section = published(read(name))["prior"] | {"condition": told}
    recipe = PriorRecipe.from_config(section)
    classes = tuple(map(str, range(prior.classes)))
    depth = MapTokenizer(Input("depth", True), 16, prior.codes, 1, None)
    side = prior.resolution
    shapes = {"depth": (side, side), "coordinates": (side, side)}
    about = {"image_size": side, "stride": 16, "shapes": shapes, "tokenizer": depth}
    vocabulary = make_vocabulary(recipe, prior.codes, classes, **about)
    model = make_transformer(recipe.model, vocabulary, prior.grid)
    params = jax.eval_shape(make_init(recipe, model), jax.random.key(0)).params
    assert flatten_dict({"params": params}, sep="/") == find_shapes(prior)


def test_a_condition_s_tokenizer_has_its_section(tmp_path):
    recipe = published(read(FOLDER / "13_net2net.yaml"))
    write_card(tmp_path / "card.py", recipe, {"vqgan": [], "condition_vqgan": []})
    further = plain(card(tmp_path))
    for config in (recipe, further):
        condition = VQGANRecipe.from_config(config["condition_vqgan"])
        assert condition.input == ("depth", True)
