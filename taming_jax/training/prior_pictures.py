"""What a prior's run shows of itself: samples, and first the codes that it learns from.

what is asked for -> tokens -> samples -> decoded -> one picture, uint8 [H,W,3]
"""

import functools
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from taming_jax import pictures, units
from taming_jax.compilation import jit
from taming_jax.conditions import Vocabulary, codes_of
from taming_jax.conditions.kinds import Coded
from taming_jax.guidance import guidance_of
from taming_jax.sampling import sample_keys, sample_tokens
from taming_jax.training.recipe import Sampling
from taming_jax.training.state import TrainState
from taming_jax.training.tokenizer import Tokenizer

PICTURES = 16  # shown in a grid


def make_show(recipe, model, vocabulary, grid, key, draw, variables, reads, shared):
    """`show(state, batch)`: samples from the same keys each time.

    Of all classes, named; of other conditions, those of the batch, drawn above them.
    """
    keys = sample_keys(key, PICTURES)
    said = jit(vocabulary.asked_tokens)

    def of_batch(batch):
        return {name: kind.of_batch(batch) for name, kind in vocabulary.told.items()}

    everywhere = jit(of_batch, out_shardings=shared)

    def asked_of(batch: Mapping) -> dict:
        if set(vocabulary.told) == {"label"}:
            labels = np.arange(PICTURES) * max(1, vocabulary.classes // PICTURES)
            return {"label": (labels % vocabulary.classes).astype(np.int32)}
        if not vocabulary.told:
            return {}
        asked = everywhere({name: batch[name] for name in batch if name in reads})
        rows = np.arange(PICTURES) % len(jax.tree.leaves(asked)[0])
        return jax.tree.map(lambda array: np.asarray(array)[rows], asked)

    def show(state: TrainState, batch: Mapping) -> dict:
        condition, asked = vocabulary.no_label(PICTURES), asked_of(batch)
        if asked:
            condition = said(asked, variables.get("condition_vqgan"))
        tokens = sample_tokens(
            model,
            state.ema,
            keys,
            condition,
            count=grid[0] * grid[1],
            codes=vocabulary.codes,
            **sampling_arguments(recipe.sampling, vocabulary, PICTURES, grid),
        )
        codes = codes_of(tokens, grid, model.order)
        return {"samples": draw(codes, asked.get("label"), _drawn(vocabulary, asked))}

    return show


def _drawn(vocabulary: Vocabulary, asked: Mapping):
    """`size -> pictures` of each condition that people can look at."""
    kinds = {name: kind for name, kind in vocabulary.told.items() if name != "label"}
    return [
        functools.partial(kind.draw, asked[name])
        for name, kind in kinds.items()
        if not isinstance(asked[name], Coded)
    ]


def sampling_arguments(
    sampling: Sampling, vocabulary: Vocabulary, batch: int, grid: tuple[int, int]
) -> dict:
    """The recipe's way to draw grids of codes, as keywords of `sample_tokens`."""
    guidance, count = sampling.guidance, grid[0] * grid[1]
    unguided = None if guidance == 1 else vocabulary.no_label(batch)
    return {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "guidance": guidance_of(guidance, sampling.guidance_schedule, count),
        "unguided_prefix": unguided,
    }


def make_preview(tokenizer: Tokenizer, draw):
    """`preview(state, batch)`: the very codes that will be learned, decoded."""
    encode = jit(tokenizer.encode, convolutions=True)

    def preview(state: TrainState, batch: Mapping) -> dict:
        del state
        first = {name: array[:PICTURES] for name, array in batch.items()}
        codes = first.get("codes")
        if codes is None:
            codes = encode(tokenizer.variables, units.as_images(first["image"]))
        return {"codes": draw(codes, first.get("label"))}

    return preview


def make_draw(tokenizer: Tokenizer, class_names: Sequence[str], shared):
    """`draw(codes, labels, conditions)`: one picture of them all, decoded and named."""
    decode = jit(tokenizer.decode, convolutions=True, out_shardings=shared)

    def draw(codes, labels, conditions=()) -> np.ndarray:
        decoded = units.to_uint8(decode(tokenizer.variables, codes))
        rows = [asked(decoded.shape[2]) for asked in conditions]
        if labels is not None:
            names = [class_names[label] for label in np.asarray(labels)]
            decoded = pictures.captioned(decoded, names)
            rows = [pictures.captioned(row, names) for row in rows]
        rows = [*rows, decoded]
        halves = [row[part] for part in (slice(8), slice(8, None)) for row in rows]
        return pictures.grid(halves, columns=8)

    return draw
