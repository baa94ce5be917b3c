"""What `benchmarks.tokenizers` has measured, as the Markdown tables of docs/recipes.md.

    results, one dict a trial -> for each size of the codebook, a row for each variant

A cell is the mean over the seeds ± half of what lies between the largest and the
smallest of them. The default's ingredients are shown by what they change: the mean of
the differences to the default with the same seed, bold where all seeds agree about the
direction.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

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


def tables(results: Sequence[Mapping]) -> str:
    """All tables: two for each data set, size and length of run that has results."""
    groups = {}
    for line in results:
        key = line["data"], line["codes"], line["steps"]
        groups.setdefault(key, []).append(line)
    parts = []
    for (data, codes, steps), trials in groups.items():
        title = f"{data}, {codes:,} codes, {steps} steps"
        shown = rows(
            trials, (*RECIPES, *QUANTIZERS), lambda trial, figure: trial[figure]
        )
        parts += [f"**{title}**", shown] if shown else []
        shown = differences(trials)
        parts += [f"**{title}: difference to the default**", shown] if shown else []
    return "\n\n".join(parts)


def differences(trials: Sequence[Mapping]) -> str:
    """What each ingredient, taken away or added, changes; "" where none was run."""
    default = {line["seed"]: line for line in trials if line["variant"] == "default"}
    paired = [line for line in trials if line["seed"] in default]

    def difference(trial, figure):
        return trial[figure] - default[trial["seed"]][figure]

    return rows(paired, (*TAKEN, *ADDED), difference, signed=True)


def rows(
    trials: Sequence[Mapping],
    variants: Sequence[str],
    value: Callable[[Mapping, str], float],
    *,
    signed: bool = False,
) -> str:
    """A Markdown table of the variants that have trials, "" where none has."""
    shown = {
        heading: column
        for heading, column in COLUMNS.items()
        if all(column[0] in line for line in trials)
    }
    lines = [["", *shown, "seeds"], ["---", *["--:"] * (len(shown) + 1)]]
    for variant in variants:
        these = [line for line in trials if line["variant"] == variant]
        if these:
            cells = [
                cell([value(line, figure) for line in these], digits, signed=signed)
                for figure, digits in shown.values()
            ]
            lines.append([variant, *cells, str(len(these))])
    if len(lines) == 2:
        return ""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(values: Sequence[float], digits: int, *, signed: bool = False) -> str:
    """Mean ± half of the range, or of one value itself; bold if its sign is sure."""
    values = np.array(values)
    text = f"{values.mean():{'+' if signed else ''},.{digits}f}"
    if len(values) > 1:
        text += f" ± {np.ptp(values) / 2:,.{digits}f}"
    agree = len(values) > 1 and abs(np.sign(values).sum()) == len(values)
    return f"**{text}**" if signed and agree else text
