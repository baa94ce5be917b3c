"""What a reconstruction is wrong about: the losses that need no other player.

    x, x_hat [B,H,W,C] --> (what is minimised, its terms for the logs)

Of images a weighted sum of distances, which the original calls nll; of class maps,
one-hot against logits, their cross-entropy alone.
"""

import jax.numpy as jnp

from taming_jax import losses
from taming_jax.models.perceptual import lpips
from taming_jax.training.loss_weights import IMAGE_WEIGHTS, VQGANLoss

IMAGE_TERMS = tuple(name.removesuffix("_weight") for name in IMAGE_WEIGHTS)
CLASS_TERMS = ("cross_entropy",)


def nll_of_images(x, x_hat, loss: VQGANLoss, perceptual, key):
    """Weighted sum of what the reconstruction is wrong about, and its terms."""
    terms = {
        "l1": losses.l1_loss(x=x, x_hat=x_hat),
        "l2": losses.l2_loss(x=x, x_hat=x_hat),
        "difference": losses.difference_loss(x=x, x_hat=x_hat),
        "sharpness": losses.sharpness_loss(x=x, x_hat=x_hat),
        "perceptual": jnp.zeros(()),
    }
    if loss.perceptual_weight > 0:
        dropout = {"dropout": loss.perceptual_dropout, "key": key}
        terms["perceptual"] = lpips(perceptual, x, x_hat, **dropout).mean()
    return sum(getattr(loss, f"{name}_weight") * terms[name] for name in terms), terms


def nll_of_classes(x, x_hat, loss: VQGANLoss, perceptual, key):
    """The same of class maps, x one-hot and x_hat logits [B,H,W,K]."""
    del loss, perceptual, key  # which are of images
    cross_entropy = losses.cross_entropy_loss(one_hot=x, logits=x_hat)
    return cross_entropy, {"cross_entropy": cross_entropy}
