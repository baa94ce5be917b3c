"""A dataset into codes on disk, once, for prior training.

The pictures of a card go to W/codes, where train_prior.py finds them; W/codes is there
whole or not at all. --crops 1 keeps the centre of each training picture, --crops 10 the
centre and the four corners, each mirrored too. The corners are those of data.zoom; at 1
a crop has room to move along the picture's longer side only. Of validation pictures the
centre is kept.

Where the card says that the prior is told by maps, their codes are written beside,
cropped and mirrored as the pictures are; and so is what it reads of other conditions,
or their tokens. Tokenizers are those in W, or where prior.tokenizer and
prior.condition_tokenizer say. The card is the one that the tokenizer in W/vqgan was
trained by; --config names another, by which the prior will be trained. What differs
from that is said as in training, after --:

    tokenize --workdir W --config CARD -- --config.prior.tokenizer=DIR
"""

import argparse
import contextlib
import functools
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from taming_jax.cli import arguments
from taming_jax.cli.progress import Progress
from taming_jax.files import in_bucket, located, new_directory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--workdir, --config, --crops, --flips, --batch_size, and changes to the card."""
    parser.add_argument(
        "--workdir", required=True, metavar="W", help="the directory of a run"
    )
    parser.add_argument(
        "--config", metavar="CARD", help="of the prior (default: W's tokenizer's)"
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
    parser.add_argument(
        "overrides", nargs="*", metavar="-- --config.KEY=VALUE", help="as in training"
    )


def run(args: argparse.Namespace) -> None:
    """Writes W/codes, unless these very codes are there already."""
    from taming_jax import data, load_vqgan
    from taming_jax.conditions.on_disk import beside, described, written
    from taming_jax.data.codes_writer import describe, write_codes
    from taming_jax.training.mesh import create_mesh
    from taming_jax.training.recipe import Mesh
    from taming_jax.training.run import data_of
    from taming_jax.units import from_uint8

    config, mesh = _card(args), create_mesh(Mesh())
    section, settings = config.get("prior") or {}, config["data"]
    place = section.get("tokenizer") or args.workdir
    vqgan, size = load_vqgan(place, mesh=mesh, stage="vqgan"), settings["image_size"]
    sources = {split: data.open_source(settings, split) for split in ("train", "val")}
    views = _views(args, sources["train"])
    about = data_of(sources["train"], size, vqgan.stride)
    told = section.get("condition", "label")
    others = beside(told, about)
    place = section.get("condition_tokenizer") or args.workdir
    condition, encode_condition = _condition(told, about, place, mesh)
    description = describe(
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
    if _are_there(directory, description):
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
            description,
            lambda pictures: vqgan.encode(from_uint8(pictures)),
            encode_condition,
            batch_size=args.batch_size,
            read=[entry for kind in others.values() for entry in kind.entries],
            tell=functools.partial(written, others),
            progress=Progress(total),
        )


def _card(args: argparse.Namespace) -> Mapping[str, Any]:
    """The recipe: the one that is named, or that of the tokenizer in W.

    Raises:
      ValueError: for a card that cannot be read, or that says nothing of data; and
        where W has no tokenizer whose card there would be.
    """
    from taming_jax import stored
    from taming_jax.cli.train import parse
    from taming_jax.training.sections import plain

    if args.config is None:
        if args.overrides:
            raise ValueError(
                f"{args.overrides[0]} changes a card, and none is named: give --config"
            )
        try:
            return stored.read_record(args.workdir, "vqgan")["config"]
        except ValueError as error:
            raise ValueError(
                f"{error}; if its tokenizer is elsewhere, give --config CARD, and "
                "--config.prior.tokenizer=DIR after --"
            ) from None
    flags = ["tokenize", f"--config={args.config}", *args.overrides]
    config, *_ = parse([*flags, f"--workdir={args.workdir}"], ["prior"])
    config = plain(config)
    if "data" not in config:
        raise ValueError(f"{args.config} has no config.data: it needs one")
    return config


def _condition(told, about, place, mesh):
    """What codes.json says of the maps' codes, and maps -> codes; or None of both.

    Args:
      told: `config.prior.condition`.
      about: of the data, a `conditions.kinds.Data`.
      place: of the maps' tokenizer.
      mesh: for it.

    Raises:
      ValueError: for a tokenizer or a size of maps that training would refuse.
    """
    from taming_jax import load_vqgan
    from taming_jax.conditions.coordinates import resized
    from taming_jax.conditions.kinds import CodedMap, MapTokenizer
    from taming_jax.conditions.table import coded, requested

    options = dict(requested(told))
    if not coded(options):
        return None, None
    (name,) = coded(options)
    maps = load_vqgan(place, mesh=mesh, stage="condition_vqgan")
    tokenizer = MapTokenizer(
        maps.input,
        maps.stride,
        maps.codebook_size,
        maps.module.image_channels,
        lambda _, images: maps.encode(images),
    )
    kind = CodedMap.of(about._replace(tokenizer=tokenizer), name, **options[name])

    def encode(entries):
        return maps.encode(resized(maps.input.read(entries), kind.side))

    return {
        "kind": name,
        "side": kind.side,
        "fingerprint": maps.fingerprint,
        "codebook_size": maps.codebook_size,
        "grid": kind.grid,
    }, encode


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
