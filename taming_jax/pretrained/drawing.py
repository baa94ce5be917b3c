"""Many samples of a prior, a batch at a time: what is asked for [N] -> uint8 pictures.

Sample i is drawn with `fold_in(key(seed), i)`, so that the size of the batches does not
matter, nor who draws which of them, and a longer list begins as a shorter one does.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from taming_jax.pretrained.prior import PretrainedPrior
from taming_jax.sampling import sample_keys
from taming_jax.units import Codes, to_uint8


def draw(
    prior: PretrainedPrior,
    asked: np.ndarray | Mapping[str, Any],
    *,
    seed: int,
    batch_size: int,
    starts: Iterable[int] | None = None,
    given: Codes | None = None,
    **settings,
) -> Iterator[tuple[int, np.ndarray]]:
    """(start, pictures uint8 [b,H,W,C] of what is asked for from there on).

    Args:
      prior: what draws.
      asked: labels int32 [N]; those of an unconditional prior only count. Of other
        conditions what the prior is told, [N, ...], by their names.
      seed: of the samples.
      batch_size: how many are drawn at once; the last batch is smaller.
      starts: of the batches to be drawn; None: of all.
      given: int32 [N,h,w], codes that each sample has, -1 where they are drawn.
      settings: keywords of `PretrainedPrior.sample`; what is not given is as the recipe
        of the prior has it.
    """
    settings = prior.default_settings | settings
    count = len(jax.tree.leaves(asked)[0])
    keys = sample_keys(jax.random.key(seed), count)
    for start in range(0, count, batch_size) if starts is None else starts:
        # The last batch is filled up, so that nothing is compiled for its size.
        rows = np.minimum(np.arange(start, start + batch_size), count - 1)
        condition = None
        if prior.vocabulary.told:
            condition = jax.tree.map(lambda part, rows=rows: part[rows], asked)
        elif isinstance(asked, Mapping):  # what a published prior is told
            condition = next(iter(asked.values()))[rows]
        if given is not None:
            settings["given"] = given[rows]
        images = prior.generate(keys[rows], condition, **settings)
        yield start, to_uint8(images)[: count - start]
