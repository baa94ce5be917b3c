"""Pictures from a trained prior.

OUTPUT gets numbered PNGs, grid.png with a row or column for every class, and
samples.npz (uint8 [N,H,W,C] as arr_0, which the usual evaluators read, and int32 labels
beside it). With --condition FILE|DIR each file is what pictures are asked for by: a
map, a small picture, or JSON with boxes and box_classes, or keypoints, of objects; it
stands at the left of its row in grid.png. How it is drawn is as the prior's recipe
says, unless it is said here. With --given the codes of a picture are kept where --keep
says (top half, left half, or a box x0,y0,x1,y1 in [0, 1]) and the rest is drawn.

OUTPUT must be new, or hold a part of the same request, which is then completed: its
request.json says which. A larger --count goes on, too, where one thing is asked for.
Devices share each batch and several processes the batches, and the files are those that
one would write.
"""

import argparse
import hashlib
from collections.abc import Mapping

from taming_jax.cli import arguments
from taming_jax.cli.output import PartsDirectory

KEPT = {"top": (0.0, 0.0, 1.0, 0.5), "left": (0.0, 0.0, 0.5, 1.0)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--output, what to draw, how to draw it, and what all verbs have."""
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument(
        "--classes", default="all", metavar="0,3|all", help="labels (default: all)"
    )
    parser.add_argument(
        "--condition", metavar="FILE|DIR", help="maps or objects that are asked for"
    )
    parser.add_argument(
        "--count",
        type=arguments.positive,
        default=8,
        metavar="N",
        help="so many of each class or condition, or in all (default: %(default)s)",
    )
    parser.add_argument("--given", metavar="IMAGE", help="a picture to be completed")
    parser.add_argument(
        "--keep", default="top", metavar="top|left|x0,y0,x1,y1", help="of --given"
    )
    for name in ("height", "width"):
        parser.add_argument(f"--{name}", type=int, metavar="PIXELS")
    for name, kind in SETTINGS.items():
        parser.add_argument(f"--{name}", type=kind, metavar=kind.__name__.upper())
    arguments.add_model(parser)
    arguments.add_processes(parser)


SETTINGS = {"temperature": float, "top_k": int, "top_p": float, "guidance": float}


def run(args: argparse.Namespace) -> None:
    """Draws what is missing, then writes what is made of all of it."""
    import jax

    from taming_jax import load_prior, processes
    from taming_jax.cli import samples
    from taming_jax.cli.conditions import asked_for
    from taming_jax.cli.devices import batch_over, own_mesh
    from taming_jax.cli.progress import Progress
    from taming_jax.pretrained.drawing import draw

    arguments.start_processes(args)
    prior = load_prior(arguments.model_path(args), mesh=own_mesh())
    batch_size = batch_over(args.batch_size)
    asked = asked_for(args.classes, args.condition, args.count, prior)
    given = {name: getattr(args, name) for name in SETTINGS}
    settings = {name: value for name, value in given.items() if value is not None}
    settings["shape"] = _shape(args, prior)
    given = _given(args, prior) if args.given else None
    request = _request(prior, asked, args.count, args.seed, given, settings)
    total = len(jax.tree.leaves(asked)[0])
    output = PartsDirectory(
        args.output, request, count_grows=total == args.count, of_all=samples.OF_ALL
    )
    starts, left = samples.unfinished(output.path, total, batch_size)
    batches = draw(
        prior, asked, seed=args.seed, batch_size=batch_size, starts=starts,
        given=given, **settings,
    )  # fmt: skip
    samples.write(output.path, output.begun_with(batches), Progress(left))
    processes.barrier("the last picture", seconds=24 * 3600)
    if processes.is_first():
        shown = samples.put_together(output.path, prior, asked, args.count)
        which = "all" if shown == total else f"{shown:,} of them"
        print(f"{total:,} pictures in {args.output}, {which} side by side in grid.png")


def _request(prior, asked, count: int, seed, given, settings) -> dict:
    """What makes the pictures what they are, in JSON's types."""
    vqgan = prior.tokenizer()
    return {
        "prior": {"directory": str(prior.directory), "step": prior.step},
        "tokenizer": {"step": vqgan.step, "fingerprint": vqgan.fingerprint},
        "seed": seed,
        **_in_short(asked, count),
        "given": None if given is None else given.tolist(),
        **prior.default_settings,
        **settings,
    }


def _in_short(asked, count: int) -> dict:
    """How many of what: labels as they are, of all else a digest."""
    import jax

    each = jax.tree.map(lambda part: part[::count], asked)
    if not isinstance(each, Mapping):
        return {"labels": each.tolist(), "count": count}
    digest = hashlib.sha256()
    for part in jax.tree.leaves(each):
        digest.update(part.tobytes())
    return {"conditions": list(each), "digest": digest.hexdigest(), "count": count}


def _shape(args, prior) -> tuple[int, int]:
    """`--height` and `--width` -> (h, w) of the codes; the prior's own by default."""
    stride = prior.tokenizer().stride
    pixels = [
        asked or side * stride
        for asked, side in zip((args.height, args.width), prior.grid, strict=True)
    ]
    return tuple(n // stride for n in pixels)


def _given(args, prior):
    """`--given` and `--keep` -> codes int32 [h,w], -1 where they are drawn."""
    import numpy as np

    from taming_jax.cli.conditions import numbers
    from taming_jax.data import read_square
    from taming_jax.units import from_uint8

    height, width = prior.grid
    if height != width:
        raise ValueError(
            f"--given is for square pictures; this prior's are {prior.grid}"
        )
    picture = read_square(args.given, height * prior.vqgan.stride)
    codes = np.asarray(prior.vqgan.encode(from_uint8(picture[None])))[0]
    box = KEPT.get(args.keep) or numbers(args.keep, "--keep", float)
    if len(box) != 4 or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
        raise ValueError(
            f"--keep {args.keep}: say top, left, or x0,y0,x1,y1 with 0 <= x0 < x1 <= 1 "
            "and y likewise"
        )
    x0, y0, x1, y1 = np.round(np.multiply(box, [width, height] * 2)).astype(int)
    given = np.full(prior.grid, -1, np.int32)
    given[y0:y1, x0:x1] = codes[y0:y1, x0:x1]
    return given
