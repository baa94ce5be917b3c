"""One trial of `benchmarks.tokenizers`: a tokenizer trained, measured, and modelled.

    pictures, section, seed -> train -> codes -> measure, perturb, model -> figures

The seed chooses first values, order of the data and every draw. It is an argument of
the compiled programs, so that other seeds run what one has compiled.

Legend: N pictures, h w grid of codes, K codes, D their dimension.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import photographs
from benchmarks.tokenizer_variants import GRID, IMAGE_SIZE
from taming_jax import data
from taming_jax.compilation import jit
from taming_jax.conditions import Vocabulary
from taming_jax.metrics import codebook, frechet, pixels
from taming_jax.metrics.judge import Judge, judge_of
from taming_jax.models.vqgan import VQGAN, decode_codes, encode_images
from taming_jax.training import prior as priors
from taming_jax.training import prior_step
from taming_jax.training.phases import by_phase, phase_at
from taming_jax.training.recipe import PriorRecipe, VQGANRecipe
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
    "steps": 192,
    "batch_size": 16,
}


class Pictures(NamedTuple):
    """A data set in memory.

    Attributes:
      train, val: uint8 [N,H,W,3].
      labels: of each split, int32 [N]; None without classes, as all that follows.
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
    labels = {"train": train["label"], "val": val["label"]}
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
    encode = jit(functools.partial(encode_images, model))
    decode = jit(functools.partial(decode_codes, model))
    coded = _chunks(
        lambda x: encode(variables, from_uint8(x)), pictures.train[:CODED]
    )  # [N,h,w]
    codes = _chunks(lambda x: encode(variables, from_uint8(x)), pictures.val)

    def show(codes):
        return _chunks(lambda codes: to_uint8(decode(variables, codes)), codes)

    found = show(codes)
    figures["psnr"] = float(pixels.psnr(pictures.val, found).mean())
    figures["ssim"] = float(pixels.ssim(pictures.val, found).mean())
    figures |= judged(pictures, found)
    counts = codebook.count_codes(np.concatenate([coded, codes]), model.codebook_size)
    figures["usage"] = codebook.usage(counts)
    figures["perplexity"] = codebook.perplexity(counts)
    figures["draws"] = int(counts.sum())
    table = vectors(model, variables)
    perturbed = perturb(codes, table, PERTURBED_SHARE, NEIGHBOURS, seed)
    found = show(perturbed)
    figures["perturbed_psnr"] = float(pixels.psnr(pictures.val, found).mean())
    figures |= {f"perturbed_{k}": v for k, v in judged(pictures, found).items()}
    figures["bits_per_token"] = bits_per_token(
        coded, codes, pictures, model.codebook_size, seed
    )
    figures["bits_per_picture"] = figures["bits_per_token"] * GRID**2
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

        compiled = jit(step).lower(np.int32(seed), state, batch).compile()
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


def ordered(arrays: np.ndarray, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Endless batches of the rows, each row once before any comes again."""
    rng = np.random.default_rng(seed)
    left = np.zeros(0, np.int64)
    while True:
        if len(left) < batch_size:
            left = np.concatenate([left, rng.permutation(len(arrays))])
        yield arrays[left[:batch_size]]
        left = left[batch_size:]


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


def perturb(
    codes: np.ndarray, table: np.ndarray, share: float, neighbours: int, seed: int
) -> np.ndarray:
    """Codes [N,h,w], a share of them replaced by one of their nearest others.

    The nearest by the distance of their vectors, table [K,D]; all others where there
    are fewer than `neighbours`.
    """
    rng = np.random.default_rng(seed)
    neighbours = min(neighbours, len(table) - 1)
    squares = np.sum(np.square(table), axis=-1)
    chosen = rng.random(codes.shape) < share
    perturbed = codes.copy()
    drawn = rng.integers(0, neighbours, codes.shape)
    for code in np.unique(codes[chosen]):
        distances = squares - 2 * table @ table[code]
        distances[code] = np.inf
        nearest = np.argpartition(distances, neighbours - 1)[:neighbours]
        rows = chosen & (codes == code)
        perturbed[rows] = nearest[drawn[rows]]
    return perturbed


def bits_per_token(
    coded: np.ndarray, codes: np.ndarray, pictures: Pictures, codebook_size: int, seed
) -> float:
    """Of a small prior that learned from codes `coded`, on the held-out `codes`."""
    init, step, nll = _prior(codebook_size, pictures.classes)
    state = init(jax.random.key(seed))
    rows = ordered(np.arange(len(coded)), PRIOR["batch_size"], seed)
    for batch in itertools.islice(rows, PRIOR["steps"]):
        state, _ = step(np.int32(seed), state, _batch(coded, pictures, batch, "train"))
    nats = [
        np.asarray(nll(state.ema, _batch(codes, pictures, np.arange(n, n + 32), "val")))
        for n in range(0, len(codes), 32)
    ]
    return float(np.mean(nats) / np.log(2))


def _batch(codes, pictures: Pictures, rows: np.ndarray, split: str) -> dict:
    batch = {"codes": codes[rows]}
    if pictures.classes:
        batch["label"] = pictures.labels[split][rows]
    return batch


@functools.cache
def _prior(codebook_size: int, classes: int) -> tuple[Callable, Callable, Callable]:
    """(init, step, nll) of the small prior, compiled once in a process."""
    condition = "label" if classes else "none"
    recipe = PriorRecipe.from_config(PRIOR | {"condition": condition})
    vocabulary = Vocabulary(codebook_size, classes)
    model = priors.make_transformer(recipe.model, vocabulary, (GRID, GRID))

    def step(seed, state, batch):
        step = prior_step.make_train_step(recipe, model, vocabulary, None, seed)
        return step(state, batch, None)

    def nll(params, batch):
        condition, tokens = prior_step.read_batch(batch, vocabulary, None, None)
        return prior_step.nll(model, params, condition, tokens, tokens)[0]

    return jit(priors.make_init(recipe, model)), jit(step), jit(nll)


def _chunks(function: Callable, rows: np.ndarray) -> np.ndarray:
    """The function of so many rows at a time, joined."""
    parts = range(0, len(rows), CHUNK)
    return np.concatenate([np.asarray(function(rows[n : n + CHUNK])) for n in parts])
