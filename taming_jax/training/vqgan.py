"""The first stage: from `config.vqgan` to something that the loop can train.

config -> recipe -> model, discriminator, perceptual weights -> state, step, metrics
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax import processes, ranking
from taming_jax.compilation import jit
from taming_jax.interop.perceptual import load_perceptual
from taming_jax.models.discriminator import Discriminator
from taming_jax.models.vqgan import VQGAN, blank
from taming_jax.training import mesh as meshes
from taming_jax.training.adversary import begin_memory
from taming_jax.training.initial import start_from
from taming_jax.training.optimizer import make_optimizer
from taming_jax.training.phases import Phase, by_phase
from taming_jax.training.recipe import VQGANRecipe
from taming_jax.training.reconstructions import (
    PICTURES,
    conclude,
    make_evaluate,
    reconstruct,
    side_by_side,
)
from taming_jax.training.sharding import at_use
from taming_jax.training.stage import Stage
from taming_jax.training.state import Adversary, TrainState
from taming_jax.training.usage import CodeWindow
from taming_jax.training.vqgan_step import make_train_step, terms_of

SHOWN = ("l1", "perceptual", "codebook_loss", "disc_loss", "codebook_usage")
SHOWN_OF_CLASSES = ("cross_entropy", *SHOWN[2:])


def make_vqgan_stage(
    config: Mapping[str, Any],
    mesh: jax.sharding.Mesh,
    section: str = "vqgan",
    class_names: Sequence[str] = (),
) -> Stage:
    """Builds a tokenizer's stage; nothing is computed yet.

    Args:
      config: the recipe card.
      mesh: of the devices.
      section: of the card, and what the stage is called.
      class_names: of class maps, as far as they have names.

    Raises:
      ValueError: for a recipe, an image size or a batch that cannot work, and for
        perceptual weights that are wanted and not to be had.
    """
    recipe = VQGANRecipe.from_config(config[section])
    model = at_use(VQGAN(**recipe.model), mesh)
    discriminator = at_use(make_discriminator(recipe), mesh)
    check_image_size(config["data"]["image_size"], model.stride)
    meshes.check_batch(
        recipe.run.batch_size, recipe.run.accumulate, mesh, axes=meshes.AXES
    )
    check_perceptual(recipe, model)
    perceptual = {}
    if recipe.loss.perceptual_weight > 0:
        with processes.first_goes_first("the perceptual weights"):
            perceptual = load_perceptual(recipe.loss.perceptual_weights)
        perceptual = jax.device_put(perceptual, meshes.replicated(mesh))

    key = jax.random.key(config["seed"])
    init = make_init(recipe, model, discriminator)
    shapes = jax.eval_shape(init, key)
    shardings = meshes.state_shardings(shapes, mesh)
    shared = meshes.replicated(mesh)

    def program(phase: Phase):
        step = make_train_step(recipe, model, discriminator, config["seed"], phase)
        step = jit(
            _spread(step, mesh),
            convolutions=True,
            donate_argnums=0,
            out_shardings=(shardings, shared),
        )
        return lambda state, batch: step(state, batch, perceptual)

    evaluate = _spread(make_evaluate(recipe, model), mesh)
    evaluate = jit(evaluate, convolutions=True, out_shardings=shared)
    beside = _make_beside(recipe, model)
    beside = jit(beside, convolutions=True, out_shardings=shared)

    def show(state, batch):
        pairs = side_by_side(recipe.input, *beside(state, batch), class_names)
        return {"reconstructions": pairs}

    return Stage(
        name=section,
        run=recipe.run,
        keep=(recipe.input.kind, "index"),
        terms=terms_of(model),
        shown=SHOWN_OF_CLASSES if model.classes else SHOWN,
        best=ranking.best_by(config, section),
        abstract=meshes.abstract_with_shardings(shapes, shardings),
        init=lambda: start_from(
            recipe.init_from,
            jit(init, out_shardings=shardings)(key),
            section,
            recipe.model,
        ),
        step=by_phase(recipe.loss, program),
        evaluate=lambda state, batch: evaluate(state, batch, perceptual),
        conclude=conclude,
        show=show,
        check=make_check(recipe, model),
        facts={"class_names": list(class_names)} if model.classes else {},
    )


def make_discriminator(recipe: VQGANRecipe) -> Discriminator | None:
    """The recipe's discriminator, None where the adversary has no weight."""
    if recipe.loss.adversarial_weight == 0:
        return None
    return Discriminator(**recipe.discriminator)


def make_init(
    recipe: VQGANRecipe, model: VQGAN, discriminator: Discriminator | None
) -> Callable[[jax.Array], TrainState]:
    """Builds `init(key) -> TrainState` at step 0; pure, to be jitted."""
    optimizer = make_optimizer(recipe.optimizer, recipe.run.steps)
    disc_optimizer = make_optimizer(recipe.disc_optimizer, recipe.run.steps)

    def init(key: jax.Array) -> TrainState:
        model_key, disc_key = jax.random.split(key)
        side = model.stride * 2  # parameters depend on no size
        x = blank(model, side)
        variables = model.init(model_key, x, train=True, step=jnp.int32(0))
        params = variables["params"]
        adversary = None
        if discriminator is not None:
            x = jnp.zeros((1, 2**8, 2**8, model.image_channels))
            stats = dict(discriminator.init(disc_key, x, train=True))
            disc_params = stats.pop("params")
            stats |= begin_memory(recipe.loss)
            adversary = Adversary(disc_params, stats, disc_optimizer.init(disc_params))
        return TrainState(
            step=jnp.int32(0),
            params=params,
            codebook=variables.get("codebook", {}),
            opt_state=optimizer.init(params),
            ema=params,
            adversary=adversary,
            usage=CodeWindow.empty(model.codebook_size),
            nonfinite=jnp.int32(0),
        )

    return init


def check_image_size(size: int, stride: int) -> None:
    """Raises ValueError if pictures of this size lose their last rows to the stride."""
    if size % stride:
        below, above = size // stride * stride, (size // stride + 1) * stride
        nearest = " or ".join(str(n) for n in (below, above) if n)
        raise ValueError(
            f"data.image_size={size} is no multiple of the model's stride {stride}: "
            f"use {nearest}"
        )


def check_perceptual(recipe: VQGANRecipe, model: VQGAN) -> None:
    """Raises ValueError if VGG16 is to look at what has not the channels for it."""
    weight = recipe.loss.perceptual_weight
    if weight and model.image_channels not in (1, 3):
        raise ValueError(
            f"perceptual_weight={weight} with image_channels={model.image_channels}: "
            "LPIPS looks at 1 or 3 channels; set perceptual_weight=0"
        )


def make_check(recipe: VQGANRecipe, model: VQGAN) -> Callable[[Mapping], None]:
    """Builds `check(batch)`: ValueError for a batch, on the host, that is not for it.

    What is compiled would not notice a class that there is not.
    """
    kind, last = recipe.input.kind, model.image_channels - 1

    @functools.cache
    def check_form(shape: tuple[int, ...], dtype: np.dtype) -> None:
        entry = jax.ShapeDtypeStruct(shape, dtype)
        try:
            model.check(jax.eval_shape(recipe.input.read, entry))
        except ValueError as error:
            raise ValueError(
                f"input={kind!r}: {error}; image_channels of encoder and decoder "
                "follow the data, or choose another input"
            ) from None

    def check(batch: Mapping[str, np.ndarray]) -> None:
        entry = batch[kind]
        check_form(entry.shape, entry.dtype)
        if model.classes and (odd := (entry < 0) | (entry > last)).any():
            pictures = batch["index"][odd.any((1, 2))].tolist()
            raise ValueError(
                f"class maps reach from {entry.min()} to {entry.max()} (pictures "
                f"{pictures}); the model has classes 0 to {last}: set image_channels, "
                "the encoder's and the decoder's, to their number, or mend the maps"
            )

    return check


def _spread(fn, mesh: jax.sharding.Mesh):
    """`fn(state, batch, perceptual)`, for which a batch is split over all devices."""

    @functools.wraps(fn)
    def over_all(state: TrainState, batch: dict, perceptual: Any):
        return fn(state, meshes.spread(batch, mesh), perceptual)

    return over_all


def _make_beside(recipe: VQGANRecipe, model: VQGAN):
    def beside(state: TrainState, batch: dict):
        x = recipe.input.read(batch[recipe.input.kind][:PICTURES])
        return x, reconstruct(model, state, x)

    return beside
