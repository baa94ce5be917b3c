"""Many samples of a prior, a batch at a time: what is asked for [N] -> uint8 pictures.

Sample number i is drawn with `fold_in(key(seed), i)`, so that the size of the batches
does not matter, nor who draws which of them, and a longer list begins as a shorter one
does.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from taming_jax.pretrained.prior import PretrainedPrior
from taming_jax.units import Codes


def draw(
    prior: PretrainedPrior,
    asked: np.ndarray | Mapping[str, Any],
    *,
    seed: int,
    batch_size: int,
    each: int = 1,
    numbers: np.ndarray | None = None,
    starts: Iterable[int] | None = None,
    given: Codes | None = None,
    **settings,
) -> Iterator[tuple[int, np.ndarray]]:
    """(start, pictures uint8 [b,H,W,C] of the samples from there on).

    Args:
      prior: what draws.
      asked: labels int32 [G]; those of an unconditional prior only count. Of other
        conditions what the prior is told, [G, ...], by their names.
      seed: of the samples.
      batch_size: how many are drawn at once; the last batch is smaller.
      each: so many samples are there of each of G, one after the other.
      numbers: int [N], which of the samples are wanted; None: all G * each.
      starts: of the batches of these to be drawn; None: of all.
      given: int32 [G,h,w], codes that samples have, -1 where they are drawn.
      settings: keywords of `PretrainedPrior.sample`; what is not given is as the recipe
        of the prior has it.
    """
    settings = prior.default_settings | settings
    if numbers is None:
        numbers = np.arange(len(jax.tree.leaves(asked)[0]) * each)
    count, key = len(numbers), jax.random.key(seed)
    for start in range(0, count, batch_size) if starts is None else starts:
        # The last batch is filled up, so that nothing is compiled for its size.
        drawn = numbers[np.minimum(np.arange(start, start + batch_size), count - 1)]
        keys, rows = jax.vmap(jax.random.fold_in, (None, 0))(key, drawn), drawn // each
        condition = None
        if prior.vocabulary.told:
            condition = jax.tree.map(lambda part, rows=rows: part[rows], asked)
        elif isinstance(asked, Mapping):  # what a published prior is told
            condition = next(iter(asked.values()))[rows]
        if given is not None:
            settings["given"] = given[rows]
        pictures = prior.pictures(keys, condition, **settings)
        yield start, pictures[: count - start]
