"""The small prior by which `benchmarks.tokenizers` asks whether codes can be learned.

    codes [N,h,w], labels [N] -> some steps -> bits per token of others, and new codes

The same prior, steps and pictures for every tokenizer; nothing is tuned to any of them.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from taming_jax.compilation import jit
from taming_jax.conditions import Vocabulary
from taming_jax.sampling import sample_keys, sample_tokens
from taming_jax.training import prior as priors
from taming_jax.training import prior_step
from taming_jax.training.recipe import PriorRecipe
from taming_jax.units import Codes, Labels

PRIOR = {
    "model": {
        "width": 96,
        "layers": 3,
        "heads": 3,
        "norm": "rms",
        "mlp": "relu2",
        "bias": False,
        "qk_norm": True,
        "rotary": True,
        "rotary_base": 20.0,
        "learned_positions": True,
        "condition_everywhere": True,
        "above": True,
    },
    "learning_rate": 3e-3,
    "optimizer": {
        "b1": 0.9,
        "b2": 0.95,
        "weight_decay": 0.05,
        "clip": 1.0,
        "schedule": "cosine",
        "warmup_steps": 20,
        "final_share": 0.02,
    },
    "ema_decay": 0.0,
    "steps": 512,
    "batch_size": 16,
}
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


def modelled(
    train: Coded, val: Coded, codebook_size: int, classes: int, seed: int
) -> tuple[float, Codes]:
    """-> (bits per token of `val` by a prior of `train`, as many codes drawn anew)."""
    grid = train.codes.shape[1:]
    prior = _prior(codebook_size, classes, grid)
    state = prior.init(jax.random.key(seed))
    batches = ordered(np.arange(len(train.codes)), PRIOR["batch_size"], seed)
    for rows in itertools.islice(batches, PRIOR["steps"]):
        state, _ = prior.step(np.int32(seed), state, train[rows])
    nats, drawn = [], []
    for first in range(0, len(val.codes), ROWS):
        batch = val[first : first + ROWS]
        nats.append(np.asarray(prior.nll(state.ema, batch)))
        key = jax.random.fold_in(jax.random.key(seed), first)
        drawn.append(np.asarray(prior.draw(state.ema, key, batch)))
    return float(np.mean(nats) / np.log(2)), np.concatenate(drawn).reshape(-1, *grid)


def ordered(arrays: np.ndarray, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Endless batches of the rows, each row once before any comes again."""
    rng = np.random.default_rng(seed)
    left = np.zeros(0, np.int64)
    while True:
        if len(left) < batch_size:
            left = np.concatenate([left, rng.permutation(len(arrays))])
        yield arrays[left[:batch_size]]
        left = left[batch_size:]


class _Prior(NamedTuple):
    """Programs: init(key), step(seed, state, batch), nll and draw of (params, ...)."""

    init: Callable
    step: Callable
    nll: Callable
    draw: Callable


@functools.cache
def _prior(codebook_size: int, classes: int, grid: tuple[int, int]) -> _Prior:
    """Compiled once in a process: they depend on the codebook by its size alone."""
    condition = "label" if classes else "none"
    recipe = PriorRecipe.from_config(PRIOR | {"condition": condition})
    vocabulary = Vocabulary(codebook_size, classes)
    model = priors.make_transformer(recipe.model, vocabulary, grid)

    def step(seed, state, batch):
        step = prior_step.make_train_step(recipe, model, vocabulary, None, seed)
        return step(state, batch, None)

    def nll(params, batch):
        condition, tokens = prior_step.read_batch(batch, vocabulary, None, None)
        return prior_step.nll(model, params, condition, tokens, tokens)[0]

    def draw(params, key, batch):
        prefix = vocabulary.condition_tokens(batch.get("label"), ROWS)
        keys = sample_keys(key, ROWS)
        return sample_tokens(
            model, params, keys, prefix, count=grid[0] * grid[1], codes=codebook_size
        )

    init = jit(priors.make_init(recipe, model))
    return _Prior(init, jit(step), jit(nll), draw)
