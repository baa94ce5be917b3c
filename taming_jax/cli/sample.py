"""Pictures from a trained prior.

OUTPUT gets numbered PNGs, grid.png with a row or column for every class, and
samples.npz (uint8 [N,H,W,C] as arr_0, which the usual evaluators read, and int32 labels
beside it). How it is drawn is as the prior's recipe says, unless it is said here. With
--given the codes of a picture are kept where --keep says (top half, left half, or a box
x0,y0,x1,y1 in [0, 1]) and the rest is drawn.

OUTPUT must be new, or hold a part of the same request, which is then completed: its
request.json says which. Several processes share the batches, and the files are those
that one would write.
"""

import argparse

from taming_jax.cli import arguments
from taming_jax.cli.output import PartsDirectory
from taming_jax.files import whole_file

KEPT = {"top": (0.0, 0.0, 1.0, 0.5), "left": (0.0, 0.0, 0.5, 1.0)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--output, what to draw, how to draw it, and what all verbs have."""
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument(
        "--classes", default="all", metavar="0,3|all", help="labels (default: all)"
    )
    parser.add_argument(
        "--count",
        type=arguments.positive,
        default=8,
        metavar="N",
        help="so many of each class, or in all (default: %(default)s)",
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
    from taming_jax import load_prior, pictures, processes
    from taming_jax.metrics.shares import batch_starts
    from taming_jax.pretrained.drawing import draw

    arguments.start_processes(args)
    prior = load_prior(arguments.model_path(args))
    labels = _labels(args, prior)
    asked = {name: getattr(args, name) for name in SETTINGS}
    settings = {name: value for name, value in asked.items() if value is not None}
    settings["shape"] = _shape(args, prior)
    given = _given(args, prior) if args.given else None
    request = _request(prior, labels, args.seed, given, settings)
    output = PartsDirectory(args.output, request)
    paths = [output.path / f"{i:05}.png" for i in range(len(labels))]
    starts = (
        start
        for start in batch_starts(len(labels), args.batch_size)
        if not all(path.exists() for path in paths[start : start + args.batch_size])
    )
    batches = draw(
        prior, labels, seed=args.seed, batch_size=args.batch_size, starts=starts,
        given=given, **settings,
    )  # fmt: skip
    for start, drawn in output.begun_with(batches):
        for path, picture in zip(paths[start:], drawn, strict=False):
            pictures.write_png(path, picture)
    processes.barrier("the last picture", seconds=24 * 3600)
    if processes.is_first():
        _put_together(output.path, paths, prior, labels, args.count)
    print(f"{len(labels)} pictures in {args.output}, side by side in grid.png")


def _request(prior, labels, seed, given, settings) -> dict:
    """What makes the pictures what they are, in JSON's types."""
    vqgan = prior.tokenizer()
    return {
        "prior": {"directory": str(prior.directory), "step": prior.step},
        "tokenizer": {"step": vqgan.step, "fingerprint": vqgan.fingerprint},
        "seed": seed,
        "labels": labels.tolist(),
        "given": None if given is None else given.tolist(),
        **prior.default_settings,
        **settings,
    }


def _put_together(output, paths, prior, labels, count: int) -> None:
    """samples.npz and grid.png, of the pictures in the files."""
    import numpy as np

    from taming_jax import pictures

    drawn = np.stack([pictures.read_png(path) for path in paths])
    with whole_file(output / "samples.npz") as file:
        np.savez(file, drawn, labels=labels)
    if prior.class_names:
        drawn = pictures.captioned(drawn, [prior.class_names[i] for i in labels])
    pictures.write_png(output / "grid.png", _grid(drawn, count))


def _grid(drawn, count: int):
    """[N,H,W,C], each class `count` times -> one picture, not taller than wide."""
    from taming_jax.pictures import grid

    rows = drawn.reshape(-1, count, *drawn.shape[1:])
    if len(rows) > count:
        rows = rows.swapaxes(0, 1)
    return grid(list(rows), rows.shape[1])


def _labels(args, prior):
    """`--classes` -> int32 [N], each class --count times."""
    import numpy as np

    if not prior.class_names:
        if args.classes != "all":
            raise ValueError(
                f"--classes {args.classes}: this prior is unconditional, leave it out"
            )
        return np.zeros(args.count, np.int32)
    known = range(len(prior.class_names))
    asked = known if args.classes == "all" else _numbers(args.classes, "--classes", int)
    if unknown := [label for label in asked if label not in known]:
        raise ValueError(
            f"--classes {args.classes}: there is no class {unknown[0]}; this prior has "
            f"0 to {len(known) - 1}"
        )
    return np.repeat(np.asarray(asked, np.int32), args.count)


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

    from taming_jax.data import read_square
    from taming_jax.units import from_uint8

    height, width = prior.grid
    if height != width:
        raise ValueError(
            f"--given is for square pictures; this prior's are {prior.grid}"
        )
    picture = read_square(args.given, height * prior.vqgan.stride)
    codes = np.asarray(prior.vqgan.encode(from_uint8(picture[None])))[0]
    box = KEPT.get(args.keep) or _numbers(args.keep, "--keep", float)
    if len(box) != 4 or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
        raise ValueError(
            f"--keep {args.keep}: say top, left, or x0,y0,x1,y1 with 0 <= x0 < x1 <= 1 "
            "and y likewise"
        )
    x0, y0, x1, y1 = np.round(np.multiply(box, [width, height] * 2)).astype(int)
    given = np.full(prior.grid, -1, np.int32)
    given[y0:y1, x0:x1] = codes[y0:y1, x0:x1]
    return given


def _numbers(text: str, flag: str, kind) -> list:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{flag} {text}: numbers with commas between them") from None
