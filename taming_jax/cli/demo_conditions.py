"""Every condition on drawn scenes: trained, drawn, scored against the truth.

One tokenizer of pictures in W/images, then one condition after the other in W/NAME, by
the commands that are printed. What is done is not done again, so that it may be
stopped. Nine conditions take about an hour on two cores; --only NAME,NAME makes some of
them, or others, each of which takes minutes more: none, degraded, coordinates,
cropped_boxes, direct_segmentation, direct_depth, direct_edges. W/conditions.png has for
each a few rows, what was asked for left and three samples right; W/conditions.json the
figures, and what the same reader says of originals and reconstructions.
"""

import argparse
import contextlib
import json
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from taming_jax.cli.demo import Phase, add_flags, execute

# What an hour is enough for, and what else there is.
USUAL = ("label", "segmentation", "depth", "edges", "label_and_depth",
         "low_resolution", "keypoints", "boxes", "points")  # fmt: skip
NAMES = (*USUAL, "none", "degraded", "coordinates", "cropped_boxes",
         "direct_segmentation", "direct_depth", "direct_edges")  # fmt: skip
MAPS = {"segmentation": "segmentation", "depth": "depth", "edges": "edges",
        "label_and_depth": "depth"}  # fmt: skip
# The figure that a condition is judged by, and what two cores should reach.
GOALS = {
    "label_accuracy": 0.95,
    "iou": 0.8,
    "depth_error": 0.05,
    "boxes_found": 0.8,
    "edge_f_score": None,
    "keypoint_error": None,
    "psnr": None,
    "psnr_of_8x8": None,
    "places_told_apart": None,
}
_ELSE = "judge_frechet"  # of what is told nothing
_ROWS, _SAMPLES = 4, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of the other demo, and --only."""
    about = "of each condition, that are scored"
    add_flags(parser, "configs/conditions.py", "runs/conditions", 300, about)
    parser.add_argument(
        "--only",
        default=",".join(USUAL),
        metavar="NAME,NAME",
        help=f"of {', '.join(NAMES)} (default: the first {len(USUAL)})",
    )


def run(args: argparse.Namespace) -> None:
    """Trains, scores and draws what is not there yet, then sums up what is.

    Raises:
      ValueError, SystemExit: as the command that failed or was stopped; ValueError for
        a condition that there is not.
    """
    workdir, names = Path(args.workdir), args.only.split(",")
    if unknown := [name for name in names if name not in NAMES]:
        raise ValueError(
            f"--only {args.only}: there is no {unknown[0]!r}; there are "
            f"{', '.join(NAMES)}"
        )
    print("All nine: about an hour on two cores. Stopped, the same command goes on.")
    for name in names:
        known = ("prior/evaluation.json", "seconds.json")
        scored = all((workdir / name / path).exists() for path in known)
        for phase in _phases(args, name):
            if phase.product and phase.product.exists():
                continue
            print(f"\n{name}: {phase.doing}\n$ {shlex.join(phase.command)}", flush=True)
            if phase.name == "evaluate":
                _share(workdir, name)
            with contextlib.nullcontext() if scored else _timed(workdir / name):
                execute(phase.command)
        if not (page := workdir / name / "page.png").exists():
            _draw(workdir / name, page, args.seed)
        print(_sum_up(workdir), flush=True)


def _phases(args: argparse.Namespace, name: str) -> Iterator[Phase]:
    workdir = Path(args.workdir)
    images, own = workdir / "images", workdir / name
    maps = workdir / MAPS[name] if name in MAPS else None
    card = ["--config", f"{args.config}:{name}", *args.overrides]
    yield Phase(
        "train_vqgan",
        "the tokenizer of pictures, the same for all",
        ["python", "train_vqgan.py", "--config", f"{args.config}:label",
         *args.overrides, "--workdir", str(images)],
    )  # fmt: skip
    if maps is not None:
        yield Phase(
            "train_condition_vqgan",
            f"the tokenizer of {MAPS[name]}",
            ["python", "train_vqgan.py", "--config", f"{args.config}:{MAPS[name]}",
             *args.overrides, "--workdir", str(maps), "--stage=condition_vqgan"],
        )  # fmt: skip
    places = [f"--config.prior.tokenizer={images}"]
    if maps is not None:
        places.append(f"--config.prior.condition_tokenizer={maps}")
    yield Phase(
        "train_prior",
        "the prior learns which picture belongs to which condition",
        ["python", "train_prior.py", *card, *places, "--workdir", str(own)],
    )
    yield Phase(
        "evaluate",
        f"do {args.samples} samples show what they were asked for by?",
        ["python", "-m", "taming_jax", "evaluate", "--stage", "prior", "--workdir",
         str(own), "--samples", str(args.samples), "--seed", str(args.seed),
         "--batch_size", "100"],
        own / "prior" / "evaluation.json",
    )  # fmt: skip


def _share(workdir: Path, name: str) -> None:
    """Judge and reader of the data, where another condition has learned them already.

    They say themselves of which data they are, and are made anew for others.
    """
    for network in ("judge", "reader"):
        own = workdir / name / network
        there = sorted(path.parent for path in workdir.glob(f"*/{network}/weights.npz"))
        if there and not own.exists():
            shutil.copytree(there[0], own)


@contextlib.contextmanager
def _timed(own: Path) -> Iterator[None]:
    """Adds to W/NAME/seconds.json what a command takes, also one that is stopped."""
    begun = time.monotonic()
    try:
        yield
    finally:
        if own.parent.exists():  # else it was refused before anything was done
            own.mkdir(exist_ok=True)
            path = own / "seconds.json"
            before = json.loads(path.read_text()) if path.exists() else 0.0
            seconds = before + time.monotonic() - begun
            path.write_text(json.dumps(round(seconds, 1)))


def _draw(own: Path, page: Path, seed: int) -> None:
    """Rows: what held-out pictures are asked for by, and three samples of that.

    Objects are drawn on their pictures. Of crops the first row is in the upper left of
    its picture, the last one in the lower right.
    """
    import numpy as np

    from taming_jax import data, load_prior, pictures
    from taming_jax.conditions.objects import Boxes, Keypoints
    from taming_jax.metrics.likelihood import condition_of
    from taming_jax.pretrained.drawing import draw

    prior = load_prior(own)
    kinds = prior.vocabulary.told
    held_out = data.open_source(prior.config["data"], "val")
    index = np.arange(_ROWS)
    places = np.linspace(0, 0.999, _ROWS, dtype=np.float32)[:, None].repeat(3, 1)
    keep = tuple(dict.fromkeys(("image", *prior.vocabulary.entries)))
    batch = held_out.read(index, places, keep) | {"index": index}
    _, asked = condition_of(prior, batch)
    asked = asked or {}
    rows = _repeated(asked) if set(asked) - {"label"} else _repeated(asked).get("label")
    if rows is None:  # of what is told nothing there are as many
        rows = np.zeros(_ROWS * _SAMPLES, np.int32)
    ((_, drawn),) = draw(prior, rows, seed=seed, batch_size=_ROWS * _SAMPLES)
    side = drawn.shape[2]
    left = []
    for name, kind in kinds.items():
        if name != "label":
            on = (batch["image"],) if isinstance(kind, Boxes | Keypoints) else ()
            left.append(kind.draw(asked[name], side, *on))
    drawn = drawn.reshape(_ROWS, _SAMPLES, *drawn.shape[1:])
    parts = [*(part[:, None] for part in left), drawn]
    if "label" in asked:
        names = [prior.class_names[label] for label in asked["label"]]
        parts = [_named(part, names) for part in parts]
    table = np.concatenate(parts, axis=1)
    pictures.write_png(page, pictures.grid(list(table), table.shape[1]))


def _named(part, names):
    """Pictures [rows,n,H,W,3], each with the name of its row below it."""
    import numpy as np

    from taming_jax.pictures import captioned

    columns = [captioned(part[:, i], names) for i in range(part.shape[1])]
    return np.stack(columns, axis=1)


def _repeated(asked: dict[str, Any]) -> dict[str, Any]:
    """Each row as often as it is drawn."""
    import jax
    import numpy as np

    return jax.tree.map(lambda part: np.repeat(np.asarray(part), _SAMPLES, 0), asked)


def _sum_up(workdir: Path) -> str:
    """Writes conditions.png and conditions.json of what is there; returns a table."""
    import numpy as np

    from taming_jax import pictures

    pages, summary = [], {}
    lines = [f"{'condition':<19} {'figure':<17} samples  originals  reconstr.  goal"]
    for name in NAMES:
        own = workdir / name
        if not (own / "page.png").exists():
            continue
        figures = json.loads((own / "prior" / "evaluation.json").read_text())
        figures["seconds"] = json.loads((own / "seconds.json").read_text())
        summary[name] = figures
        shown = [figure for figure in GOALS if figure in figures] or [_ELSE]
        lines += [_line(name, figure, figures) for figure in shown]
        page = pictures.read_png(own / "page.png")
        pages.append(pictures.captioned(page[None], [name])[0])
    width = max(page.shape[1] for page in pages)
    pages = [
        np.pad(page, ((0, 8), (0, width - page.shape[1]), (0, 0)), constant_values=255)
        for page in pages
    ]
    pictures.write_png(workdir / "conditions.png", np.concatenate(pages))
    (workdir / "conditions.json").write_text(json.dumps(summary, indent=2) + "\n")
    return "\n".join(["", *lines])


def _line(name: str, figure: str, figures: dict) -> str:
    others = {
        "label_accuracy": ("judge_accuracy_on_originals",
                           "judge_accuracy_on_reconstructions")
    }  # fmt: skip
    beside = others.get(
        figure, (f"{figure}_of_originals", f"{figure}_of_reconstructions")
    )
    values = [figures[figure], *(figures.get(each, float("nan")) for each in beside)]
    goal = GOALS.get(figure)
    shown = "  ".join(f"{value:<9.3f}" for value in values)
    return f"{name:<19} {figure:<17} {shown} {'' if goal is None else goal}"
