"""Trials that are kept: a line each, found again by a digest of their settings.

    trials wanted, FILE.jsonl --measured--> what has lines, what is missing
    a trial's figures --append--> one more line

A benchmark's command is `add_arguments`, then `fulfil`.

What two recipes have in common is measured once and stands under both names.
"""

import argparse
import datetime
import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
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


def add_arguments(
    parser: argparse.ArgumentParser,
    *,
    data: Sequence[str],
    variants: Iterable[str],
    results: Path,
) -> None:
    """--data, --variants, --seeds, --steps, --results, --table; all by default."""
    parser.add_argument("--data", default=data[0], choices=data)
    parser.add_argument(
        "--variants", type=lambda text: text.split(","), default=list(variants)
    )
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--results", type=Path, default=results)
    parser.add_argument("--table", action="store_true", help="print, run nothing")


def fulfil(
    arguments: argparse.Namespace,
    wanted: Iterable[dict],
    tables: Callable[[list[dict]], str],
    sweep: Callable[[list[dict], Path], None],
) -> None:
    """Runs what is missing, or prints what is there.

    Args:
      arguments: those of `add_arguments`.
      wanted: as `measured` takes it.
      tables: of lines.
      sweep: runs trials and appends their lines to the results.
    """
    found, missing = measured(wanted, arguments.results)
    if arguments.table:
        print(tables(found))
        return
    print(f"{len(missing)} of {len(missing + found)} trials are missing", flush=True)
    if missing:
        sweep(missing, arguments.results)


def numbers(text: str) -> list[int]:
    """An argparse type: whole numbers with commas between them."""
    return [int(number) for number in text.split(",")]
