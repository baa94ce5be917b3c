"""Every recipe card becomes, at full size, what training needs; nothing is computed.

A card's docstring shows the commands that it is for, variants included
(`--config configs/NAME.py:VARIANT`); these are what is built.
"""

import functools
import importlib.util
import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from taming_jax.conditions.kinds import MapTokenizer
from taming_jax.data import DATASETS
from taming_jax.data.scenes import EXAMPLE
from taming_jax.models.perceptual import shapes_of
from taming_jax.models.vqgan import VQGAN
from taming_jax.training import prior
from taming_jax.training.phases import phase_at
from taming_jax.training.prior_step import make_train_step as make_prior_step
from taming_jax.training.recipe import (
    PriorRecipe,
    VQGANRecipe,
    mesh_from_config,
)
from taming_jax.training.sections import plain
from taming_jax.training.vqgan import check_image_size, make_discriminator, make_init
from taming_jax.training.vqgan_step import make_train_step

REQUIRED, TOKENIZERS = {"seed", "data", "mesh"}, ("vqgan", "condition_vqgan")
ROOT = Path(__file__).parents[1]


def module(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"configs/{name}.py")
    card = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(card)
    return card


def cards():
    """(name, variant) of every command that the cards show."""
    shown = set()
    for path in sorted((ROOT / "configs").glob("*.py")):
        commands = re.findall(r"--config configs/(\w+)\.py:?(\w*)", path.read_text())
        assert path.stem in dict(commands), f"{path} does not say how it is run"
        shown |= {of for of in commands if not of[1].isupper()}  # MODEL: yours
    return sorted(shown)


@functools.cache
def card(name, variant):
    arguments = (variant,) if variant else ()
    return plain(module(name).get_config(*arguments))


def with_section(*sections):
    """(name, variant, section) of every card that has one of them."""
    return [
        (*of, section) for of in cards() for section in sections if section in card(*of)
    ]


@functools.cache
def built(name, variant, section):
    """(recipe, model, discriminator, the first state's shapes)."""
    recipe = VQGANRecipe.from_config(card(name, variant)[section])
    model, discriminator = VQGAN(**recipe.model), make_discriminator(recipe)
    init = make_init(recipe, model, discriminator)
    return recipe, model, discriminator, jax.eval_shape(init, jax.random.key(0))


every_card = pytest.mark.parametrize(("name", "variant"), cards())
every_tokenizer = pytest.mark.parametrize(
    ("name", "variant", "section"), with_section(*TOKENIZERS)
)
every_prior = pytest.mark.parametrize(
    ("name", "variant"), [of[:2] for of in with_section("prior")]
)


@every_card
def test_sections_are_those_of_every_card(name, variant):
    stages = card(name, variant).keys() - REQUIRED
    assert stages
    assert stages <= {*TOKENIZERS, "prior"}
    assert card(name, variant).keys() >= REQUIRED


@every_card
def test_data_are_described_in_the_words_of_their_data_set(name, variant):
    settings = dict(card(name, variant)["data"])
    opener = DATASETS[settings.pop("name")]
    assert inspect.signature(opener).bind("train", **settings)


@every_card
def test_mesh_is_one(name, variant):
    assert mesh_from_config(card(name, variant)["mesh"])


@every_tokenizer
def test_pictures_fit_the_stride(name, variant, section):
    _, model, _, _ = built(name, variant, section)
    check_image_size(card(name, variant)["data"]["image_size"], model.stride)


@every_tokenizer
@pytest.mark.parametrize("share", [0, 1])
def test_the_step_takes_the_state_to_its_like(name, variant, section, share):
    """First and last, at full size: batch, model, both players, whatever the losses."""
    recipe, model, discriminator, state = built(name, variant, section)
    side = card(name, variant)["data"]["image_size"]
    dtype, *channels = ENTRIES[recipe.input.kind]
    shape = (recipe.run.batch_size, side, side, *channels)
    batch = {recipe.input.kind: jax.ShapeDtypeStruct(shape, dtype)}
    phase = phase_at(recipe.loss, share * recipe.run.steps)
    step = make_train_step(recipe, model, discriminator, seed=0, phase=phase)
    after, _ = jax.eval_shape(step, state, batch, perceptual(recipe))
    assert after == state


ENTRIES = {
    "image": ("uint8", 3),
    "segmentation": ("int32",),
    "depth": ("float32",),
    "edges": ("float32",),
}


@functools.cache
def built_prior(name, variant, classes=1_000):
    """(recipe, vocabulary, grid, model, the first state's shapes)."""
    sections = card(name, variant)
    recipe = PriorRecipe.from_config(sections["prior"])
    tokenizer = VQGAN(**sections["vqgan"]["model"])
    grid = prior.code_grid(sections["data"]["image_size"], tokenizer.stride)
    classes = 10 if "scenes" in sections["data"]["name"] else classes
    names = [f"class {i}" for i in range(classes)]
    vocabulary = prior.make_vocabulary(
        recipe, tokenizer.codebook_size, names, **about(sections, tokenizer.stride)
    )
    model = prior.make_transformer(recipe.model, vocabulary, grid)
    state = jax.eval_shape(prior.make_init(recipe, model), jax.random.key(0))
    return recipe, vocabulary, grid, model, state


@every_prior
def test_the_prior_s_step_takes_the_state_to_its_like(name, variant):
    recipe, vocabulary, grid, model, state = built_prior(name, variant)
    size = recipe.run.batch_size
    batch = {"codes": jax.ShapeDtypeStruct((size, *grid), jnp.int32)}
    for entry, (dtype, shape) in entries(card(name, variant)["data"]).items():
        batch[entry] = jax.ShapeDtypeStruct((size, *shape), dtype)
    step = make_prior_step(recipe, model, vocabulary, None, seed=0)
    after, _ = jax.eval_shape(step, state, batch, {})
    assert after == state


def entries(settings):
    """What the embedded data have in an example: dtype and shape of each."""
    sides = dict.fromkeys("HW", settings["image_size"])
    cut = {"crop": ("float32", (4,))} if settings.get("zoom", 1) > 1 else {}
    return cut | {
        name: (entry.dtype, tuple(sides.get(n, n) for n in entry.shape))
        for name, entry in EXAMPLE.items()
    }


def about(sections, stride):
    """What a prior's conditions are made for, with the tokenizer of the card."""
    side, tokenizer = sections["data"]["image_size"], None
    if "condition_vqgan" in sections:
        recipe = VQGANRecipe.from_config(sections["condition_vqgan"])
        maps = VQGAN(**recipe.model)

        def encode(variables, asked):
            del variables  # what becomes of the codes is the prior's affair
            codes = asked[:, :: maps.stride, :: maps.stride]
            return codes.reshape(*codes.shape[:3], -1)[..., 0].astype(jnp.int32)

        tokenizer = MapTokenizer(
            recipe.input, maps.stride, maps.codebook_size, maps.image_channels, encode
        )
    shapes = {name: shape for name, (_, shape) in entries(sections["data"]).items()}
    return {
        "image_size": side, "stride": stride, "shapes": shapes, "tokenizer": tokenizer
    }  # fmt: skip


def test_the_imagenet_prior_is_as_large_as_the_published_one():
    """The sum of the shapes in the published checkpoint, causal masks left out."""
    *_, state = built_prior("imagenet", "")
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == PUBLISHED


PUBLISHED = 1_410_640_896


def test_the_modern_imagenet_prior_is_of_llamagens_size():
    *_, state = built_prior("imagenet", "modern")
    size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert size == pytest.approx(343e6, rel=0.02)


def perceptual(recipe):
    """The shapes of VGG16 and of its heads, where the recipe wants them."""
    if recipe.loss.perceptual_weight == 0:
        return {}
    return shapes_of()
