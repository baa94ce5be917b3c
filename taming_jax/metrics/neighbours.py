"""Does a prior copy? The training pictures nearest to its samples, and how near.

    pictures --space--> vectors [Q, D] --all training pictures, a batch at a time-->
    distances [Q, K], ascending, and where they are in the source

Two spaces: pixels of pictures that were made small, where the distance is the root mean
square difference of values in [0, 1]; and the judge's features, which forgive a shift.
What a distance means is seen beside that of pictures which the prior has never met: a
prior that copies is nearer to its training pictures than held-out pictures are.

Legend: Q pictures whose neighbours are looked for, K neighbours of each, D numbers that
stand for a picture, B training pictures at a time.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from taming_jax.compilation import jit
from taming_jax.metrics import drawn, generation, shares
from taming_jax.metrics.judge import Judge
from taming_jax.pretrained import PretrainedPrior
from taming_jax.units import Images, from_uint8

SMALL = 32  # pixels a side, where pixels are compared
MOST = 256  # samples, and held-out pictures, whose neighbours are looked for


class Nearest(NamedTuple):
    """The K nearest of each picture: distances and indices into the source, [Q, K]."""

    distances: np.ndarray
    indices: np.ndarray


class Looked(NamedTuple):
    """Pictures uint8 [Q, H, W, C], and by space what is nearest to them."""

    pictures: np.ndarray
    nearest: Mapping[str, Nearest]


class Space(NamedTuple):
    """`function(params, images) -> float32 [B, D]`."""

    function: Callable[[Any, Images], jax.Array]
    params: Any


def evaluate_neighbours(
    prior: PretrainedPrior,
    train,
    held_out,
    count: int,
    *,
    seed: int = 0,
    batch_size: int = 16,
    samples: int | None = None,
    judge: Judge | None = None,
) -> tuple[dict[str, float | int], dict[str, Looked]]:
    """Looks for the nearest training pictures of samples and of held-out pictures.

    Args:
      prior: with its tokenizer.
      train: the source that it was trained on.
      held_out: a source of pictures that it has not seen.
      count: K.
      seed: of the samples, which are those of `evaluate_prior`.
      batch_size: of everything that is computed.
      samples: how many, `MOST` at most; None: as many as are held out.
      judge: None where the data have no classes; there are no features then.

    Returns:
      neighbours_samples (Q); nearest_SPACE, the median distance of a sample to its
      nearest training picture, and closest_SPACE, the least; each also _of_held_out.
      And "samples" and "held out" with all that was found.

    Raises:
      ValueError: if there are fewer than K training pictures.
    """
    check_count(count, train)
    of_each = min(samples or len(held_out), MOST)
    looked_at = {
        "samples": _samples(prior, held_out, of_each, seed, batch_size),
        "held out": _held_out(held_out, of_each, batch_size),
    }
    height, width = looked_at["samples"].shape[1:3]
    looked_at["held out"] = looked_at["held out"][:, :height, :width]
    together = np.concatenate(list(looked_at.values()))
    found = nearest(together, train, count, spaces(judge), batch_size)
    figures, looked = {"neighbours_samples": of_each}, {}
    rows = np.split(np.arange(len(together)), [of_each])
    for (name, pictures), mine in zip(looked_at.items(), rows, strict=True):
        parts = {
            space: Nearest(of_all.distances[mine], of_all.indices[mine])
            for space, of_all in found.items()
        }
        looked[name] = Looked(pictures, parts)
        of = "" if name == "samples" else "_of_held_out"
        for space, part in parts.items():
            figures[f"nearest_{space}{of}"] = float(np.median(part.distances[:, 0]))
            figures[f"closest_{space}{of}"] = float(part.distances[:, 0].min())
    return figures, looked


def check_count(count: int, train) -> None:
    """Raises ValueError for more neighbours than there are training pictures."""
    if count > len(train):
        raise ValueError(
            f"{count} neighbours, and there are {len(train)} training pictures: ask "
            "for fewer"
        )


def spaces(judge: Judge | None) -> dict[str, Space]:
    """Pixels, and the features of the judge if there is one."""
    found = {"pixels": Space(lambda params, images: small_pixels(images), None)}
    if judge is not None:

        def features(params, images):
            return judge.network.apply({"params": params}, images)[0]

        found["features"] = Space(features, judge.params)
    return found


def small_pixels(images: Images) -> jax.Array:
    """[B, H, W, C] -> [B, D], whose distances are root mean squares in [0, 1]."""
    shape = (len(images), SMALL, SMALL, images.shape[-1])
    small = jax.image.resize(images, shape, "linear").reshape(len(images), -1)
    return small / 2 / np.sqrt(small.shape[1])


def nearest(
    pictures: np.ndarray,
    source,
    count: int,
    spaces: Mapping[str, Space],
    batch_size: int,
) -> dict[str, Nearest]:
    """The `count` nearest pictures of the source; of equally near ones the first.

    The source passes by in batches, of which nothing stays but the nearest so far.
    Several processes share it, and all get all. Distances are differences of float32
    products: an equal picture's is up to 1e-3 of the vectors' length.

    Args:
      pictures: uint8 [Q, H, W, C].
      source: of pictures at least as large; what is beyond H and W does not count.
      count: K.
      spaces: by name.
      batch_size: B, over all processes.

    Raises:
      ValueError: if fewer than K of the source can be read.
    """
    params = jax.device_put({name: space.params for name, space in spaces.items()})
    embed, pass_by = _programs(spaces)
    queries = [
        embed(params, pictures[start : start + batch_size])
        for start in range(0, len(pictures), batch_size)
    ]
    queries = jax.tree.map(lambda *parts: jnp.concatenate(parts), *queries)
    # Of vectors that lie around 0 products lose the least.
    middle = jax.tree.map(lambda vectors: vectors.mean(0), queries)
    queries = jax.tree.map(jnp.subtract, queries, middle)
    shape = len(pictures), count
    none = jnp.full(shape, jnp.inf, jnp.float32), jnp.full(shape, -1, jnp.int32)
    best = dict.fromkeys(spaces, none)
    height, width = pictures.shape[1:3]
    for batch in shares.eval_batches(
        source, batch_size=batch_size, keep=("image", "index"), count=None
    ):
        passing = batch["image"][:, :height, :width]
        indices = batch["index"].astype(np.int32)
        best = pass_by(params, queries, middle, best, passing, indices)
    found = {name: _of_all_processes(*best[name]) for name in spaces}
    if any((part.indices < 0).any() for part in found.values()):
        raise ValueError(
            f"{count} neighbours, and fewer of the {len(source)} training pictures can "
            "be read: ask for fewer"
        )
    return found


def _programs(spaces: Mapping[str, Space]) -> tuple[Callable, Callable]:
    """By the spaces' params: pictures -> vectors [B, D], and a batch that passes by."""

    def embed(params, pictures):
        images = from_uint8(pictures)
        return {
            name: space.function(params[name], images) for name, space in spaces.items()
        }

    def pass_by(params, queries, middle, best, pictures, indices):
        vectors = jax.tree.map(jnp.subtract, embed(params, pictures), middle)
        return {
            name: _nearer(best[name], queries[name], vectors[name], indices)
            for name in spaces
        }

    return jit(embed, convolutions=True), jit(pass_by, convolutions=True)


def _nearer(best, queries, vectors, indices):
    """The nearest of those so far and of a batch; index -1 is no picture."""
    product = jnp.matmul(queries, vectors.T, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.sum(queries**2, 1)[:, None] + jnp.sum(vectors**2, 1) - 2 * product
    found = jnp.where(indices < 0, jnp.inf, jnp.sqrt(jnp.maximum(squares, 0)))
    indices = jnp.broadcast_to(indices, found.shape)
    among = [
        jnp.concatenate(pair, 1) for pair in zip(best, (found, indices), strict=True)
    ]
    count = best[0].shape[1]
    return tuple(part[:, :count] for part in jax.lax.sort(among, num_keys=2))


def _of_all_processes(distances, indices) -> Nearest:
    count = distances.shape[1]
    columns = {"distances": distances, "indices": indices}
    columns = {name: np.asarray(column).T[None] for name, column in columns.items()}
    found = shares.all_rows(columns, np.ones((1, count), bool))  # [P * K, Q]
    order = np.lexsort((found["indices"], found["distances"]), axis=0)[:count]
    return Nearest(
        *(np.take_along_axis(found[name], order, axis=0).T for name in columns)
    )


def _samples(prior, held_out, count, seed, batch_size) -> np.ndarray:
    """uint8 [count, H, W, C], drawn by all processes together."""
    *_, asked = generation.what_to_draw(prior, held_out, count, batch_size)
    vqgan = prior.tokenizer()
    sides = (side * vqgan.stride for side in prior.grid)
    found = drawn.measured(
        prior,
        asked,
        lambda _, pictures: {"pictures": pictures},
        {"pictures": ((*sides, vqgan.module.image_channels), np.uint8)},
        count=count,
        seed=seed,
        batch_size=batch_size,
    )
    return found["pictures"]


def _held_out(held_out, count, batch_size) -> np.ndarray:
    """uint8 [n, H, W, C] of the first, n <= count."""
    batches = list(
        shares.eval_batches(
            held_out, batch_size=batch_size, keep=("image",), count=count
        )
    )
    pictures, mask = (
        np.stack([batch[name] for batch in batches]) for name in ("image", "mask")
    )
    return shares.all_rows({"pictures": pictures}, mask)["pictures"]
