"""The reader: a small network that reads maps off pictures, trained once and kept.

    pictures uint8 [B,S,S,3] --reader--> class maps, depth, edges, places of keypoints

It is to what was asked for what the judge is to classes: samples are read, and what is
read is compared with what was asked (`truth`). It knows only these data and errs, which
is why its error on the originals stands beside every figure. No weight of it is any
model's that it measures.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from taming_jax.metrics import kept
from taming_jax.metrics.learning import trained
from taming_jax.models.convolution import depth_to_space, space_to_depth
from taming_jax.units import Images, from_uint8

READS = ("segmentation", "depth", "edges", "keypoints")
_BLUR = 1.5  # pixels: of a keypoint's place, to be learned


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a reader is made."""

    widths: tuple[int, ...] = (48, 96, 128)  # at a half, a 4th, an 8th of the pixels
    steps: int = 2_500
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3


@dataclasses.dataclass(frozen=True)
class Reader:
    """A trained network; `card` is what reader.json says about it."""

    network: "Network"
    params: Mapping[str, Any]
    card: Mapping[str, Any]

    def __call__(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """Pictures -> what they show, under the names of what it was made to read.

        segmentation int [B,S,S]; depth, edges [B,S,S] in [0,1]; keypoints [B,S,S,P],
        highest where a point of that name is.
        """
        read = _read(self.network, self.params, pictures)
        return {name: np.asarray(values) for name, values in read.items()}


def reader_of(
    train,
    *,
    directory,
    seed: int = 0,
    reads=READS,
    regions: int | None = None,
    recipe=Recipe(),
) -> Reader:
    """The reader kept in `directory`, or a new one if that is of other data.

    Args:
      train: the source that it learns from.
      directory: of its two files; made if it is not there.
      seed: of the initial weights and of the order of the examples.
      reads: names of READS: all that it learns to read. Crops have no keypoints.
      regions: so many classes have class maps; None: as many as the data name.
      recipe: how a new one is made.

    Raises:
      ValueError: if the data have no maps to be read, or do not name the classes of
        these and nobody says how many there are.
    """
    reads = _checked(reads, train, regions)
    identity = {
        "train": train.identity,
        "shape": train.example_spec["image"].shape,
        "recipe": dataclasses.asdict(recipe),
        "seed": seed,
    }
    if reads != READS:
        identity["reads"] = reads
    if regions and regions != len(train.region_names):
        identity["regions"] = regions
    identity, directory = kept.as_read_back(identity), epath.Path(directory)
    network = Network(_channels(reads, train, regions), recipe.widths)
    there = kept.load(directory, "reader")
    if there is not None and there[1]["identity"] == identity:
        return Reader(network, *there)
    loss, keep = partial(_loss, network), ("image", *reads)
    params = trained(network, loss, recipe, train, keep=keep, seed=seed)
    card = kept.save(directory, "reader", params, {"identity": identity})
    return Reader(network, params, card)


def _checked(reads, train, regions: int | None) -> tuple[str, ...]:
    """What a reader learns, in the order of READS; ValueError as `reader_of` says."""
    if not reads or (unknown := set(reads) - set(READS)):
        raise ValueError(
            f"a reader of {', '.join(sorted(unknown)) if reads else 'nothing'}: name "
            f"what it is to read, of {', '.join(READS)}"
        )
    reads = tuple(name for name in READS if name in reads)
    if missing := [name for name in reads if name not in train.example_spec]:
        raise ValueError(
            f"a reader learns {', '.join(reads)}, and these data have no "
            f"{', '.join(missing)}: measure without it"
        )
    if "segmentation" in reads and not (regions or train.region_names):
        raise ValueError(
            "a reader learns class maps, and these data do not say how many classes "
            "there are: give regions"
        )
    return reads


def _channels(reads, train, regions: int | None) -> tuple[tuple[str, int], ...]:
    """(name, channels) of each."""
    channels = {"segmentation": regions or len(train.region_names)}
    if "keypoints" in reads:
        channels["keypoints"] = train.example_spec["keypoints"].shape[1]
    return tuple((name, channels.get(name, 1)) for name in reads)


class Network(nn.Module):
    """Images -> logits at every pixel: of classes, depth, edges, points, or some.

    Down three times and up again, with what was seen on the way down beside it.

    reads: (name, channels) of each; depth and edges have one, and no axis for it.
    widths: of its levels.
    """

    reads: tuple[tuple[str, int], ...]
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, images: Images) -> dict[str, jax.Array]:
        x, seen = space_to_depth(images, 2), []
        for level, width in enumerate(self.widths):
            x = self._block(x, width, stride=1 if level == 0 else 2)
            x = self._block(x, width)
            seen.append(x)
        for width, beside in zip(self.widths[-2::-1], seen[-2::-1], strict=True):
            x = depth_to_space(nn.Conv(4 * width, (1, 1))(x), 2)
            x = self._block(jnp.concatenate([x, beside], axis=-1), width)
        names, channels = zip(*self.reads, strict=True)
        x = depth_to_space(nn.Conv(4 * sum(channels), (3, 3))(x), 2)
        parts = jnp.split(x, np.cumsum(channels)[:-1], axis=-1)
        return {
            name: part[..., 0] if name in ("depth", "edges") else part
            for name, part in zip(names, parts, strict=True)
        }

    def _block(self, x, width: int, stride: int = 1):
        x = nn.Conv(width, (3, 3), strides=stride, use_bias=False)(x)
        return nn.relu(nn.GroupNorm(8)(x))


@partial(jax.jit, static_argnums=0)
def _read(network, params, pictures):
    out = network.apply({"params": params}, from_uint8(pictures))
    return {name: _SAYS[name](logits) for name, logits in out.items()}


def heat_of(keypoints, size: int) -> jax.Array:
    """Keypoints [B,M,P,3] -> [B,S,S,P]: 1 at those in sight, less around them."""
    places = (jnp.arange(size) + 0.5) / size
    x, y, seen = (keypoints[..., i, None] for i in range(3))  # [B,M,P,1]
    near_x, near_y = (
        jnp.exp(-0.5 * ((places - at) * size / _BLUR) ** 2) for at in (x, y)
    )
    each = jnp.einsum("bmpy,bmpx->bmyxp", near_y * (seen > 0.5), near_x)
    return each.max(1)


def _loss(network, params, batch):
    out = network.apply({"params": params}, from_uint8(batch["image"]))
    return sum(_LOSSES[name](logits, batch[name]) for name, logits in out.items())


def _of_classes(logits, asked):
    entropy = optax.softmax_cross_entropy_with_integer_labels
    return entropy(logits, asked).mean()


def _of_depth(logits, asked):
    return 2.0 * jnp.abs(jax.nn.sigmoid(logits) - asked).mean()


def _of_edges(logits, asked):
    return optax.sigmoid_binary_cross_entropy(logits, asked).mean()


def _of_keypoints(logits, asked):
    heat = heat_of(asked, logits.shape[1])
    return 5.0 * optax.sigmoid_binary_cross_entropy(logits, heat).mean()


_LOSSES = {
    "segmentation": _of_classes,
    "depth": _of_depth,
    "edges": _of_edges,
    "keypoints": _of_keypoints,
}
_SAYS = {  # what is read, of logits
    "segmentation": lambda logits: logits.argmax(-1).astype(jnp.int32),
    "depth": jax.nn.sigmoid,
    "edges": jax.nn.sigmoid,
    "keypoints": lambda logits: logits,
}
