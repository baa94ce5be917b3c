"""Pictures from a trained prior.

OUTPUT gets numbered PNGs, grid.png with a row or column for every class, and
samples.npz (uint8 [N,H,W,C] as arr_0, which the usual evaluators read, and int32 labels
beside it). With --condition FILE|DIR each file is what pictures are asked for by: a
map, a small picture, or JSON with boxes and box_classes (and crop), or keypoints, of
objects, or with coordinates (without a file those of a whole picture); it stands at the
left of its row in grid.png. How it is drawn is as the prior's recipe says, unless it is
said here. With --given IMAGE|DIR the codes of pictures are kept where --keep says (top
half, left half, a box x0,y0,x1,y1 in [0, 1], or where a mask is white) and the rest is
drawn; a picture, and what is kept of it, stand at the left of their row. See
docs/sampling.md.

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
from typing import Any, NamedTuple

from taming_jax.cli import arguments, completion, sizes
from taming_jax.cli.output import PartsDirectory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--output, what to draw, how to draw it, and what all verbs have."""
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument(
        "--classes", default="all", metavar="0,3|all", help="labels (default: all)"
    )
    parser.add_argument(
        "--condition", metavar="FILE|DIR", help="maps, objects, ... that are asked for"
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
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="of weights and activations (default: as they were trained)",
    )
    arguments.add_model(parser)
    arguments.add_processes(parser)


SETTINGS = {"temperature": float, "top_k": int, "top_p": float, "guidance": float}


class _Wanted(NamedTuple):
    """What the flags ask for, read and checked.

    asked: labels int32 [G], or conditions by name, [G, ...].
    each: so many samples are drawn of each of G, of which --count stay.
    given: pictures to be completed; None: there are none.
    judge: that chooses among the samples; None: all stay.
    settings: keywords of `prior.sample`.
    """

    asked: Any
    each: int
    given: completion.Completion | None
    judge: Any
    settings: dict[str, Any]

    @property
    def rows(self) -> int:
        """G."""
        import jax

        return len(jax.tree.leaves(self.asked)[0])


def run(args: argparse.Namespace) -> None:
    """Draws what is missing, then writes what is made of all of it."""
    from taming_jax import load_prior, processes
    from taming_jax.cli import samples
    from taming_jax.cli.devices import own_mesh
    from taming_jax.metrics.rejection import candidates
    from taming_jax.pretrained.requests import LateCodes

    arguments.start_processes(args)
    each = candidates(args.count, args.accept)
    prior = load_prior(arguments.model_path(args), args.dtype, mesh=own_mesh())
    wanted = _wanted(args, prior, each)
    output = PartsDirectory(
        args.output,
        _request(args, prior, wanted),
        count_grows=wanted.rows == 1 and not wanted.judge,
        of_all=samples.OF_ALL,
    )
    if wanted.given and (late := wanted.given.late(prior)) and processes.is_first():
        print(late)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LateCodes)  # it has been said
        columns = _draw(args, prior, wanted, output)
    processes.barrier("the last picture", seconds=24 * 3600)
    if not processes.is_first():
        return
    beside = wanted.given.beside(wanted.rows) if wanted.given else ()
    shown = samples.put_together(
        output.path, prior, wanted.asked, args.count, beside, **columns
    )
    total = wanted.rows * args.count
    which = "all" if shown == total else f"{shown:,} of them"
    print(f"{total:,} pictures in {args.output}, {which} side by side in grid.png")


def _wanted(args: argparse.Namespace, prior, each: int) -> _Wanted:
    """Reads what is named, and says what is wrong with it."""
    from taming_jax.cli import accepting
    from taming_jax.cli.conditions import asked_for

    shape = sizes.grid_of(args, prior)
    drawn = {"shape": shape, **sizes.window_of(args)}
    given = completion.given(args.given, args.keep, prior, shape)
    pictures = len(given.codes) if given else 1
    asked = asked_for(
        args.classes,
        args.condition,
        prior,
        shape=shape,
        windows=sizes.sliding(prior, drawn),
        pictures=pictures,
    )
    judge = accepting.judge_of(args, prior) if args.accept < 1 else None
    said = {name: getattr(args, name) for name in [*SETTINGS, "guidance_schedule"]}
    settings = {name: value for name, value in said.items() if value is not None}
    return _Wanted(asked, each, given, judge, settings | drawn)


def _draw(
    args: argparse.Namespace, prior, wanted: _Wanted, output: PartsDirectory
) -> dict[str, Any]:
    """Writes the pictures that are missing; what samples.npz has besides them."""
    from taming_jax.cli import accepting, samples
    from taming_jax.cli.devices import batch_over
    from taming_jax.cli.progress import Progress
    from taming_jax.pretrained.drawing import draw

    # Few pictures are no full batch, and megapixels too dear to be thrown away.
    batch_size = batch_over(min(args.batch_size, wanted.rows * wanted.each))
    draw_some = functools.partial(
        draw,
        prior,
        wanted.asked,
        seed=args.seed,
        batch_size=batch_size,
        each=wanted.each,
        given=wanted.given and wanted.given.of_rows(wanted.rows),
        **wanted.settings,
    )
    numbers, columns = None, {}
    if wanted.judge:
        numbers, columns["scores"] = accepting.accepted(
            output,
            draw_some,
            wanted.judge,
            wanted.asked,
            args.count,
            wanted.each,
            batch_size,
        )
    total = wanted.rows * args.count
    starts, left = samples.unfinished(output.path, total, batch_size)
    batches = draw_some(numbers=numbers, starts=starts)
    samples.write(output.path, output.begun_with(batches), Progress(left))
    return columns


def _request(args: argparse.Namespace, prior, wanted: _Wanted) -> dict[str, Any]:
    """What makes the pictures what they are, in JSON's types.

    As it comes out, in whatever words it was asked for: what is not said is in it, and
    models are known by their weights, so that they may be moved.
    """
    vqgan, given, judge = prior.tokenizer(), wanted.given, wanted.judge
    return {
        "prior": _in_full(prior),
        "tokenizer": _in_full(vqgan),
        "condition_tokenizer": _in_full(prior.condition_vqgan),
        "seed": args.seed,
        **_in_short(wanted.asked),
        "count": args.count,
        "accept": args.accept,
        "judge": judge and judge.card["weights_sha256"],
        "given": given and given.digest,
        **sizes.in_effect(prior, prior.default_settings | wanted.settings),
    }


def _in_full(model) -> dict[str, Any] | None:
    """A prior or a tokenizer by its weights, wherever it lies."""
    from taming_jax import fingerprint

    if model is None:
        return None
    weights = fingerprint.of_weights(model.params)
    return {"step": model.step, "weights": weights, "dtype": model.module.dtype}


def _in_short(asked) -> dict[str, Any]:
    """Labels as they are; of all else a digest."""
    import jax

    if not isinstance(asked, Mapping):
        return {"labels": asked.tolist()}
    digest = hashlib.sha256()
    for part in jax.tree.leaves(asked):
        digest.update(part.tobytes())
    return {"conditions": list(asked), "digest": digest.hexdigest()}
