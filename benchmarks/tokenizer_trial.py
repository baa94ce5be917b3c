"""One trial of `benchmarks.tokenizers`: a tokenizer trained, measured, and modelled.

    pictures, section, seed -> train -> codes -> measure, perturb, model -> figures

The seed chooses first values, order of the data and every draw. It is an argument of
the compiled programs, so that other seeds run what one has compiled.

Legend: N pictures, h w grid of codes, K codes, D their dimension.
"""

import functools
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import photographs
from benchmarks.coded_prior import Coded, ordered
from benchmarks.tokenizer_prior import PRIOR, modelled
from benchmarks.tokenizer_variants import GRID, IMAGE_SIZE
from taming_jax import data
from taming_jax.compilation import jit
from taming_jax.metrics import codebook, frechet, pixels
from taming_jax.metrics.judge import Judge, judge_of
from taming_jax.models.lookup import nearest_codes
from taming_jax.models.vqgan import VQGAN, decode_codes, encode_images
from taming_jax.training.phases import by_phase, phase_at
from taming_jax.training.recipe import VQGANRecipe
from taming_jax.training.vqgan import make_discriminator, make_init
from taming_jax.training.vqgan_step import make_train_step
from taming_jax.units import from_uint8, to_uint8
from taming_jax.user_cache import user_cache

TRAIN, VAL = 6_144, 512  # pictures; the prior learns from a third of the first
CODED = 2_048
CHUNK = 64  # pictures encoded or decoded together

# What a prior's mistakes do to a picture: each code becomes, with this probability, one
# of its nearest others.
PERTURBED_SHARE, NEIGHBOURS = 0.2, 50


class Pictures(NamedTuple):
    """A data set in memory.

    Attributes:
      train, val: uint8 [N,H,W,3].
      labels: int32 [N] of both; None without classes, as all that follows.
      judge: of these data.
      originals: its features of `val`.
    """

    train: np.ndarray
    val: np.ndarray
    labels: Mapping[str, np.ndarray] | None = None
    judge: Judge | None = None
    originals: frechet.Gaussian | None = None

    @property
    def classes(self) -> int:
        return 0 if self.judge is None else len(self.judge.card["classes"])


def open_pictures(name: str) -> Pictures:
    """`shapes` and `scenes`, drawn and judged by a network that is kept; `photographs`.

    Raises:
      ValueError: for another name.
    """
    if name == "photographs":
        train = photographs.crops(photographs.TRAIN, TRAIN, IMAGE_SIZE, seed=0)
        return Pictures(
            train, photographs.crops(photographs.VAL, VAL, IMAGE_SIZE, seed=1)
        )
    settings = {"name": name, "train": TRAIN, "val": VAL, "image_size": IMAGE_SIZE}
    sources = [data.open_source(settings, split) for split in ("train", "val")]
    judge = judge_of(*sources, directory=user_cache() / "benchmarks" / name)
    train, val = (
        source.read(np.arange(len(source)), None, ("image", "label"))
        for source in sources
    )
    labels = {"train": train["label"][:CODED], "val": val["label"]}
    originals = frechet.fit_gaussian(judge(val["image"])[0])
    return Pictures(train["image"], val["image"], labels, judge, originals)


def settings() -> dict:
    """Of everything that all trials have in common and their figures depend on."""
    return {
        "pictures": [TRAIN, VAL, CODED, IMAGE_SIZE],
        "perturbed": [PERTURBED_SHARE, NEIGHBOURS],
        "prior": PRIOR,
    }


def run(section: Mapping, pictures: Pictures, seed: int) -> dict[str, float | int]:
    """Trains by a section `vqgan` and returns every figure of the trial."""
    model, variables, figures = train(section, pictures.train, seed)
    compiled = functools.partial(jit, convolutions=True)
    encode = compiled(functools.partial(encode_images, model))
    decode = compiled(functools.partial(decode_codes, model))

    def read(images):
        return chunks(lambda images: encode(variables, from_uint8(images)), images)

    def show(codes):
        return chunks(lambda codes: to_uint8(decode(variables, codes)), codes)

    coded, codes = read(pictures.train[:CODED]), read(pictures.val)

    found = show(codes)
    figures["psnr"] = float(pixels.psnr(pictures.val, found).mean())
    figures["ssim"] = float(pixels.ssim(pictures.val, found).mean())
    figures |= judged(pictures, found)
    counts = codebook.count_codes(np.concatenate([coded, codes]), model.codebook_size)
    figures["usage"] = codebook.usage(counts)
    figures["perplexity"] = codebook.perplexity(counts)
    figures["draws"] = int(counts.sum())
    table = vectors(model, variables)
    found = show(perturb(codes, table, seed))
    figures["perturbed_psnr"] = float(pixels.psnr(pictures.val, found).mean())
    figures |= {f"perturbed_{k}": v for k, v in judged(pictures, found).items()}
    labels = pictures.labels or {}
    bits, drawn = modelled(
        Coded(coded, labels.get("train")),
        Coded(codes, labels.get("val")),
        model.codebook_size,
        pictures.classes,
        seed,
    )
    figures |= {"bits_per_token": bits, "bits_per_picture": bits * GRID**2}
    figures |= {f"sampled_{k}": v for k, v in judged(pictures, show(drawn)).items()}
    return figures


def train(section: Mapping, images: np.ndarray, seed: int):
    """-> (model, its averaged variables, what training took and how it went)."""
    recipe = VQGANRecipe.from_config(section)
    model, discriminator = VQGAN(**recipe.model), make_discriminator(recipe)
    steps, loss = recipe.run.steps, recipe.loss
    init = jit(make_init(recipe, model, discriminator))
    state = init(jax.random.key(seed))
    batches = ordered(images, recipe.run.batch_size, seed)
    batch = {"image": next(batches)}

    @functools.cache
    def program(phase):
        def step(seed, state, batch):
            return make_train_step(recipe, model, discriminator, seed, phase)(
                state, batch, {}
            )

        compiled = (
            jit(step, convolutions=True).lower(np.int32(seed), state, batch).compile()
        )
        return functools.partial(compiled, np.int32(seed))

    for phase in {phase_at(loss, step) for step in range(steps)}:
        program(phase)
    step = by_phase(loss, program)
    began, worked = time.perf_counter(), time.process_time()
    for _ in range(steps):
        state, _ = step(state, batch)
        batch = {"image": next(batches)}
    jax.block_until_ready(state)
    figures = {
        "seconds": time.perf_counter() - began,
        "processor_seconds": time.process_time() - worked,
        "parameters": sum(array.size for array in jax.tree.leaves(state.params)),
        "nonfinite": int(state.nonfinite),
    }
    return model, {"params": state.ema, "codebook": state.codebook}, figures


def judged(pictures: Pictures, found: np.ndarray) -> dict[str, float]:
    """Fréchet distance to the originals and accuracy in the judge's eyes, if any."""
    if pictures.judge is None:
        return {}
    features, predicted = pictures.judge(found)
    distance = frechet.frechet_distance(
        pictures.originals, frechet.fit_gaussian(features)
    )
    accuracy = float(np.mean(predicted == pictures.labels["val"]))
    return {"frechet": distance, "accuracy": accuracy}


def vectors(model: VQGAN, variables: Mapping) -> np.ndarray:
    """What every code stands for: float32 [K,D]."""
    codes = jnp.arange(model.codebook_size).reshape(1, 1, -1)
    lookup = model.apply(variables, codes, method=lambda m, c: m._quantizer.lookup(c))
    return np.asarray(lookup).reshape(model.codebook_size, -1)


def perturb(codes: np.ndarray, table: np.ndarray, seed: int) -> np.ndarray:
    """Codes [N,h,w], PERTURBED_SHARE of them each replaced by one of its NEIGHBOURS.

    Which ones these are is said by the table, [K,D].
    """
    rng = np.random.default_rng(seed)
    count = min(NEIGHBOURS, len(table) - 1)
    near = nearest_codes(jnp.arange(len(table)), jnp.asarray(table), count)  # [K,count]
    others = np.asarray(near)[codes, rng.integers(0, count, codes.shape)]
    return np.where(rng.random(codes.shape) < PERTURBED_SHARE, others, codes)


def chunks(function: Callable, rows: np.ndarray) -> np.ndarray:
    """The function of so many rows at a time, joined."""
    parts = range(0, len(rows), CHUNK)
    return np.concatenate([np.asarray(function(rows[n : n + CHUNK])) for n in parts])
