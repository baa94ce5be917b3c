"""One trial of `benchmarks.priors`: a prior trained on codes, measured, and drawn from.

    codes, section, seed -> train -> bits per token of others; samples -> judged

The codes are those of the tokenizer of `shapes` that comes along. The seed chooses
first values, the order of the data and every draw.

Legend: N pictures, h w grid of codes.
"""

import functools
import itertools
import json
import time
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.coded_prior import ROWS, Coded, Programs, measured, ordered, programs
from benchmarks.prior_variants import GRID, parts
from benchmarks.tokenizer_trial import Pictures, chunks, judged, open_pictures
from benchmarks.tokenizer_variants import IMAGE_SIZE
from taming_jax import data, load_vqgan
from taming_jax.pretrained import PretrainedVQGAN
from taming_jax.training.prior_pictures import sampling_arguments
from taming_jax.units import Codes, from_uint8, to_uint8

TOKENIZER = "shapes"
TRAIN = 9_600  # pictures: 600 steps of 16 see each of them once
PLAIN = {"temperature": 1.0, "top_k": None, "top_p": None, "guidance": 1.0}


class CodedPictures(NamedTuple):
    """A data set as codes.

    Attributes:
      train, val: codes and labels; `val` of the pictures that are judged.
      pictures: those of `val`, and the judge.
      tokenizer: that made the codes.
    """

    train: Coded
    val: Coded
    pictures: Pictures
    tokenizer: PretrainedVQGAN


def open_coded(name: str) -> CodedPictures:
    """The pictures of `shapes` or `scenes` as codes, and who judges what is drawn."""
    vqgan, pictures = load_vqgan(TOKENIZER), open_pictures(name)
    settings = {"name": name, "train": TRAIN, "val": 1, "image_size": IMAGE_SIZE}
    source = data.open_source(settings, "train")
    examples = source.read(np.arange(TRAIN), None, ("image", "label"))
    return CodedPictures(
        Coded(_encoded(vqgan, examples["image"]), examples["label"]),
        Coded(_encoded(vqgan, pictures.val), pictures.labels["val"]),
        pictures,
        vqgan,
    )


def settings() -> dict:
    """Of everything that all trials have in common and their figures depend on."""
    fingerprint = load_vqgan(TOKENIZER).fingerprint
    return {"tokenizer": fingerprint, "pictures": [TRAIN, IMAGE_SIZE], "plain": PLAIN}


def run(section: Mapping, coded: CodedPictures, seed: int) -> dict[str, float | int]:
    """Trains by a section `prior` and returns every figure of the trial.

    Samples are drawn for the labels of the held-out pictures, as the section says and,
    to tell what was learned from how it is drawn, from the distribution as it is.
    """
    codes, classes = coded.tokenizer.codebook_size, coded.pictures.classes
    # As text, by which the programs of other seeds are found.
    prior = _programs(json.dumps(section, sort_keys=True), codes, classes)
    state, figures = train(prior, section, coded.train, seed)
    figures["bits_per_token"], drawn = measured(prior, state.ema, coded.val, seed)
    for how, grids in drawn.items():
        shown = chunks(lambda rows: to_uint8(coded.tokenizer.decode(rows)), grids)
        prefix = "" if how == "as_recipe" else f"{how}_"
        scores = judged(coded.pictures, shown)
        figures |= {f"{prefix}{name}": value for name, value in scores.items()}
    return figures


def train(prior: Programs, section: Mapping, coded: Coded, seed: int):
    """-> (the last state, what training took and how it went)."""
    state = prior.init(jax.random.key(seed))
    batches = ordered(np.arange(len(coded.codes)), section["batch_size"], seed)
    batches = (coded[rows] for rows in itertools.islice(batches, section["steps"]))
    first = next(batches)
    step = prior.step.lower(np.int32(seed), state, first).compile()
    began, worked = time.perf_counter(), time.process_time()
    for batch in itertools.chain([first], batches):
        state, _ = step(np.int32(seed), state, batch)
    jax.block_until_ready(state)
    return state, {
        "seconds": time.perf_counter() - began,
        "processor_seconds": time.process_time() - worked,
        "parameters": sum(array.size for array in jax.tree.leaves(state.params)),
        "nonfinite": int(state.nonfinite),
    }


@functools.lru_cache(maxsize=1)
def _programs(section: str, codes: int, classes: int) -> Programs:
    recipe, vocabulary, model = parts(json.loads(section), codes, classes)
    as_recipe = sampling_arguments(recipe.sampling, vocabulary, ROWS, GRID)
    ways = {"as_recipe": as_recipe, "plain": PLAIN}
    return programs(recipe, vocabulary, model, ways)


def _encoded(vqgan: PretrainedVQGAN, images: np.ndarray) -> Codes:
    return chunks(lambda rows: vqgan.encode(from_uint8(rows)), images)
