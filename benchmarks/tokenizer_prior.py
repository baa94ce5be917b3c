"""The small prior by which `benchmarks.tokenizers` asks whether codes can be learned.

    codes [N,h,w], labels [N] -> some steps -> bits per token of others, and new codes

The same prior, steps and pictures for every tokenizer; nothing is tuned to any of them.
"""

import functools
import itertools

import jax
import numpy as np

from benchmarks.coded_prior import Coded, Programs, measured, ordered, programs
from taming_jax.conditions import Vocabulary
from taming_jax.training.prior import make_transformer
from taming_jax.training.recipe import PriorRecipe
from taming_jax.units import Codes

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


def modelled(
    train: Coded, val: Coded, codebook_size: int, classes: int, seed: int
) -> tuple[float, Codes]:
    """-> (bits per token of `val` by a prior of `train`, as many codes drawn anew)."""
    prior = _prior(codebook_size, classes, train.codes.shape[1:])
    state = prior.init(jax.random.key(seed))
    batches = ordered(np.arange(len(train.codes)), PRIOR["batch_size"], seed)
    for rows in itertools.islice(batches, PRIOR["steps"]):
        state, _ = prior.step(np.int32(seed), state, train[rows])
    bits, drawn = measured(prior, state.ema, val, seed)
    return bits, drawn["plain"]


@functools.cache
def _prior(codebook_size: int, classes: int, grid: tuple[int, int]) -> Programs:
    """Compiled once in a process: they depend on the codebook by its size alone."""
    condition = "label" if classes else "none"
    recipe = PriorRecipe.from_config(PRIOR | {"condition": condition})
    vocabulary = Vocabulary(codebook_size, classes)
    model = make_transformer(recipe.model, vocabulary, grid)
    return programs(recipe, vocabulary, model, {"plain": {}})
