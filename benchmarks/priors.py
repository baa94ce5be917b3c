"""The modern prior against the paper's: same codes, parameters, steps, batch, seeds.

    python -m benchmarks.priors [--data shapes] [--variants modern,paper]
        [--seeds 0,1,2] [--steps 600] [--results FILE]
    python -m benchmarks.priors --table

Each trial (a data set, a variant, a seed) becomes a line of the results; a trial whose
settings have a line already is not run again, so that the command may be stopped at any
time. With `--table` nothing is run: the lines become Markdown tables, in which a cell
is the mean over the seeds ± half of what lies between the largest and the smallest.
"""

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import prior_trial, trials
from benchmarks.prior_variants import VARIANTS, WITHOUT, parts, section
from benchmarks.tables import differences, table
from taming_jax import load_vqgan
from taming_jax.compilation import keep_programs
from taming_jax.data import shapes

RESULTS = Path(__file__).parent / "results" / "priors.jsonl"
DATA = ("shapes", "scenes")

# Heading: the figure and how many digits of it mean something.
COLUMNS = {
    "bits/token": ("bits_per_token", 3),
    "Fréchet": ("frechet", 1),
    "accuracy": ("accuracy", 3),
    "Fréchet, plain": ("plain_frechet", 1),
    "accuracy, plain": ("plain_accuracy", 3),
    "seconds": ("processor_seconds", 0),
    "parameters": ("parameters", 0),
}


def main() -> None:
    """Runs what is missing, or prints what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    trials.add_arguments(parser, data=DATA, variants=VARIANTS, results=RESULTS)
    arguments = parser.parse_args()
    trials.fulfil(arguments, every_trial(arguments), tables, sweep)


def every_trial(arguments: argparse.Namespace) -> Iterator[dict]:
    """Every trial that is asked for: variant by variant, then seed by seed.

    Raises:
      ValueError: for a variant that does not exist or cannot be built.
    """
    codes = load_vqgan(prior_trial.TOKENIZER).codebook_size
    common = prior_trial.settings()
    for variant, seed in itertools.product(arguments.variants, arguments.seeds):
        recipe = section(variant, arguments.steps, codes, len(shapes.CLASSES))
        parts(recipe, codes, len(shapes.CLASSES))  # or say what is wrong with it
        trial = {"data": arguments.data, "seed": seed}
        digest = trials.digest(common | trial | {"section": recipe})
        trial |= {"variant": variant, "steps": arguments.steps, "settings": digest}
        yield trial | {"section": recipe}


def sweep(missing: Sequence[dict], results: Path) -> None:
    """Runs the trials and appends each one's line when it is done."""
    keep_programs()
    coded = prior_trial.open_coded(missing[0]["data"])
    for number, trial in enumerate(missing, 1):
        began = time.perf_counter()
        trial = dict(trial)
        figures = prior_trial.run(trial.pop("section"), coded, trial["seed"])
        wall = time.perf_counter() - began
        trials.append(results, trial | trials.about() | {"wall": wall} | figures)
        shown = ("bits_per_token", "frechet", "accuracy", "seconds")
        brief = ", ".join(f"{name} {figures[name]:.3g}" for name in shown)
        name = f"{trial['variant']} seed {trial['seed']}"
        print(f"{number}/{len(missing)} {name}: {brief}; {wall:.0f} s", flush=True)


def tables(results: Sequence[dict]) -> str:
    """For each data set and length: the ends, and what each part of the modern changes.

    A difference is to the modern one with the same seed, bold where all seeds agree
    about its direction.
    """
    groups, written = {}, []
    for line in results:
        groups.setdefault((line["data"], line["steps"]), []).append(line)
    for (data, steps), lines in groups.items():
        title = f"{data}, {steps} steps"
        there = dict.fromkeys(line["variant"] for line in lines)
        shown = table(lines, [v for v in there if v not in WITHOUT], COLUMNS)
        written += [f"**{title}**", shown] if shown else []
        paired = differences(lines, "modern", COLUMNS)
        shown = table(paired, [v for v in there if v in WITHOUT], COLUMNS, signed=True)
        written += [f"**{title}: difference to modern**", shown] if shown else []
    return "\n\n".join(written)


if __name__ == "__main__":
    main()
