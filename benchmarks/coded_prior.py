"""A prior on codes that lie in memory: its programs, and what it makes of others.

    recipe, vocabulary, model --programs--> init, step, nll, draw
    parameters, codes of others --measured--> bits per token, as many codes drawn anew

The seed is an argument of the compiled programs, so that other seeds run what one has
compiled.

Legend: N pictures, h w grid of codes.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from taming_jax.compilation import jit
from taming_jax.conditions import Vocabulary
from taming_jax.models.transformer import Transformer
from taming_jax.sampling import sample_keys, sample_tokens
from taming_jax.training import prior_step
from taming_jax.training.prior import make_init
from taming_jax.training.recipe import PriorRecipe
from taming_jax.units import Codes, Labels

ROWS = 64  # sequences that are measured or drawn together


class Coded(NamedTuple):
    """Codes int32 [N,h,w] of pictures, and their labels [N], None where there are none.

    N is a multiple of ROWS.
    """

    codes: Codes
    labels: Labels | None = None

    def __getitem__(self, rows) -> dict[str, np.ndarray]:
        batch = {"codes": self.codes[rows]}
        return batch if self.labels is None else batch | {"label": self.labels[rows]}


class Programs(NamedTuple):
    """init(key), step(seed, state, batch), nll(params, batch).

    draw: by the name of a way to draw, (params, key, batch) -> tokens.
    """

    init: Callable
    step: Callable
    nll: Callable
    draw: Mapping[str, Callable]


def programs(
    recipe: PriorRecipe,
    vocabulary: Vocabulary,
    model: Transformer,
    ways: Mapping[str, Mapping[str, Any]],
) -> Programs:
    """Compiled when they are called first.

    Args:
      recipe: how it is trained.
      vocabulary: of the codes and the labels.
      model: the transformer.
      ways: by name, keywords of `sample_tokens`.
    """

    def step(seed, state, batch):
        step = prior_step.make_train_step(recipe, model, vocabulary, None, seed)
        return step(state, batch, None)

    def nll(params, batch):
        condition, tokens = prior_step.read_batch(batch, vocabulary, None, None)
        return prior_step.nll(model, params, condition, tokens, tokens)[0]

    def draw(settings, params, key, batch):
        prefix = vocabulary.condition_tokens(batch.get("label"), ROWS)
        return sample_tokens(
            model, params, sample_keys(key, ROWS), prefix,
            count=model.grid[0] * model.grid[1], codes=vocabulary.codes, **settings,
        )  # fmt: skip

    return Programs(
        init=jit(make_init(recipe, model)),
        step=jit(step),
        nll=jit(nll),
        draw={how: functools.partial(draw, way) for how, way in ways.items()},
    )


def measured(
    prior: Programs, params: Any, others: Coded, seed: int
) -> tuple[float, dict[str, Codes]]:
    """-> (bits per token of others, as many codes drawn for their labels, by way)."""
    nats, drawn = [], {how: [] for how in prior.draw}
    for first in range(0, len(others.codes), ROWS):
        batch = others[first : first + ROWS]
        nats.append(np.asarray(prior.nll(params, batch)))
        key = jax.random.fold_in(jax.random.key(seed), first)
        for how, draw in prior.draw.items():
            drawn[how].append(np.asarray(draw(params, key, batch)))
    shape = others.codes.shape
    drawn = {how: np.concatenate(parts).reshape(shape) for how, parts in drawn.items()}
    return float(np.mean(nats) / np.log(2)), drawn


def ordered(arrays: np.ndarray, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Endless batches of the rows, each row once before any comes again."""
    rng = np.random.default_rng(seed)
    left = np.zeros(0, np.int64)
    while True:
        if len(left) < batch_size:
            left = np.concatenate([left, rng.permutation(len(arrays))])
        yield arrays[left[:batch_size]]
        left = left[batch_size:]
