"""Trials that are kept: a line each, found again by a digest of their settings.

    trials wanted, FILE.jsonl --measured--> what has lines, what is missing
    a trial's figures --append--> one more line

What two recipes have in common is measured once and stands under both names.
"""

import datetime
import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

import jax


def measured(wanted: Iterable[dict], results: Path) -> tuple[list[dict], list[dict]]:
    """-> (the lines of those trials that have one, under their names; the others).

    wanted: each with its digest under "settings".
    """
    lines = {line["settings"]: line for line in read(results)}
    found, missing = [], []
    for trial in wanted:
        if trial["settings"] in lines:
            found.append(lines[trial["settings"]] | trial)
        else:
            missing.append(trial)
    return found, missing


def digest(depends_on: Mapping) -> str:
    """Of all that a trial's figures depend on, in JSON's types: 16 hex digits."""
    text = json.dumps(depends_on, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def about() -> dict[str, str]:
    """When, where and with what."""
    return {
        "date": datetime.date.today().isoformat(),
        "device": f"{jax.devices()[0].device_kind}, {platform.machine()}",
        **{name: version(name) for name in ("jax", "flax", "numpy")},
    }


def read(results: Path) -> list[dict]:
    """The lines of a file of results; none where there is no file."""
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines()]


def append(results: Path, line: Mapping) -> None:
    """Adds a line, whole or, if the process is killed, not at all."""
    line = {k: round(v, 5) if isinstance(v, float) else v for k, v in line.items()}
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a") as file:
        file.write(json.dumps(line) + "\n")


def names(text: str) -> list[str]:
    """An argparse type: names with commas between them."""
    return text.split(",")


def numbers(text: str) -> list[int]:
    """An argparse type: whole numbers with commas between them."""
    return [int(number) for number in text.split(",")]
