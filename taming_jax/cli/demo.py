"""The whole path on drawn pictures: tokenizer, prior, samples, figures, one summary.

It runs the very commands that it prints, one after the other, and goes on where it was
stopped. W/samples/grid.png has the pictures, W/summary.json the figures.
"""

import argparse
import json
import resource
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from taming_jax.cli import arguments


class Phase(NamedTuple):
    """One command of the demo.

    Attributes:
      name: of its time in the summary.
      doing: what a person should know while it runs.
      command: as it would be typed.
      product: what is there once it has run; None: it finds out itself.
    """

    name: str
    doing: str
    command: list[str]
    product: Path | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--config, --workdir, --samples, --seed, and changes to the card."""
    add_flags(parser, "configs/shapes.py", "runs/demo", 1_000, "that are judged")


def add_flags(
    parser: argparse.ArgumentParser, config: str, workdir: str, samples: int, about: str
) -> None:
    """What both demos can be told; the values where nothing is, `about` the samples."""
    parser.add_argument("--config", default=config, metavar="CARD")
    parser.add_argument("--workdir", default=workdir, metavar="W")
    parser.add_argument(
        "--samples", type=arguments.positive, default=samples, metavar="N", help=about
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="S", help="of the samples"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="-- --config.KEY=VALUE", help="as in training"
    )


def run(args: argparse.Namespace) -> None:
    """Trains both stages, judges them, samples every class, sums up.

    Raises:
      ValueError, SystemExit: as the command that failed or was stopped.
    """
    workdir = Path(args.workdir)
    print("About nine minutes on one core; stop it and the same command goes on.")
    seconds, memory = _seconds_before(workdir), {}
    for phase in _phases(args):
        if phase.product and phase.product.exists():
            continue
        print(f"\n{phase.doing}\n$ {shlex.join(phase.command)}", flush=True)
        begun = time.monotonic()
        execute(phase.command)
        took = round(time.monotonic() - begun, 1)
        seconds[phase.name] = max(took, seconds.get(phase.name, 0.0))
        memory[phase.name] = _peak_memory()
    summary = _sum_up(workdir, seconds, memory)
    (workdir / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(_closing(workdir, summary))


def _phases(args: argparse.Namespace) -> Iterator[Phase]:
    workdir = ["--workdir", args.workdir]
    card = ["--config", args.config, *args.overrides]
    verb = ["python", "-m", "taming_jax"]
    judged = ["--samples", str(args.samples), "--seed", str(args.seed)]
    yield Phase(
        "train_vqgan",
        "1/6  The tokenizer learns 512 parts that pictures are made of (4 minutes).",
        ["python", "train_vqgan.py", *card, *workdir],
    )
    yield Phase(
        "evaluate_vqgan",
        "2/6  How well do pictures survive it? A judge learns the classes first "
        "(half a minute).",
        [*verb, "evaluate", "--stage", "vqgan", *workdir],
    )
    yield Phase(
        "tokenize",
        "3/6  All pictures become codes (half a minute).",
        [*verb, "tokenize", *workdir, "--batch_size", "64"],
        Path(args.workdir) / "codes",
    )
    yield Phase(
        "train_prior",
        "4/6  The prior learns which parts go together (5 minutes).",
        ["python", "train_prior.py", *card, *workdir],
    )
    yield Phase(
        "evaluate_prior",
        f"5/6  Does it draw what it is asked for? {args.samples} samples before the "
        "judge (half a minute).",
        [*verb, "evaluate", "--stage", "prior", *workdir, *judged,
         "--batch_size", "100"],
    )  # fmt: skip
    output = Path(args.workdir) / "samples"
    yield Phase(
        "sample",
        "6/6  Eight pictures of every class.",
        [*verb, "sample", *workdir, "--classes", "all", "--count", "8",
         "--output", str(output), "--batch_size", "80"],
        output,
    )  # fmt: skip


def execute(command: list[str]) -> None:
    """The command in this process, which has loaded already what it needs."""
    from taming_jax import cli
    from taming_jax.cli import train

    if command[1] == "-m":
        failed = cli.main(command[3:])
        if failed:
            raise SystemExit(failed)
    else:
        stage = command[1].removeprefix("train_").removesuffix(".py")
        stages = ("vqgan", "condition_vqgan") if stage == "vqgan" else (stage,)
        train.main(command[1:], stages=stages)


def _seconds_before(workdir: Path) -> dict[str, float]:
    """What the phases took when they had something to do, if they are done already."""
    path = workdir / "summary.json"
    return json.loads(path.read_text())["seconds_by_phase"] if path.exists() else {}


def _peak_memory() -> float:
    """The most that this process has held until now, in GB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e9 if sys.platform == "darwin" else 1e6), 2)


def _sum_up(workdir: Path, seconds: Mapping, memory: Mapping) -> dict:
    vqgan, prior = (
        json.loads((workdir / stage / "evaluation.json").read_text())
        for stage in ("vqgan", "prior")
    )
    return {
        "psnr": vqgan["psnr"],
        "ssim": vqgan["ssim"],
        "codebook_usage": vqgan["codebook_usage"],
        "judge_accuracy": vqgan["judge_accuracy"],
        "judge_accuracy_on_originals": vqgan["judge_accuracy_on_originals"],
        "label_accuracy": prior["label_accuracy"],
        "samples": prior["samples"],
        "bits_per_token": prior["bits_per_token"],
        "judge_frechet": prior["judge_frechet"],
        "judge_frechet_of_reconstructions": prior["judge_frechet_of_reconstructions"],
        "seconds": round(sum(seconds.values()), 1),
        "seconds_by_phase": dict(seconds),
        "peak_memory_gb": _peak_memory(),
        "peak_memory_gb_until_phase_ends": dict(memory),
    }


def _closing(workdir: Path, summary: Mapping) -> str:
    minutes = summary["seconds"] / 60
    return f"""
Done in {minutes:.1f} minutes.
  reconstructions   {summary["psnr"]:.1f} dB, {summary["codebook_usage"]:.0%} of the \
codebook in use, {summary["judge_accuracy"]:.1%} still recognised
  samples           {summary["label_accuracy"]:.1%} of {summary["samples"]} show what \
was asked for
Look at
  {workdir}/samples/grid.png    what it draws, a column for every class
  {workdir}/vqgan/images/       pictures above what the tokenizer keeps of them
  {workdir}/summary.json        the figures"""
