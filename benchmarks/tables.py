"""Trials that were measured, as Markdown tables: a row for each variant.

A cell is the mean over the seeds ± half of what lies between the largest and the
smallest of them. Of differences, the mean of those between trials of the same seed,
bold where all seeds agree about the direction.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

# Heading: the figure and how many digits of it mean something.
Columns = Mapping[str, tuple[str, int]]


def table(
    trials: Sequence[Mapping],
    variants: Iterable[str],
    columns: Columns,
    *,
    signed: bool = False,
) -> str:
    """Of the variants that have trials, and what all trials have; "" where none has."""
    shown = {
        heading: column
        for heading, column in columns.items()
        if all(column[0] in trial for trial in trials)
    }
    lines = [["", *shown, "seeds"], ["---", *["--:"] * (len(shown) + 1)]]
    for variant in variants:
        these = [trial for trial in trials if trial["variant"] == variant]
        if these:
            cells = [
                cell([trial[figure] for trial in these], digits, signed=signed)
                for figure, digits in shown.values()
            ]
            lines.append([variant, *cells, str(len(these))])
    if len(lines) == 2:
        return ""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def differences(
    trials: Sequence[Mapping], base: str, columns: Columns
) -> list[Mapping]:
    """Trials whose seed the variant `base` has too, their figures less those of it."""
    bases = {trial["seed"]: trial for trial in trials if trial["variant"] == base}
    figures = [figure for figure, _ in columns.values()]
    return [
        trial | {f: trial[f] - bases[trial["seed"]][f] for f in figures if f in trial}
        for trial in trials
        if trial["seed"] in bases
    ]


def cell(values: Sequence[float], digits: int, *, signed: bool = False) -> str:
    """Mean ± half of the range, or of one value itself; bold if its sign is sure."""
    values = np.array(values)
    text = f"{values.mean():{'+' if signed else ''},.{digits}f}"
    if len(values) > 1:
        text += f" ± {np.ptp(values) / 2:,.{digits}f}"
    agree = len(values) > 1 and abs(np.sign(values).sum()) == len(values)
    return f"**{text}**" if signed and agree else text
