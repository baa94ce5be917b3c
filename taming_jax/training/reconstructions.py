"""What a tokenizer's reconstructions are worth while it learns, and how they look.

With the averaged weights: held-out entries -> model -> figures, or pictures.
Legend: x what goes into the model, x_hat what comes out, as `maps` has them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax import maps
from taming_jax.metrics import classes
from taming_jax.models.perceptual import lpips
from taming_jax.models.vqgan import VQGAN
from taming_jax.pictures import pair_rows
from taming_jax.training.recipe import VQGANRecipe
from taming_jax.training.state import TrainState

PICTURES = 16  # shown in a grid


def make_evaluate(recipe: VQGANRecipe, model: VQGAN) -> Callable:
    """Builds `evaluate(state, batch, perceptual) -> sums`, as `Stage.evaluate`."""

    def evaluate(state: TrainState, batch: dict, perceptual: Any) -> dict:
        entry = batch[recipe.input.kind]
        x = recipe.input.read(entry)
        x_hat = reconstruct(model, state, x)
        if model.classes:
            figures = _of_classes(x, x_hat, model.image_channels)
        else:
            figures = _of_images(entry, x, x_hat)
            if recipe.loss.perceptual_weight > 0:
                figures["perceptual"] = lpips(perceptual, x, x_hat)
        counted = batch["mask"].astype(jnp.float32)
        sums = {
            name: jnp.tensordot(counted, figure, axes=1)
            for name, figure in figures.items()
        }
        return sums | {"count": counted.sum()}

    return evaluate


def conclude(means: Mapping[str, Any]) -> dict[str, Any]:
    """The means of what `evaluate` sums up -> figures: IoU is of all pictures."""
    figures = dict(means)
    if "unions" in figures:
        pair = figures.pop("intersections"), figures.pop("unions")
        figures["mean_iou"] = classes.mean_iou(*pair)
    return figures


def reconstruct(model: VQGAN, state: TrainState, x):
    """x -> x_hat by the averaged weights: clipped images, or the likeliest classes."""
    variables = {"params": state.ema, "codebook": state.codebook}
    x_hat, _ = model.apply(variables, x, train=False, step=state.step)
    return model.decided(x_hat)


def side_by_side(reads: maps.Input, x, x_hat, class_names: Sequence[str]) -> np.ndarray:
    """A grid with every x above its x_hat, and the colours' names below: [H,W,C]."""
    shown = pair_rows(reads.draw(x), reads.draw(x_hat))
    if reads.kind != "segmentation":
        return shown
    below = maps.legend([x, x_hat], class_names, shown.shape[1])
    return np.concatenate([shown, below])


def _of_classes(x, x_hat, count: int) -> dict[str, jax.Array]:
    intersections, unions = classes.overlaps(x, x_hat, count)
    return {
        "pixel_accuracy": classes.pixel_accuracy(x, x_hat),
        "intersections": intersections,
        "unions": unions,
    }


def _of_images(entry, x, x_hat) -> dict[str, jax.Array]:
    """PSNR in dB, of pictures in 8 bits; and the error: of maps in units of [0,1]."""
    error = jnp.abs(x - x_hat).mean((1, 2, 3))
    if entry.dtype == jnp.uint8:  # as a file would hold them
        rounded = jnp.round((x_hat + 1.0) * 127.5)
        squares = jnp.square(entry.astype(jnp.float32) - rounded) / 255.0**2
        figures = {"l1": error}
    else:
        squares = jnp.square(x - x_hat) / 4.0
        figures = {"mean_absolute_error": error / 2.0}
    squares = jnp.maximum(squares.mean((1, 2, 3)), 1e-15)
    return {"psnr": -10.0 * jnp.log10(squares), **figures}
