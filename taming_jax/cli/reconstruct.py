"""Images through a tokenizer, side by side.

OUTPUT/NAME.png is what comes back of the input called NAME; OUTPUT/pairs/NAME.png
has the input left of it (above it, where it is wider than high). Pictures may have
any size; what is left over of whole codes is cut off at the bottom and at the right.
OUTPUT must be new or empty.
"""

import argparse
from collections import defaultdict

from taming_jax.cli import arguments
from taming_jax.files import new_directory

_MOST_WAITING = 256  # pictures held in memory while batches fill


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--input, --output, and what all verbs have."""
    parser.add_argument(
        "--input",
        required=True,
        metavar="FILE|DIR|LIST",
        help="a picture, a directory of pictures, or a .txt list of files",
    )
    parser.add_argument("--output", required=True, metavar="DIR")
    arguments.add_model(parser)


def run(args: argparse.Namespace) -> None:
    """Writes two pictures for every one of --input."""
    from taming_jax import data, load_vqgan, units
    from taming_jax.pictures import write_png

    paths = data.list_images(args.input)
    with new_directory(args.output) as output:
        vqgan = load_vqgan(arguments.model_path(args))
        cut = (_cut(path, data.read_image(path), vqgan.stride) for path in paths)
        named = zip(_names(paths), cut, strict=True)
        for names, originals in _batches(named, args.batch_size):
            images = vqgan.reconstruct(units.from_uint8(originals))
            pairs = zip(originals, units.to_uint8(images), strict=True)
            for name, pair in zip(names, pairs, strict=True):
                write_png(output / f"{name}.png", pair[1])
                write_png(output / "pairs" / f"{name}.png", _join(pair))
    print(f"{len(paths)} reconstructions in {args.output}, beside the inputs in pairs/")


def _cut(path, picture, stride: int):
    """uint8 [H, W, C] -> its top left part that whole codes cover."""
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
    """(name, picture) ... -> (names, uint8 [B, H, W, C]) ..., each of one size."""
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
