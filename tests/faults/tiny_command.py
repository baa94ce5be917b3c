"""The training command of a tiny stage, as people give it: started, watched, compared.

    Run --start--> a process --until, ended--> what it said, and a directory
    a run, a workdir --assert_same--> nothing, or AssertionError

The paths that its modules need are set here, for tests and for `python tests/faults`.
"""

import dataclasses
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from etils import epath

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import tiny_run  # noqa: E402  (a command that is run from anywhere)
import tiny_stage  # noqa: E402

from taming_jax import soundness  # noqa: E402

STEPS = {"vqgan": 80, "prior": 80}
OFTEN = {"log_every": 1, "image_every": 40, "eval_every": 20, "checkpoint_every": 8}
PATIENCE = 600  # seconds until something that should happen has not


@dataclasses.dataclass
class Run:
    """A training command in its directory.

    Attributes:
      stage: "vqgan" or "prior".
      workdir: W.
      card: the recipe card.
      rng: chooses moments and files.
    """

    stage: str
    workdir: Path
    card: Path
    rng: random.Random

    @property
    def directory(self) -> Path:
        return self.workdir / self.stage

    @property
    def log(self) -> Path:
        return self.workdir.with_suffix(".log")

    def start(self, *flags: str, **variables: str) -> subprocess.Popen:
        """The command, as people give it; what it says goes to a file beside W."""
        command = [sys.executable, f"train_{self.stage}.py", f"--config={self.card}"]
        # A start is most of what a fault costs: it should compile nothing twice.
        variables["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        with self.log.open("a") as log:
            return subprocess.Popen(
                [*command, f"--workdir={self.workdir}", *flags],
                cwd=ROOT, env=os.environ | variables, stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

    def said(self) -> str:
        """What all its processes said."""
        return self.log.read_text() if self.log.exists() else ""

    def saves(self) -> list[Path]:
        """Checkpoints that are being written."""
        return list(self.directory.glob("checkpoints/*orbax-checkpoint-tmp*"))


def write_card(directory: Path, data: dict | None = None) -> Path:
    """A recipe card whose two stages are tiny and save often; `data`: other ones."""
    config = {
        **tiny_stage.CONFIG,
        "prior": {**tiny_run.PRIOR, **OFTEN, "steps": STEPS["prior"]},
    }
    config["vqgan"] = {**config["vqgan"], **OFTEN, "steps": STEPS["vqgan"]}
    config["data"] = data or config["data"]
    card = directory / "tiny.py"
    card.write_text(
        "from ml_collections import ConfigDict\n\n\n"
        f"def get_config():\n    return ConfigDict({config!r})\n"
    )
    return card


def undisturbed(card: Path, directory: Path) -> Path:
    """The workdir of runs to which nothing happens."""
    directory.mkdir(exist_ok=True)
    for stage in STEPS:
        run = Run(stage, directory, card, random.Random(0))
        ended(run, run.start(), None, 0)
    return directory


def step_said(said: str, first: bool = False) -> int:
    """The last step that a process said it had made, or the one it began from."""
    named = re.findall(
        r"^(?:continuing from step |vqgan |prior )(\d+)[/\n]", said, re.M
    )
    return int(named[0 if first else -1]) if named else 0


def reached(run: Run, before: int, step: int) -> bool:
    return step_said(run.said()[before:]) >= step


def ended(run: Run, process: subprocess.Popen, number: int | None, code: int) -> str:
    """Waits for the end, after a signal if there is one; it must be by this code."""
    if number is not None:
        process.send_signal(number)
    start = time.monotonic()
    ending = process.wait(PATIENCE)
    assert ending == code, f"ended with {ending}, not {code}:\n{run.said()[-3000:]}"
    return f"{code} after {time.monotonic() - start:.1f} s"


def until(happened: Callable[[], object], run: Run, process: subprocess.Popen) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        ending = process.poll()
        assert ending is None, f"ended early with {ending}:\n{run.said()[-3000:]}"
        assert time.monotonic() < end, f"nothing for {PATIENCE} s: {run.said()[-3000:]}"
        time.sleep(0.02)


def assert_same(run: Run, expected: Path) -> None:
    """The last checkpoint, bit for bit, and all metrics but the speed."""
    final, other = (
        _final(workdir / run.stage, STEPS[run.stage])
        for workdir in (run.workdir, expected)
    )
    assert final == other, f"{run.workdir} ends in another state"
    ours, theirs = (
        [
            {k: v for k, v in line.items() if "per_second" not in k}
            for line in _lines(workdir / run.stage / "metrics.jsonl")
        ]
        for workdir in (run.workdir, expected)
    )
    assert ours == theirs, f"{run.workdir} has other metrics"


def _final(stage_dir: Path, step: int) -> dict:
    checkpoint = epath.Path(stage_dir) / "checkpoints" / str(step)
    record = soundness.read_record(checkpoint)
    soundness.read_arrays(checkpoint, record, record.arrays)  # which checks them
    return dict(record.arrays)


def _lines(path: Path) -> list[dict]:
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]
