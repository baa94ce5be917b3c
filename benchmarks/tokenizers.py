"""Tokenizers side by side, at equal compute: same steps, batch, body, data, seeds.

    python -m benchmarks.tokenizers [--data shapes] [--variants default,paper]
        [--sizes 256,1024,16384] [--seeds 0,1,2] [--steps 600] [--results FILE]
    python -m benchmarks.tokenizers --table

Each trial (a variant, a size of the codebook, a seed) becomes a line of the results; a
trial whose settings have a line already is not run again, so that the command may be
stopped at any time. A variant that at some size is the default is none there. With
`--table` nothing is run: the lines, of all data unless one is named, become the tables
of docs/recipes.md. Quiet cores are wanted for the seconds only.
"""

import argparse
import datetime
import itertools
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from benchmarks import tokenizer_tables, tokenizer_trial, trials
from benchmarks.tokenizer_variants import VARIANTS, is_default, section
from taming_jax.compilation import keep_programs
from taming_jax.models.vqgan import VQGAN
from taming_jax.training.recipe import VQGANRecipe

RESULTS = Path(__file__).parent / "results" / "tokenizers.jsonl"
DATA = ("shapes", "scenes", "photographs")


def main() -> None:
    """Runs what is missing, or prints what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    trials.add_arguments(parser, data=DATA, variants=VARIANTS, results=RESULTS)
    parser.add_argument("--sizes", type=trials.numbers, default=[256, 1_024, 16_384])
    parser.set_defaults(data=None)
    arguments = parser.parse_args()
    trials.fulfil(arguments, every_trial(arguments), tokenizer_tables.tables, sweep)


def every_trial(arguments: argparse.Namespace) -> Iterator[dict]:
    """Every trial that is asked for: seed by seed, in the order of the variants.

    Raises:
      ValueError: for a variant that does not exist or cannot be built.
    """
    unnamed = DATA if arguments.table else DATA[:1]
    for data, seed, variant, codes in itertools.product(
        [arguments.data] if arguments.data else unnamed,
        arguments.seeds,
        arguments.variants,
        arguments.sizes,
    ):
        if is_default(variant, codes, arguments.steps):
            continue
        trial = {
            "data": data,
            "variant": variant,
            "codes": codes,
            "seed": seed,
            "steps": arguments.steps,
        }
        yield trial | {"settings": digest(trial)}


def digest(trial: Mapping) -> str:
    """Of all that a trial's figures depend on but code and libraries: 16 hex digits."""
    recipe = section(trial["variant"], trial["codes"], trial["steps"])
    VQGAN(**VQGANRecipe.from_config(recipe).model)  # or say what is wrong with it
    depends_on = {
        "trial": {key: trial[key] for key in ("data", "codes", "seed")},
        "section": recipe,
        **tokenizer_trial.settings(),
    }
    return trials.digest(depends_on)


def sweep(missing: list[dict], results: Path) -> None:
    """Runs the trials and appends each one's line when it is done."""
    keep_programs()
    pictures = tokenizer_trial.open_pictures(missing[0]["data"])
    walls = []
    for number, trial in enumerate(missing):
        began = time.perf_counter()
        recipe = section(trial["variant"], trial["codes"], trial["steps"])
        figures = tokenizer_trial.run(recipe, pictures, trial["seed"])
        walls.append(time.perf_counter() - began)
        trials.append(results, trial | trials.about() | {"wall": walls[-1]} | figures)
        left = datetime.timedelta(
            seconds=round(np.mean(walls) * (len(missing) - number - 1))
        )
        name = f"{trial['variant']} {trial['codes']} seed {trial['seed']}"
        spent = f"{walls[-1]:.0f} s, about {left} left"
        print(f"{name}: {_brief(figures)}; {spent}", flush=True)


def _brief(figures: Mapping) -> str:
    shown = ("psnr", "usage", "perplexity", "frechet", "bits_per_token", "seconds")
    return ", ".join(f"{k} {figures[k]:.3g}" for k in shown if k in figures)


if __name__ == "__main__":
    main()
