"""How far a tokenizer sees: what one code and one pixel depend on.

    pixels --encoder--> a code      so many pixels before and after its own square
    codes  --decoder--> a square    so many codes before and after its own

A half is walked from what comes out to what goes in. A 3x3 convolution wants one place
more on either side; a level twice as fine has twice as many places, one half as fine
half as many, rounded up. Both directions of the picture are alike.
"""

from typing import NamedTuple

from taming_jax.models.autoencoder import Decoder, Encoder, Pyramid
from taming_jax.models.vqgan import VQGAN

_BLOCK = 2  # convolutions of a residual block
_MIDDLE = 2 * _BLOCK

# What joining two levels wants: before and after at the finer one, around the coarser.
_DOWN = {"conv": (0, 1, 0), "plain": (0, 0, 0), "patch": (0, 0, 0),
         "patch_3x3": (0, 0, 1)}  # fmt: skip
_UP = {"conv": (1, 1, 0), "plain": (0, 0, 0), "patch": (0, 0, 0),
       "patch_3x3": (0, 0, 1)}  # fmt: skip


class Reach(NamedTuple):
    """What is seen of one direction.

    before, after: places beyond those that a result covers, by convolutions alone.
    everything: group normalisation or attention sees the whole input besides.
    """

    before: int
    after: int
    everything: bool


class ReceptiveField(NamedTuple):
    """Of a model's halves; see `Reach`.

    encoder: in pixels, around the stride x stride pixels of a code.
    decoder: in codes, around the code of stride x stride pixels.
    """

    encoder: Reach
    decoder: Reach


def receptive_field(model: VQGAN) -> ReceptiveField:
    """What a model's codes and pixels depend on, from its fields."""
    encoder, decoder = Encoder(**model.encoder), Decoder(**model.decoder)
    return ReceptiveField(_of_encoder(encoder), _of_decoder(decoder))


def _of_encoder(encoder: Encoder) -> Reach:
    before = after = 1 + _MIDDLE  # conv_out
    for level in reversed(range(len(encoder.multipliers))):
        blocks = _BLOCK * _blocks(encoder, level)
        before, after = before + blocks, after + blocks
        if level > 0:
            first, last, around = _DOWN[encoder.resample]
            before, after = 2 * (before + around) + first, 2 * (after + around) + last
    before, after = before + 1, after + 1  # conv_in
    size = encoder.patch_size
    return Reach(size * before, size * after, _sees_everything(encoder))


def _of_decoder(decoder: Decoder) -> Reach:
    places = 0 if decoder.give_pre_end else 1  # conv_out
    for level in range(len(decoder.multipliers)):
        if level > 0:
            finer, _, around = _UP[decoder.resample]
            places = -(-(places + finer) // 2) + around
        places += _BLOCK * _blocks(decoder, level)
    places += _MIDDLE + 1  # conv_in
    return Reach(places, places, _sees_everything(decoder))


def _blocks(half: Pyramid, level: int) -> int:
    return half.blocks if isinstance(half.blocks, int) else half.blocks[level]


def _sees_everything(half: Pyramid) -> bool:
    sides = [
        half.resolution // half.patch_size // 2**level
        for level in range(len(half.multipliers))
        if _blocks(half, level)
    ]
    attends = any(side in half.attention_resolutions for side in sides)
    return half.norm_groups > 0 or half.middle_attention or attends
