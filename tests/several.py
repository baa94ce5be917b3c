"""Our commands in several real processes on this machine, and what they said.

    with started(2, [["train_vqgan", "--config=...", "--workdir=W"], ...]) as run:
        run.finish()                         -> exit codes, one per process
        run.said[0]                          what process 0 printed, stderr too

Each process runs the commands one after the other, so that what takes longest, to begin
at all, is paid once.
"""

import contextlib
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # where pytest does not do it

import tiny_run  # noqa: E402
import tiny_stage  # noqa: E402

SECONDS = 600  # at most; two free cores need a minute, busy ones several
PRIOR = {
    "label_dropout": 0.1,
    "model": {"width": 16, "layers": 2, "heads": 2, "norm": "rms", "mlp": "relu2"},
    "sampling": {"temperature": 0.9, "guidance": 2.0},
    "learning_rate": 1e-3,
    "steps": 6,
    "batch_size": 4,
    "log_every": 1,
    "image_every": 2,
    "eval_every": 2,
    "checkpoint_every": 2,
}
MEANS = {  # of the latents of all processes: filled in step 1, revived in 3 and 5
    "name": "ema",
    "codebook_size": tiny_stage.CODEBOOK_SIZE,
    "dim": 4,
    "start_step": 1,
    "revive_every": 2,
    "revive_until": 5,
}
CONFIG = {
    "seed": 0,
    "data": {"name": "shapes", "train": 24, "val": 6, "image_size": 16},
    # Without an adversary, which is half of what there is to compile: jax keeps only
    # what process 0 has compiled, so that the others compile all of it every time.
    "vqgan": tiny_stage.SECTION
    | {"model": tiny_run.MODEL | {"quantizer": MEANS}, "adversarial_weight": 0.0},
    "prior": PRIOR,
    "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
}
REQUEST = ["--classes=1,2,3", "--count=3", "--batch_size=2"]  # to `sample`


def write_card(path: Path) -> Path:
    """A recipe card of both tiny stages."""
    path.write_text(
        "from ml_collections import ConfigDict\n"
        "from ml_collections.config_dict import placeholder\n\n\n"
        "def get_config():\n"
        f"    config = ConfigDict({CONFIG!r})\n"
        "    config.vqgan.init_from = placeholder(str)\n"
        "    return config\n"
    )
    return path


class Started:
    """Processes that are running.

    Attributes:
      processes: of `subprocess`, by number.
    """

    def __init__(self, processes, logs):
        self.processes, self._logs = processes, logs

    @property
    def said(self) -> list[str]:
        return [log.read_text() for log in self._logs]

    def wait_for(self, pattern: str, process: int = 0) -> re.Match:
        """Returns once the process has printed this."""
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(pattern, self.said[process])):
            ended = self.processes[process].poll() is not None
            assert not ended, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)
        return found

    def finish(self) -> list[int]:
        """The exit codes."""
        deadline = time.monotonic() + SECONDS
        return [p.wait(max(1, deadline - time.monotonic())) for p in self.processes]


@contextlib.contextmanager
def started(
    count: int,
    commands: Sequence[Sequence[str]],
    devices: int = 1,
    before: dict[int, str] | None = None,
) -> Iterator[Started]:
    """Starts `count` processes with `devices` each; all are dead at the end.

    The commands run one after the other, each with its flags; `before` is Python that a
    process runs first.
    """
    port = free_port()
    flags = os.environ.get("XLA_FLAGS", "")  # conftest's, for quick compilation
    flags += f" --xla_force_host_platform_device_count={devices}"
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        logs = [Path(directory) / f"{i}.log" for i in range(count)]
        processes = []
        for i, log in enumerate(logs):
            place = place_flags(port, count, i) if count > 1 else []
            arguments = [
                json.dumps(commands),
                json.dumps(place),
                (before or {}).get(i, ""),
            ]
            process = subprocess.Popen(
                [sys.executable, __file__, *arguments],
                cwd=ROOT,
                env=os.environ | {"XLA_FLAGS": flags},
                stdout=stack.enter_context(log.open("w")),
                stderr=subprocess.STDOUT,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        yield Started(processes, logs)


def place_flags(port: int, count: int, process: int) -> list[str]:
    """Where a process stands."""
    return [
        f"--coordinator=localhost:{port}",
        f"--processes={count}",
        f"--process={process}",
    ]


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def kill_after(
    module: str, owner: str, name: str, n: int, number=signal.SIGKILL
) -> str:
    """For `before`: after the n-th call of a method its process gets a signal."""
    return (
        "import importlib, os\n"
        f"module = importlib.import_module('taming_jax.training.{module}')\n"
        f"owner = getattr(module, {owner!r}, module)\n"
        f"method, left = getattr(owner, {name!r}), [{n}]\n"
        "def fatal(*arguments, **named):\n"
        "    result = method(*arguments, **named)\n"
        "    left[0] -= 1\n"
        f"    if left[0] == 0: os.kill(os.getpid(), {int(number)})\n"
        "    return result\n"
        f"setattr(owner, {name!r}, fatal)\n"
    )


def quick_judge() -> None:
    """Makes the judge a matter of moments."""
    from taming_jax.metrics import judge

    recipe = judge.Recipe(size=8, widths=(8,), features=4, steps=3, batch_size=8)
    judge.judge_of = functools.partial(judge.judge_of, recipe=recipe)


def evaluations(workdir: Path) -> list[list[str]]:
    """Of both stages; seven samples are no multiple of what is drawn at once."""
    both = [f"--workdir={workdir}", "--batch_size=4"]
    return [
        ["evaluate", "--stage=vqgan", *both],
        ["evaluate", "--stage=prior", *both, "--samples=7"],
    ]


def perform(commands: Sequence[Sequence[str]], place: Sequence[str] = ()) -> None:
    """Runs commands in this process; ends it as the first that fails does."""
    from taming_jax import cli
    from taming_jax.cli import train

    for name, *flags in commands:
        if name.startswith("train_"):
            train.main([name, *flags, *place], [name.removeprefix("train_")])
        elif code := cli.main([name, *flags, *place]):
            raise SystemExit(code)


if __name__ == "__main__":
    commands, place, before = sys.argv[1:]
    exec(before)
    quick_judge()
    perform(json.loads(commands), json.loads(place))
