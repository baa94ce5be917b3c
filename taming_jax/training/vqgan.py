"""The first stage: from `config.vqgan` to something that the loop can train.

config -> recipe -> model, discriminator, perceptual weights -> state, step, metrics
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from taming_jax import stored, units
from taming_jax.compilation import jit
from taming_jax.interop.perceptual import load_perceptual
from taming_jax.models.discriminator import Discriminator
from taming_jax.models.perceptual import lpips
from taming_jax.models.vqgan import VQGAN
from taming_jax.pictures import pair_rows
from taming_jax.training import mesh as meshes
from taming_jax.training.initial import start_from
from taming_jax.training.optimizer import make_optimizer
from taming_jax.training.phases import Phase, by_phase
from taming_jax.training.recipe import VQGANRecipe
from taming_jax.training.sharding import at_use
from taming_jax.training.stage import Stage
from taming_jax.training.state import Adversary, TrainState
from taming_jax.training.usage import CodeWindow
from taming_jax.training.vqgan_step import TERMS, make_train_step

SHOWN = ("l1", "perceptual", "codebook_loss", "disc_loss", "codebook_usage")
PICTURES = 16  # shown in a grid


def make_vqgan_stage(
    config: Mapping[str, Any], mesh: jax.sharding.Mesh, section: str = "vqgan"
) -> Stage:
    """Builds the tokenizer's stage; nothing is computed yet.

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
    perceptual = {}
    if recipe.loss.perceptual_weight > 0:
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
            _spread(step, mesh), donate_argnums=0, out_shardings=(shardings, shared)
        )
        return lambda state, batch: step(state, batch, perceptual)

    evaluate = _spread(_make_evaluate(recipe, model), mesh)
    evaluate = jit(evaluate, out_shardings=shared)
    beside = jit(_make_beside(model), out_shardings=shared)

    def show(state, batch):
        x, x_hat = beside(state, batch)
        return {"reconstructions": pair_rows(units.to_uint8(x), units.to_uint8(x_hat))}

    return Stage(
        name=section,
        run=recipe.run,
        keep=("image", "index"),
        terms=TERMS,
        shown=SHOWN,
        best=stored.BEST_BY["vqgan"],
        abstract=meshes.abstract_with_shardings(shapes, shardings),
        init=lambda: start_from(
            recipe.init_from, jit(init, out_shardings=shardings)(key), section
        ),
        step=by_phase(recipe.loss, program),
        evaluate=lambda state, batch: evaluate(state, batch, perceptual),
        show=show,
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
        x = jnp.zeros((1, side, side, model.image_channels))
        variables = model.init(model_key, x, train=True, step=jnp.int32(0))
        params = variables["params"]
        adversary = None
        if discriminator is not None:
            x = jnp.zeros((1, 2**8, 2**8, model.image_channels))
            stats = dict(discriminator.init(disc_key, x, train=True))
            disc_params = stats.pop("params")
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


def _spread(fn, mesh: jax.sharding.Mesh):
    """`fn(state, batch, perceptual)`, for which a batch is split over all devices."""

    @functools.wraps(fn)
    def over_all(state: TrainState, batch: dict, perceptual: Any):
        return fn(state, meshes.spread(batch, mesh), perceptual)

    return over_all


def _make_evaluate(recipe: VQGANRecipe, model: VQGAN):
    """`evaluate(state, batch, perceptual)` with the averaged weights."""

    def evaluate(state: TrainState, batch: dict, perceptual: Any) -> dict:
        x = units.as_images(batch["image"])
        x_hat = jnp.clip(_reconstruct(model, state, x), -1.0, 1.0)
        figures = {
            "psnr": _psnr(batch["image"], x_hat),
            "l1": jnp.abs(x - x_hat).mean((1, 2, 3)),
        }
        if recipe.loss.perceptual_weight > 0:
            figures["perceptual"] = lpips(perceptual, x, x_hat)
        counted = batch["mask"].astype(jnp.float32)
        sums = {name: (figure * counted).sum() for name, figure in figures.items()}
        return sums | {"count": counted.sum()}

    return evaluate


def _make_beside(model: VQGAN):
    def beside(state: TrainState, batch: dict):
        x = units.as_images(batch["image"][:PICTURES])
        return x, _reconstruct(model, state, x)

    return beside


def _reconstruct(model: VQGAN, state: TrainState, x):
    variables = {"params": state.ema, "codebook": state.codebook}
    x_hat, _ = model.apply(variables, x, train=False, step=state.step)
    return x_hat


def _psnr(pictures, x_hat):
    """dB per picture, of what a file would hold: x_hat rounded to 8 bits."""
    rounded = jnp.round((x_hat + 1.0) * 127.5)
    error = jnp.square(pictures.astype(jnp.float32) - rounded).mean((1, 2, 3))
    return 10.0 * jnp.log10(255.0**2 / jnp.maximum(error, 1e-10))
