"""Images through a tokenizer, side by side.

OUTPUT/NAME.png is what comes back of the input called NAME; OUTPUT/pairs/NAME.png
has the input left of it (above it, where it is wider than high). Pictures may have
any size; what is left over of whole codes is cut off at the bottom and at the right.
Those that do not fit into memory go through in tiles, see docs/tiling.md. OUTPUT must
be new or empty.

A tokenizer of class maps, depth or edges reads grey pictures: brightness, or the
classes as pixels' values. Classes come out in colours, with a legend below each pair
(pixels of OUTPUT/NAME.png are the classes again, by its palette); depth as a colour
map, from yellow, near, to violet, far.
"""

import argparse
from collections import defaultdict

from taming_jax.cli import arguments
from taming_jax.files import new_directory

_MOST_WAITING = 256  # pictures held in memory while batches fill


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--input, --output, --stage, and what all verbs have."""
    parser.add_argument(
        "--input",
        required=True,
        metavar="FILE|DIR|LIST",
        help="a picture, a directory of pictures, or a .txt list of files",
    )
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument(
        "--stage",
        choices=["vqgan", "condition_vqgan"],
        help="which tokenizer (default: the pictures', where there are two)",
    )
    parser.add_argument(
        "--tile",
        type=arguments.positive,
        metavar="PIXELS",
        help="one picture at a time, in tiles of so many pixels a side",
    )
    arguments.add_model(parser)


def run(args: argparse.Namespace) -> None:
    """Writes two pictures for every one of --input."""
    from taming_jax import data, load_vqgan

    paths = data.list_images(args.input)
    with new_directory(args.output) as output:
        vqgan = load_vqgan(arguments.model_path(args), stage=args.stage)
        kind = vqgan.input.kind
        cut = (_cut(path, data.read_file(path, kind), vqgan.stride) for path in paths)
        named = zip(_names(paths), cut, strict=True)
        for names, originals in _batches(named, 1 if args.tile else args.batch_size):
            before = _read(vqgan, originals, on_host=args.tile is not None)
            after = vqgan.reconstruct(before, tile=args.tile)
            _write(output, names, before, after, vqgan)
    print(f"{len(paths)} reconstructions in {args.output}, beside the inputs in pairs/")


def _read(vqgan, originals, *, on_host: bool):
    """What the tokenizer takes; what goes in tiles need not fit on the device."""
    import jax
    import numpy as np

    if not on_host:
        return vqgan.input.read(originals)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return np.asarray(vqgan.input.read(originals))


def _write(output, names, before, after, vqgan) -> None:
    """A batch's pictures, as people want to see them."""
    import numpy as np

    from taming_jax import maps
    from taming_jax.pictures import write_png

    drawn = vqgan.input.draw(before), vqgan.input.draw(after)
    for i, name in enumerate(names):
        pair = _join([pictures[i] for pictures in drawn])
        if vqgan.module.classes:
            both = [np.asarray(before[i]), np.asarray(after[i])]
            maps.write_class_map(output / f"{name}.png", both[1])
            below = maps.legend(both, vqgan.region_names, pair.shape[1])
            pair = np.concatenate([pair, below])
        else:
            write_png(output / f"{name}.png", drawn[1][i])
        write_png(output / "pairs" / f"{name}.png", pair)


def _cut(path, picture, stride: int):
    """[H, W] or [H, W, C] -> its top left part that whole codes cover."""
    height, width = (side - side % stride for side in picture.shape[:2])
    if not height or not width:
        raise ValueError(
            f"{path} has {picture.shape[0]} x {picture.shape[1]} pixels and one code "
            f"covers {stride} x {stride}; enlarge it or leave it out"
        )
    return picture[:height, :width]


def _names(paths) -> list[str]:
    """The files' own names; all of them numbered where two would be the same."""
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    digits = len(str(len(stems)))
    return [f"{i:0{digits}}_{stem}" for i, stem in enumerate(stems)]


def _batches(named, batch_size: int):
    """(name, [H, W, ...]) ... -> (names, [B, H, W, ...]) ..., each of one size."""
    import numpy as np

    def pop(shape):
        names, pictures = zip(*waiting.pop(shape), strict=True)
        return names, np.stack(pictures)

    waiting = defaultdict(list)
    for name, picture in named:
        waiting[picture.shape].append((name, picture))
        if len(waiting[picture.shape]) == batch_size:
            yield pop(picture.shape)
        elif sum(map(len, waiting.values())) >= _MOST_WAITING:
            yield pop(max(waiting, key=lambda shape: len(waiting[shape])))
    while waiting:
        yield pop(next(iter(waiting)))


def _join(pair):
    import numpy as np

    height, width = pair[0].shape[:2]
    return np.concatenate(pair, axis=0 if width > height else 1)
