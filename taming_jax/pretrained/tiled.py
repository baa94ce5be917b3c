"""A tokenizer's two directions tile by tile: what `tile=` asks of it.

    images [B,H,W,C] --tiles--> latents [B,h,w,D] -> codes int32 [B,h,w]
    codes  [B,h,w]   --tiles--> images [B,h*stride,w*stride,C]

A model without normalisation and attention gives by tiles what it gives of the whole:
what lies within its receptive field of a cut edge is left out. All others see but their
own tile at a time, whatever is left out; what differs from one tile to the next fades,
latents before they are quantized, for there is nothing between two codes.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np

from taming_jax.models.receptive import Reach, receptive_field
from taming_jax.models.vqgan import VQGAN
from taming_jax.tiling import Margins, Scale, bands
from taming_jax.units import ClassMaps, Codes, Images

Run = Callable[[np.ndarray], np.ndarray]  # one batch, compiled

# Where a model sees everything one place in so many of a tile fades, at each of its
# edges. Leaving out the reach of its convolutions besides took three to eight times as
# long and came no nearer to the whole: docs/tiling.md.
_FADING = 4
_WHOLE, _TILE = 1024 * 1024, 512  # pixels that go at once; a tile's side


def encoding_margins(module: VQGAN, tile: int) -> Margins:
    """The margins of tiles of so many pixels on the way to latents.

    Raises:
      ValueError: for a tile that is no multiple of the stride, or nothing but margins.
    """
    reach = receptive_field(module).encoder
    before, after = (-(-side // module.stride) for side in reach[:2])
    return _margins("code", reach._replace(before=before, after=after), module, tile)


def decoding_margins(module: VQGAN, tile: int) -> Margins:
    """The same on the way from codes."""
    return _margins("square of pixels", receptive_field(module).decoder, module, tile)


def tile_for(module: VQGAN, shape: tuple[int, ...]) -> int | None:
    """The tile for images [B,H,W,...] of this shape; None where they go as a whole.

    That is up to as many pixels as a square of 1,024 has, all images together.
    """
    if math.prod(shape[:3]) <= _WHOLE:
        return None
    reach = receptive_field(module)
    most = max(
        0 if part.everything else scale * (part.before + part.after)
        for part, scale in ((reach.encoder, 1), (reach.decoder, module.stride))
    )
    return -(-max(_TILE, 2 * most) // module.stride) * module.stride


def encode(
    module: VQGAN,
    latents: Run,
    codes_of: Run,
    images: Images | ClassMaps,
    *,
    tile: int,
    together: int,
) -> Codes:
    """Images [B,H,W,C] -> codes int32 [B,h,w], both on the host.

    Args:
      module: the tokenizer.
      latents: images -> latents [b,h,w,D], of `together` tiles.
      codes_of: latents [1,h,w,D] of a tile -> codes.
      images: as the tokenizer takes them.
      tile: in pixels.
      together: how many tiles are run at once.

    Raises:
      ValueError: as `encoding_margins`.
    """
    margins = encoding_margins(module, tile)
    images = np.asarray(images)
    grid = (n // module.stride for n in images.shape[1:3])
    codes = np.empty((len(images), *grid), np.int32)
    side, done = tile // module.stride, 0
    for band in bands(
        latents,
        images,
        tile=side,
        margins=margins,
        scale=Scale(given=module.stride, result=1),
        together=together,
    ):
        rows = slice(done, done + band.shape[1])
        codes[:, rows] = _quantized(codes_of, band, side)
        done = rows.stop
    return codes


def decode(
    module: VQGAN, decoder: Run, codes: Codes, *, tile: int, together: int
) -> Iterator[Images | ClassMaps]:
    """Codes [B,h,w] -> bands of the images from the top, [B,rows,w*stride,C].

    Args:
      module: the tokenizer.
      decoder: codes -> what the decoder gives, of `together` tiles.
      codes: as the tokenizer takes them.
      tile: in pixels.
      together: how many tiles are run at once.

    Raises:
      ValueError: as `decoding_margins`.
    """
    found = bands(
        decoder,
        np.asarray(codes),
        tile=tile // module.stride,
        margins=decoding_margins(module, tile),
        scale=Scale(given=1, result=module.stride),
        together=together,
    )
    return (np.asarray(module.decided(band)) for band in found)


def quantize(module: VQGAN, variables: Mapping, latents: jax.Array) -> Codes:
    """[b,h,w,D] -> int32 [b,h,w]: to be jitted."""
    return module.apply(variables, latents, method="quantize").codes


def _margins(what: str, reach: Reach, module: VQGAN, tile: int) -> Margins:
    stride = module.stride
    if reach.everything:
        margins = Margins(0, 0, tile // stride // _FADING)
        least, reason = _FADING * stride, f"a {_FADING}th of a tile fades"
    else:
        margins = Margins(reach.before, reach.after)
        least = (sum(margins) + 1) * stride
        reason = (
            f"in whole codes, a {what} depends on {reach.before * stride} pixels "
            f"before and {reach.after * stride} after its {stride}, which a tile's "
            "edges are short of; larger tiles waste less on that"
        )
    if tile < least:
        raise ValueError(f"tile={tile} is less than {least} pixels: {reason}")
    if tile % stride:
        below = tile - tile % stride
        raise ValueError(
            f"tile={tile} is no multiple of the {stride} pixels of a code; the nearest "
            f"are {below} and {below + stride}"
        )
    return margins


def _quantized(codes_of: Run, latents: np.ndarray, side: int) -> Codes:
    """Latents [B,rows,w,D] of any size -> codes, side x side of them at a time."""
    *shape, dim = latents.shape
    rows = latents.reshape(-1, dim)
    filled = np.zeros((-(-len(rows) // side**2) * side**2, dim), np.float32)
    filled[: len(rows)] = rows
    parts = filled.reshape(-1, 1, side, side, dim)
    codes = np.concatenate([np.ravel(codes_of(part)) for part in parts])
    return codes[: len(rows)].reshape(shape)
