"""--accept SHARE: candidates are drawn and scored; their numbers say which are kept.

    batches of candidates --judge--> OUTPUT/scores-*.jsonl --kept--> accepted.json

Candidates are not stored: those that are kept are drawn again, with the same keys. So
a disk has room for any share, what was interrupted goes on at the next batch, and a
picture that was lost can still be had.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from taming_jax import processes
from taming_jax.cli import judges
from taming_jax.cli.output import PartsDirectory
from taming_jax.cli.progress import Progress
from taming_jax.files import write_json
from taming_jax.metrics.rejection import kept
from taming_jax.metrics.shares import batch_starts

ACCEPTED = "accepted.json"


def judge_of(args: argparse.Namespace, prior):
    """The judge of the data that a prior was trained on, trained if need be.

    Raises:
      ValueError: for a prior that is told no labels, or whose data are not there.
    """
    from taming_jax import data

    flag = f"--accept {args.accept}"
    if "label" not in prior.vocabulary.told:
        raise ValueError(
            f"{flag}: a classifier looks for the class that was asked for, and this "
            f"prior is told {prior.told}: leave it out"
        )
    try:
        train, held_out = (
            data.open_source(prior.config["data"], split) for split in ("train", "val")
        )
    except (ValueError, OSError) as reason:
        raise ValueError(
            f"{flag} needs a classifier, which learns from the data that the prior was "
            f"trained on, and these are not at hand: {reason}"
        ) from reason
    if tuple(train.class_names) != prior.class_names or len(prior.class_names) < 2:
        raise ValueError(
            f"{flag} needs a classifier of this prior's {len(prior.class_names)} "
            f"classes, and its data have {len(train.class_names)} or others: leave it "
            "out, or name the data in its config.json"
        )
    with processes.first_goes_first("the judge"):
        return judges.judge(train, held_out, judges.directory_of(args, prior), None)


def accepted(
    output: PartsDirectory,
    draw: Callable[..., Iterator[tuple[int, np.ndarray]]],
    judge,
    asked: np.ndarray | Mapping[str, Any],
    count: int,
    each: int,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Which candidates are kept, and how sure the judge is of them.

    Args:
      output: where it is recorded how far this is.
      draw: `starts` of batches -> (start, pictures uint8 [b,H,W,C]) of candidates.
      judge: a `metrics.judge.Judge`.
      asked: labels int32 [G], or conditions by name with "label" among them.
      count: so many are kept of each of G.
      each: so many candidates it has, one after the other.
      batch_size: of candidates.

    Returns:
      Their numbers int64 [G * count], ascending, and log-odds float64 [G * count].
    """
    labels = asked["label"] if isinstance(asked, Mapping) else asked
    labels = labels.repeat(each)
    path = output.path / ACCEPTED
    if not path.exists():
        scores = _read_scores(output.path, len(labels))
        starts = [
            start
            for start in batch_starts(len(labels), batch_size)
            if np.isnan(scores[start : start + batch_size]).any()
        ]
        left = sum(min(batch_size, len(labels) - start) for start in starts)
        progress = Progress(left, "candidates")
        for start, drawn in output.begun_with(draw(starts=starts)):
            found = judge.log_odds(drawn, labels[start : start + len(drawn)])
            _add_scores(output.path, start, found)
            progress(len(drawn))
        processes.barrier("the last candidate", seconds=24 * 3600)
        if processes.is_first():
            scores = _read_scores(output.path, len(labels))
            numbers = kept(scores.reshape(-1, each), count)
            found = {"numbers": numbers.tolist(), "log_odds": scores[numbers].tolist()}
            write_json(path, {"candidates_of_each": each, **found})
        processes.barrier("what is accepted")
    if processes.is_first():
        for scores_path in output.path.glob("scores-*.jsonl"):
            scores_path.unlink()
    found = json.loads(path.read_text())
    return np.array(found["numbers"]), np.array(found["log_odds"])


def _add_scores(output: Path, start: int, scores: np.ndarray) -> None:
    """One line for a batch, which begins anew after one that was cut off."""
    import jax

    line = json.dumps({"start": start, "log_odds": scores.tolist()})
    path = output / f"scores-{jax.process_index()}.jsonl"
    with path.open("a") as file:
        file.write(f"\n{line}")


def _read_scores(output: Path, total: int) -> np.ndarray:
    """What all processes have found so far: float64 [total], NaN where nothing is."""
    scores = np.full(total, np.nan)
    for path in output.glob("scores-*.jsonl"):
        for line in path.read_text().splitlines():
            try:
                found = json.loads(line)
            except ValueError:  # empty, or cut off by an interruption
                continue
            start, values = found["start"], found["log_odds"]
            scores[start : start + len(values)] = values
    return scores
