"""The judge: a small classifier of the data at hand, trained once and kept.

labelled pictures -> a few hundred steps -> W/judge/{weights.npz, judge.json}

It answers what pixels cannot: does a picture still show what it is of (accuracy),
and do many pictures look like the data (the Fréchet distance of its features)? Both
compare models of the same data with one another, and nothing else: the judge knows
only this data, which is why its own held-out accuracy stands beside every figure.

Pictures   uint8 [B, H, W, C]
Labels     int32 [B]
Features   float32 [B, D], of the last layer but one
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from etils import epath

from taming_jax import data
from taming_jax.metrics import kept, rejection
from taming_jax.metrics.learning import trained
from taming_jax.models.convolution import space_to_depth
from taming_jax.units import Images, from_uint8


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a judge is made. Enough for one object of a few dozen kinds."""

    size: int = 64  # pixels: all pictures are scaled to this height and width
    widths: tuple[int, ...] = (64, 128, 128)  # at a 4th, an 8th, a 16th of them
    features: int = 128
    steps: int = 300
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2


@dataclasses.dataclass(frozen=True)
class Judge:
    """A trained network; `card` is what judge.json says about it."""

    network: "Network"
    params: Mapping[str, Any]
    card: Mapping[str, Any]

    def __call__(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures -> (features, predicted labels)."""
        features, logits = _apply(self.network, self.params, pictures)
        return np.asarray(features), np.argmax(logits, axis=-1).astype(np.int32)

    def log_odds(self, pictures: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Of each picture showing its label, float64 [B]; see `rejection`."""
        _, logits = _apply(self.network, self.params, pictures)
        return rejection.log_odds(logits, labels)


def judge_of(
    train, held_out, *, directory, seed: int | None = 0, recipe=Recipe()
) -> Judge:
    """The judge kept in `directory`, or a new one if that is of other data.

    Args:
      train: the source that it learns from.
      held_out: the source that its own accuracy is measured on.
      directory: of its two files; made if it is not there.
      seed: of the initial weights and of the order of the examples; None: of the one
        that is kept, whatever it is, else 0.
      recipe: how a new one is made.

    Raises:
      ValueError: if the data have fewer than two classes.
    """
    classes = list(train.class_names)
    if len(classes) < 2:
        raise ValueError(
            f"a judge tells classes apart and the data have {len(classes)}; put the "
            "pictures into one directory per class"
        )
    identity = kept.as_read_back(
        {
            "train": train.identity,
            "held_out": held_out.identity,
            "shape": train.example_spec["image"].shape,
            "recipe": dataclasses.asdict(recipe),
            "seed": seed or 0,
        }
    )
    network = Network(len(classes), recipe)
    directory = epath.Path(directory)
    there = kept.load(directory, "judge")
    if there is not None:
        of_it = there[1]["identity"]
        if of_it == identity | ({"seed": of_it["seed"]} if seed is None else {}):
            return Judge(network, *there)
    judge = Judge(network, _train(network, train, seed or 0), {})
    accuracy, count = _accuracy(judge, held_out, recipe.batch_size)
    card = {
        "held_out_accuracy": accuracy,
        "held_out_examples": count,
        "classes": classes,
        "identity": identity,
    }
    card = kept.save(directory, "judge", judge.params, card)
    return dataclasses.replace(judge, card=card)


class Network(nn.Module):
    """Images -> (features, logits): patches, strided convolutions, two dense layers.

    The first dense layer sees every place for itself, which learns quickly: with a
    mean over places instead, 200 steps on `shapes` gave .33 in place of .998.
    """

    classes: int
    recipe: Recipe

    @nn.compact
    def __call__(self, images: Images) -> tuple[jax.Array, jax.Array]:
        size = self.recipe.size
        scaled = (len(images), size, size, images.shape[-1])
        x = space_to_depth(jax.image.resize(images, scaled, "linear"), 4)
        for level, width in enumerate(self.recipe.widths):
            stride = 1 if level == 0 else 2
            x = nn.Conv(width, (3, 3), strides=stride, use_bias=False)(x)
            x = nn.relu(nn.GroupNorm(8)(x))
        x = x.reshape(len(x), -1)  # [B, places * width]
        features = nn.relu(nn.Dense(self.recipe.features)(x))
        return features, nn.Dense(self.classes)(features)


@partial(jax.jit, static_argnums=0)
def _apply(network, params, pictures):
    return network.apply({"params": params}, from_uint8(pictures))


def _train(network: Network, source, seed: int):
    def loss(params, batch):
        _, logits = _apply(network, params, batch["image"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return losses.mean()

    keep = ("image", "label")
    return trained(network, loss, network.recipe, source, keep=keep, seed=seed)


def _accuracy(judge, source, batch_size) -> tuple[float, int]:
    """The share of the source that is judged rightly, and its size."""
    right = count = 0
    for batch in data.eval_batches(
        source, batch_size=batch_size, keep=("image", "label")
    ):
        _, predicted = judge(batch["image"])
        right += int(np.sum((predicted == batch["label"]) & batch["mask"]))
        count += int(np.sum(batch["mask"]))
    return right / count, count
