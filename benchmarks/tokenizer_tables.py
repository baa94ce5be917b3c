"""What `benchmarks.tokenizers` has measured, as the Markdown tables of docs/recipes.md.

    results, one dict a trial -> for each size of the codebook, a row for each variant

The default's ingredients are shown by what they change.
"""

from collections.abc import Sequence

from benchmarks.tables import differences, table
from benchmarks.tokenizer_variants import ADDED, QUANTIZERS, RECIPES, TAKEN

# Heading: the figure and how many digits of it mean something.
COLUMNS = {
    "usage": ("usage", 2),
    "perplexity": ("perplexity", 0),
    "PSNR": ("psnr", 2),
    "SSIM": ("ssim", 3),
    "Fréchet": ("frechet", 1),
    "accuracy": ("accuracy", 3),
    "PSNR, perturbed": ("perturbed_psnr", 2),
    "Fréchet, perturbed": ("perturbed_frechet", 1),
    "accuracy, perturbed": ("perturbed_accuracy", 3),
    "bits/code": ("bits_per_token", 2),
    "Fréchet, sampled": ("sampled_frechet", 1),
    "accuracy, sampled": ("sampled_accuracy", 3),
    "seconds": ("processor_seconds", 0),
}


def tables(results: Sequence[dict]) -> str:
    """All tables: two for each data set, size and length of run that has results."""
    groups = {}
    for line in results:
        key = line["data"], line["codes"], line["steps"]
        groups.setdefault(key, []).append(line)
    parts = []
    for (data, codes, steps), trials in groups.items():
        title = f"{data}, {codes:,} codes, {steps} steps"
        shown = table(trials, (*RECIPES, *QUANTIZERS), COLUMNS)
        parts += [f"**{title}**", shown] if shown else []
        shown = ingredients(trials)
        parts += [f"**{title}: difference to the default**", shown] if shown else []
    return "\n\n".join(parts)


def ingredients(trials: Sequence[dict]) -> str:
    """What each, taken away or added, changes; "" where none was run."""
    paired = differences(trials, "default", COLUMNS)
    return table(paired, (*TAKEN, *ADDED), COLUMNS, signed=True)
