"""Pictures from a trained prior.

OUTPUT gets numbered PNGs, grid.png with a row or column for every class, and
samples.npz (uint8 [N,H,W,C] as arr_0, which the usual evaluators read, and int32 labels
beside it). With --condition FILE|DIR each file is what pictures are asked for by: a
map, a small picture, or JSON with boxes and box_classes, or keypoints, of objects; it
stands at the left of its row in grid.png. How it is drawn is as the prior's recipe
says, unless it is said here. With --given IMAGE|DIR the codes of pictures are kept
where --keep says (top half, left half, a box x0,y0,x1,y1 in [0, 1], or where a mask is
white) and the rest is drawn; a picture, and what is kept of it, stand at the left of
their row. See docs/sampling.md.

With --accept SHARE more is drawn, and the judge of the data (see evaluate) keeps the
pictures whose class it is surest of; samples.npz has its scores, log-odds.

OUTPUT must be new, or hold a part of the same request, which is then completed: its
request.json says which. A larger --count goes on, too, where one thing is asked for.
Devices share each batch and several processes the batches, and the files are those that
one would write.
"""

import argparse
import functools
import hashlib
import warnings
from collections.abc import Mapping

from taming_jax.cli import arguments, completion, sizes
from taming_jax.cli.output import PartsDirectory


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
    parser.add_argument(
        "--accept",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="of the samples that are drawn, the share that a classifier takes most "
        "surely for what was asked for (default: all)",
    )
    completion.add_arguments(parser)
    sizes.add_arguments(parser)
    for name, kind in SETTINGS.items():
        parser.add_argument(f"--{name}", type=kind, metavar=kind.__name__.upper())
    parser.add_argument(
        "--guidance_schedule",
        metavar="NAME[:NUMBER]",
        help="constant, linear, power-cosine[:POWER] or interval:N",
    )
    arguments.add_model(parser)
    arguments.add_processes(parser)


SETTINGS = {"temperature": float, "top_k": int, "top_p": float, "guidance": float}


def run(args: argparse.Namespace) -> None:
    """Draws what is missing, then writes what is made of all of it."""
    import jax

    from taming_jax import load_prior, processes
    from taming_jax.cli import accepting, samples
    from taming_jax.cli.conditions import asked_for
    from taming_jax.cli.devices import batch_over, own_mesh
    from taming_jax.cli.progress import Progress
    from taming_jax.metrics.rejection import candidates
    from taming_jax.pretrained.drawing import draw
    from taming_jax.pretrained.requests import LateCodes

    arguments.start_processes(args)
    each = candidates(args.count, args.accept)
    prior = load_prior(arguments.model_path(args), mesh=own_mesh())
    batch_size = batch_over(args.batch_size)
    shape = sizes.grid_of(args, prior)
    given = completion.given(args.given, args.keep, prior, shape)
    asked = asked_for(
        args.classes, args.condition, prior, shape=shape,
        pictures=len(given.codes) if given else 1,
    )  # fmt: skip
    rows = len(jax.tree.leaves(asked)[0])
    judge = accepting.judge_of(args, prior) if args.accept < 1 else None
    said = {name: getattr(args, name) for name in [*SETTINGS, "guidance_schedule"]}
    settings = {name: value for name, value in said.items() if value is not None}
    settings |= {"shape": shape, **sizes.window_of(args)}
    request = _request(prior, asked, args, given, judge, settings)
    output = PartsDirectory(
        args.output, request, count_grows=rows == 1 and not judge, of_all=samples.OF_ALL
    )
    if given and (late := given.late(prior)) and processes.is_first():
        print(late)
    draw_some = functools.partial(
        draw, prior, asked, seed=args.seed, batch_size=batch_size, each=each,
        given=given and given.of_rows(rows), **settings,
    )  # fmt: skip
    numbers, columns, total = None, {}, rows * args.count
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LateCodes)  # it has been said
        if judge:
            numbers, columns["scores"] = accepting.accepted(
                output, draw_some, judge, asked, args.count, each, batch_size
            )
        starts, left = samples.unfinished(output.path, total, batch_size)
        batches = draw_some(numbers=numbers, starts=starts)
        samples.write(output.path, output.begun_with(batches), Progress(left))
    processes.barrier("the last picture", seconds=24 * 3600)
    if processes.is_first():
        beside = given.beside(rows) if given else ()
        shown = samples.put_together(
            output.path, prior, asked, args.count, beside, **columns
        )
        which = "all" if shown == total else f"{shown:,} of them"
        print(f"{total:,} pictures in {args.output}, {which} side by side in grid.png")


def _request(prior, asked, args, given, judge, settings) -> dict:
    """What makes the pictures what they are, in JSON's types."""
    vqgan = prior.tokenizer()
    return {
        "prior": {"directory": str(prior.directory), "step": prior.step},
        "tokenizer": {"step": vqgan.step, "fingerprint": vqgan.fingerprint},
        "seed": args.seed,
        **_in_short(asked),
        "count": args.count,
        "accept": args.accept,
        "judge": judge and judge.card["weights_sha256"],
        "given": given and hashlib.sha256(given.codes.tobytes()).hexdigest(),
        **prior.default_settings,
        **settings,
    }


def _in_short(asked) -> dict:
    """Labels as they are; of all else a digest."""
    import jax

    if not isinstance(asked, Mapping):
        return {"labels": asked.tolist()}
    digest = hashlib.sha256()
    for part in jax.tree.leaves(asked):
        digest.update(part.tobytes())
    return {"conditions": list(asked), "digest": digest.hexdigest()}
