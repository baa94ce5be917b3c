"""What `benchmarks.tokenizers` has measured, as the Markdown tables of docs/recipes.md.

    results, one dict a trial -> for each size of the codebook, a row for each variant

A cell is the mean over the seeds ± half of what lies between the largest and the
smallest of them.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.tokenizer_variants import FAMILIES

# Heading: the figure and how many digits of it mean something.
COLUMNS = {
    "usage": ("usage", 2),
    "perplexity": ("perplexity", 0),
    "PSNR": ("psnr", 2),
    "SSIM": ("ssim", 3),
    "Fréchet": ("frechet", 1),
    "accuracy": ("accuracy", 3),
    "perturbed: PSNR": ("perturbed_psnr", 2),
    "Fréchet ": ("perturbed_frechet", 1),
    "accuracy ": ("perturbed_accuracy", 3),
    "bits/code": ("bits_per_token", 2),
    "sampled: Fréchet": ("sampled_frechet", 1),
    " accuracy": ("sampled_accuracy", 3),
    "seconds": ("processor_seconds", 0),
}


def tables(results: Sequence[Mapping]) -> str:
    """All tables, one for each data set, size and family that has results."""
    parts = []
    keys = dict.fromkeys(
        (line["data"], line["codes"], line["steps"]) for line in results
    )
    for data, codes, steps in keys:
        these = [
            line
            for line in results
            if (line["data"], line["codes"], line["steps"]) == (data, codes, steps)
        ]
        parts.append(f"**{data}, {codes:,} codes, {steps} steps**\n\n{table(these)}")
    return "\n\n".join(parts)


def table(results: Sequence[Mapping]) -> str:
    """One table: the variants in their order, those that have been measured."""
    shown = {
        heading: column
        for heading, column in COLUMNS.items()
        if all(column[0] in line for line in results)
    }
    rows = [["", *shown, "seeds"], ["---", *["--:"] * (len(shown) + 1)]]
    for family in FAMILIES.values():
        for variant in family:
            trials = [line for line in results if line["variant"] == variant]
            if trials:
                cells = [cell(trials, *column) for column in shown.values()]
                rows.append([variant, *cells, str(len(trials))])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cell(trials: Sequence[Mapping], figure: str, digits: int) -> str:
    """Mean ± half of the range; the mean alone where there is one trial."""
    values = np.array([trial[figure] for trial in trials])
    mean = f"{values.mean():,.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {np.ptp(values) / 2:,.{digits}f}"
