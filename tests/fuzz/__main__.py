"""Damages checkpoints and has them read: the table of what came of it.

    python tests/fuzz --files 10000 --seed 0

    equal     what the sound file holds, every number of it
    refused   a ValueError, in one line
    other     something else, where the format cannot know better: the numbers of a
              legacy file have no checksum, and a changed pickle was packed with its own
    else      anything else: another exception, a crash, a hang, too much memory, or
              something imported, run or written

Ends with code 1 if anything is `else`, or `other` under a checksum.
"""

import argparse
import random
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from damage import damaged  # noqa: E402  (a command that is run from anywhere)
from judge import OUTCOMES, Verdict, judged  # noqa: E402
from samples import Sample, canonical, samples  # noqa: E402

BATCH = 25  # files that one process reads, if it lives


class Case(NamedTuple):
    """A damaged file.

    Attributes:
      path: where it lies.
      expected: what the sound file holds.
      row: of the table: the kind of file, and where it was damaged.
      checked: whether its checksums would notice other numbers.
    """

    path: Path
    expected: str
    row: tuple[str, str]
    checked: bool


def main() -> int:
    """Prints a row for each kind of file and damage."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    verdicts, failures = defaultdict(list), []
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        sound = {sample: _holds(sample, home) for sample in samples(home)}
        for begin in range(0, args.files, BATCH):
            numbers = range(begin, min(begin + BATCH, args.files))
            cases = [_case(f"{args.seed} {number}", sound, home) for number in numbers]
            judgement = judged([(case.path, case.expected) for case in cases])
            for case, verdict in zip(cases, judgement, strict=True):
                verdicts[case.row].append(verdict)
                if verdict.outcome == "else" or (
                    case.checked and verdict.outcome == "other"
                ):
                    failures.append(f"file {case.path.name}, {case.row}: {verdict}")
    _print_table(verdicts)
    print(f"\n{args.files} files, {len(failures)} failures")
    print("\n".join(failures), file=sys.stderr)
    return bool(failures)


def _holds(sample: Sample, home: Path) -> str:
    path = home / "sound"
    path.write_bytes(sample.content)
    return canonical(path)


def _case(name: str, sound: dict[Sample, str], home: Path) -> Case:
    """The same file for the same name."""
    rng = random.Random(name)
    sample = rng.choice(list(sound))
    where, content, checked = damaged(sample, list(sound), rng)
    path = home / name
    path.write_bytes(content)
    return Case(path, sound[sample], (sample.kind, where), checked)


def _print_table(verdicts: dict[tuple[str, str], list[Verdict]]) -> None:
    print(
        "| file | damaged | files |", " | ".join(OUTCOMES), "| slowest | most memory |"
    )
    print("|---|---|" + "--:|" * (len(OUTCOMES) + 3))
    for (kind, where), rows in sorted(verdicts.items()):
        counts = [sum(row.outcome == outcome for row in rows) for outcome in OUTCOMES]
        slowest = f"{max(row.seconds for row in rows):.2f} s"
        most = f"{max(row.megabytes for row in rows):.0f} MB"
        cells = kind, where, len(rows), *counts, slowest, most
        print("|", " | ".join(map(str, cells)), "|")


if __name__ == "__main__":
    sys.exit(main())
