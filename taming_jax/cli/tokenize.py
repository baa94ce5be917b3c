"""A dataset into codes on disk, once, for prior training.

The pictures that the tokenizer in W/vqgan was trained on go to W/codes, where
train_prior.py finds them; W/codes is there whole or not at all. --crops 1 keeps the
centre of each training picture, --crops 10 the centre and the four corners, each
mirrored too. The corners are those of data.zoom; at 1 a crop has room to move along
the picture's longer side only. Of validation pictures the centre is kept.

Where the card says that the prior is told by maps, their codes are written beside, by
the tokenizer in W/condition_vqgan or prior.condition_tokenizer, cropped and mirrored as
the pictures are; and so is what it reads of other conditions, or their tokens. The card
is the one that the tokenizer in W/vqgan was trained by.
"""

import argparse
import contextlib
import functools
from pathlib import PurePath

from taming_jax.cli import arguments
from taming_jax.cli.progress import Progress
from taming_jax.files import in_bucket, located, new_directory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--workdir, --crops, --flips, --batch_size."""
    parser.add_argument(
        "--workdir", required=True, metavar="W", help="the directory of a run"
    )
    parser.add_argument(
        "--crops",
        type=int,
        choices=[1, 10],
        default=1,
        help="how many views of each training picture (default: %(default)s)",
    )
    parser.add_argument(
        "--flips", action="store_true", help="keep the one crop mirrored, too"
    )
    arguments.add_batch_size(parser)


def run(args: argparse.Namespace) -> None:
    """Writes W/codes, unless these very codes are there already."""
    from taming_jax import data, load_vqgan
    from taming_jax.conditions.on_disk import described, written
    from taming_jax.data.codes_writer import describe, write_codes
    from taming_jax.training.mesh import create_mesh
    from taming_jax.training.recipe import Mesh
    from taming_jax.units import from_uint8

    mesh = create_mesh(Mesh())
    vqgan = load_vqgan(args.workdir, mesh=mesh, stage="vqgan")
    settings = vqgan.config["data"]
    size = settings["image_size"]
    sources = {split: data.open_source(settings, split) for split in ("train", "val")}
    views = _views(args, sources["train"])
    condition, encode_condition = _condition(args, vqgan, mesh)
    others = _others(vqgan, sources["train"])
    about = describe(
        sources,
        views,
        fingerprint=vqgan.fingerprint,
        codebook_size=vqgan.codebook_size,
        grid=(size // vqgan.stride,) * 2,
        image_size=size,
        condition=condition,
        told=described(others, sources["train"].example_spec),
    )
    directory = located(args.workdir) / "codes"
    if _are_there(directory, about):
        print(f"nothing to do: {directory} has these codes already")
        return
    total = len(sources["train"]) * views.count + len(sources["val"])
    print(f"{total:,} pictures to {directory}", flush=True)
    # In a bucket codes.json comes last, and without it there are no codes.
    whole = contextlib.nullcontext if in_bucket(directory) else new_directory
    with whole(directory) as unfinished:
        write_codes(
            unfinished,
            sources,
            about,
            lambda pictures: vqgan.encode(from_uint8(pictures)),
            encode_condition,
            batch_size=args.batch_size,
            read=[entry for kind in others.values() for entry in kind.entries],
            tell=functools.partial(written, others),
            progress=Progress(total),
        )


def _condition(args: argparse.Namespace, vqgan, mesh):
    """What codes.json says of the maps' codes, and maps -> codes; or None of both."""
    from taming_jax import load_vqgan
    from taming_jax.conditions.coordinates import resized
    from taming_jax.conditions.table import coded, requested

    section = vqgan.config.get("prior") or {}
    told = dict(requested(section.get("condition", "label")))
    if not coded(told):
        return None, None
    (kind,) = coded(told)
    place = section.get("condition_tokenizer") or args.workdir
    maps = load_vqgan(place, mesh=mesh, stage="condition_vqgan")
    if maps.input.kind != kind:
        raise ValueError(
            f"prior.condition={kind!r}, and the tokenizer in {maps.directory} is for "
            f"{maps.input.kind}: train the one that the card has"
        )
    side = told[kind].get("side") or vqgan.config["data"]["image_size"]

    def encode(entries):
        return maps.encode(resized(maps.input.read(entries), side))

    return {
        "kind": kind,
        "side": side,
        "fingerprint": maps.fingerprint,
        "codebook_size": maps.codebook_size,
        "grid": (side // maps.stride,) * 2,
    }, encode


def _others(vqgan, source):
    """What the prior is told besides labels and maps with a tokenizer."""
    from taming_jax.conditions.on_disk import beside
    from taming_jax.training.run import data_of

    section = vqgan.config.get("prior") or {}
    size = vqgan.config["data"]["image_size"]
    return beside(
        section.get("condition", "label"), data_of(source, size, vqgan.stride)
    )


def _views(args: argparse.Namespace, source):
    """What the flags ask for; raises ValueError where the data cannot give it."""
    from taming_jax.data.codes import Views

    if args.crops == 10 and args.flips:
        raise ValueError("--crops 10 has each crop mirrored already: leave --flips out")
    views = Views(5, mirrored=True) if args.crops == 10 else Views(1, args.flips)
    asked = {"across": ("crop", views.places > 1), "mirror": ("mirror", views.mirrored)}
    missing = [
        verb
        for chance, (verb, wanted) in asked.items()
        if wanted and chance not in source.chances
    ]
    if missing:
        flag = "--crops 10" if args.crops == 10 else "--flips"
        raise ValueError(
            f"{flag} is for data that training crops or mirrors at random; it does not "
            f"{' or '.join(missing)} these ({source.identity['name']}): leave it out"
        )
    return views


def _are_there(directory: PurePath, about) -> bool:
    """Whether the directory has these codes; raises ValueError if it has others."""
    from taming_jax.data.codes import read_description

    if (there := read_description(directory)) is None:
        return False
    if changed := [name for name in about if there.get(name) != about[name]]:
        raise ValueError(
            f"{directory} has codes with another {', '.join(changed)}: remove it to "
            "write them anew"
        )
    return True
