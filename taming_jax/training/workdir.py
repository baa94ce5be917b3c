"""A stage's directory: claimed by one run, and true to what it was begun with.

W/vqgan/config.json    the recipe, the identity of the data, what the stage takes for
                       granted of others, the libraries' versions
W/vqgan/.lock          held by the process that trains here, free when it is dead

W may be in a bucket; the lock is a lease then, and room is no question.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath
from flax.traverse_util import flatten_dict

from taming_jax import processes
from taming_jax.files import in_bucket, unanswered, write_json
from taming_jax.training.lease import leased
from taming_jax.training.loss_weights import VQGANLoss
from taming_jax.training.recipe import Optimizer

# What makes a state another state, or a batch another batch. All else may change
# when a run is continued (it is said aloud, and config.json follows).
FIXED = ("seed", "data", "{stage}.model", "{stage}.discriminator",
         "{stage}.batch_size", "{stage}.alternating",
         "{stage}.condition", "{stage}.shared_vocabulary", "{stage}.order",
         "{stage}.input", "{stage}.stretch")  # fmt: skip
# Numbers that may change, but not become or leave 0, and what they are if nothing is
# said: without the first there is no adversary, LeCAM and R1 remember something, and
# Muon remembers less than AdamW.
THERE_OR_NOT = {
    name: getattr(VQGANLoss, name)
    for name in ("adversarial_weight", "lecam_weight", "r1_weight")
} | {"optimizer.muon": Optimizer.muon}
# Where the data lie is no part of what they are: their identity is compared.
PLACES = ("data.train", "data.val")  # and those of their maps


@contextlib.contextmanager
def claimed(stage_dir: epath.Path) -> Iterator[None]:
    """Holds the directory for this process, which ends if the claim is lost.

    Raises:
      ValueError: if a living process holds it, or a bucket may not be written to.
      ImportError: without what Orbax needs in a bucket.
    """
    if in_bucket(stage_dir):
        _check_orbax(stage_dir)

        def lost(reason: str):
            processes.end_now(1, f"{stage_dir} is no longer this run's: {reason}")

        with leased(stage_dir, lost=lost):
            yield
    else:
        with _locked(Path(stage_dir)):
            yield


@contextlib.contextmanager
def storage_explained(stage_dir: epath.Path) -> Iterator[None]:
    """Says in one line what went wrong with a disk or a bucket.

    Raises:
      OSError: if the disk is full: whatever library found it, in whatever words.
      RuntimeError: if the bucket did not answer, or no longer lets this account in.
    """
    try:
        yield
    except Exception as error:
        words = " ".join(map(str, _with_causes(error)))
        if "No space left" in words or "Disk quota" in words:
            raise OSError(
                f"no room left on the disk of {stage_dir}: free some, then the same "
                "command continues from the last checkpoint, which is whole"
            ) from error
        if unanswered(error, stage_dir):
            raise RuntimeError(
                f"{stage_dir} does not answer: {error}; the same command continues "
                "from the last checkpoint"
            ) from error
        raise


def check_and_record(
    stage_dir: epath.Path,
    stage: str,
    config: Mapping[str, Any],
    identity: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> list[str]:
    """Compares with the run that began here, if one did, and writes config.json.

    Args:
      stage_dir: W/STAGE.
      stage: its name.
      config: the whole recipe card.
      identity: of the data.
      facts: what the stage takes for granted of others (`Stage.facts`).

    Returns:
      Lines that say which settings have changed since, all of them allowed to.

    Raises:
      ValueError: if the directory belongs to another model, to other data or to
        another tokenizer.
    """
    path = stage_dir / "config.json"
    record = {
        "config": config,
        "data": identity,
        "facts": facts,
        "versions": processes.versions(),
    }
    record = json.loads(json.dumps(record))
    changes = []
    if path.exists():
        before = json.loads(path.read_text())
        if before["data"] != record["data"]:
            raise ValueError(
                f"{stage_dir} was trained on other data: {before['data']}, now "
                f"{record['data']}; choose another --workdir or the data of before"
            )
        _check_facts(stage_dir, before.get("facts", {}), record["facts"])
        changes = _compare(stage_dir, stage, before["config"], record["config"])
    write_json(path, record)
    return changes


def check_room(stage_dir: epath.Path, state_bytes: int, keep: int) -> None:
    """Raises ValueError unless the disk holds the checkpoints that will be kept.

    Those of the run's first part count as kept. The directory need not be there yet.
    """
    if in_bucket(stage_dir):
        return
    stage_dir = Path(stage_dir)  # etils neither searches in depth nor knows st_size
    present = sum(path.stat().st_size for path in stage_dir.rglob("checkpoints/**/*"))
    needed = state_bytes * (keep + 2) - present  # the best one, and one being written
    there = next(p for p in (stage_dir, *stage_dir.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise ValueError(
            f"{stage_dir} has {free / 1e9:.1f} GB of room; {keep + 2} checkpoints of "
            f"{state_bytes / 1e9:.1f} GB need {needed / 1e9:.1f}: free some, choose "
            "another --workdir or lower keep_checkpoints"
        )


def _check_orbax(stage_dir: epath.Path) -> None:
    try:
        from google.cloud import storage  # noqa: F401 (Orbax asks what kind it is)
    except ImportError as error:
        raise ImportError(
            f"{stage_dir} is in a bucket, where Orbax needs google-cloud-storage: "
            "pip install google-cloud-storage, or this package with the extra `bucket`"
        ) from error


@contextlib.contextmanager
def _locked(stage_dir: Path) -> Iterator[None]:
    stage_dir.mkdir(parents=True, exist_ok=True)
    with (stage_dir / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise ValueError(
                f"{stage_dir} is in use by process {lock.read().strip()}: wait for "
                "it, stop it, or choose another --workdir"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _check_facts(stage_dir: epath.Path, before: Mapping, now: Mapping) -> None:
    before, now = flatten_dict(before, sep="."), flatten_dict(now, sep=".")
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise ValueError(
                f"{stage_dir} was begun with {key}={before.get(key)!r}, now it is "
                f"{now.get(key)!r}: what was learned here rests on the former; choose "
                "another --workdir, or bring back what it was begun with"
            )


def _compare(
    stage_dir: epath.Path, stage: str, before: Mapping, now: Mapping
) -> list[str]:
    fixed = tuple(key.format(stage=stage) for key in FIXED)
    unsaid = {f"{stage}.{name}": weight for name, weight in THERE_OR_NOT.items()}
    before, now = flatten_dict(before, sep="."), flatten_dict(now, sep=".")
    changes = []
    for key in sorted(before.keys() | now.keys()):
        old, new = (config.get(key, unsaid.get(key)) for config in (before, now))
        ours = key.split(".")[0] in ("seed", "data", "mesh", stage)
        if old == new or key.startswith(PLACES) or not ours:
            continue
        comes_or_goes = key in unsaid and bool(old) != bool(new)
        if comes_or_goes or any(f"{key}.".startswith(f"{name}.") for name in fixed):
            raise ValueError(
                f"{stage_dir} was begun with {key}={old!r}, now it is {new!r}: that "
                "cannot change in a run; choose another --workdir or set it back"
            )
        changes.append(f"{key}: {old!r} -> {new!r}")
    return changes
