"""What a trained prior is told by: its conditions, and a map's tokenizer.

    config.json --condition_tokenizer, conditions_of--> {name: Condition}
    what a published prior is told --tokens_told--> its tokens, a map's codes

Whoever took the tokenizer's place since is found by the fingerprint.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from taming_jax import stored
from taming_jax.conditions.coordinates import resized
from taming_jax.conditions.kinds import Label
from taming_jax.conditions.table import Condition, from_facts
from taming_jax.pretrained import requests, tiled
from taming_jax.pretrained.vqgan import PretrainedVQGAN, load_vqgan
from taming_jax.training.recipe import PriorRecipe
from taming_jax.units import Codes

Sides = tuple[int, int]


def conditions_of(
    class_names: Sequence[str], told: Mapping[str, Any], vqgan: PretrainedVQGAN | None
) -> dict[str, Condition]:
    """The conditions of a run or of a published prior, by name."""
    if "told" in told:
        encode = None if vqgan is None else lambda _, maps: encoded(vqgan, maps)
        return from_facts(told["told"], encode)
    if not class_names:
        return {}
    return {"label": Label(tuple(class_names), told.get("null_label", False))}


def condition_tokenizer(path, recipe: PriorRecipe, told: Mapping[str, Any], *how):
    """The tokenizer of a condition that is a map; None where there is none.

    None, too, where that of a published prior is gone: it takes codes as well, and
    `is_map` says what is missing.

    Raises:
      ValueError: for one that took its place, and if that of a run is gone.
    """
    stage = told.get("tokenizer")
    if stage is None:
        return None
    directory = stored.find(path, "prior")
    place = recipe.condition_tokenizer or directory.parent
    if not stored.is_there(place, stage):
        if "told" not in told:
            return None
        raise ValueError(
            f"{directory} is told {told['kind']} by the codes of a tokenizer, and in "
            f"{place} there is no {stage}: bring it back, or let prior.condition_"
            "tokenizer in its config.json say where it is"
        )
    vqgan = load_vqgan(place, *how, stage=stage)
    if told.get("fingerprint"):
        check_tokenizer(directory, told["fingerprint"], vqgan)
    return vqgan


def encoded(vqgan: PretrainedVQGAN, maps) -> Codes:
    """Codes [B,h,w] of maps, as a whole; by tiles where they are too large for that."""
    return vqgan.encode(maps, tile=tiled.tile_for(vqgan.module, maps.shape))


def grid_told(prior, shape: Sides) -> Sides:
    """Of how many codes is what a published prior is told of a picture.

    Maps that were always reduced to the same size are so for any picture; of others
    there is as much more as the picture is larger.
    """
    side = math.isqrt(prior.module.prefix)
    if prior.about.get("side", True):
        return side, side
    return tuple(
        max(1, side * size // many)
        for size, many in zip(shape, prior.grid, strict=True)
    )


def codes_told(prior) -> range:
    """The tokens by which a published prior can be told something."""
    vqgan = prior.condition_vqgan
    codes = prior.about.get("steps") if vqgan is None else vqgan.codebook_size
    return range(min(codes or prior.module.vocab_size, prior.module.vocab_size))


def tokens_told(given, prior, shape: Sides) -> np.ndarray:
    """What a published prior is told of a picture of `shape` codes: int32 [B, n].

    n is as in its training, or what such a picture asks for: image tokens stand behind
    these, and with others they would all stand elsewhere.

    Raises:
      ValueError: for other tokens, or another number of them.
    """
    grid, many = grid_told(prior, shape), prior.module.prefix
    given = codes_of_map(given, prior, grid, shape)
    tokens = requests.tokens(given, prior.told, codes_told(prior))
    side = math.isqrt(many)
    grids = {(side, side), grid} if side**2 == many else set()
    counts = {many, *map(math.prod, grids)}
    sides = np.shape(given)[1:]
    if tokens.shape[1] not in counts or (len(sides) > 1 and sides not in grids):
        known = [f"{count} tokens" for count in sorted(counts)]
        known += [f"{rows} x {columns} codes" for rows, columns in sorted(grids)]
        raise ValueError(
            f"a picture of {shape[0]} x {shape[1]} codes is told {prior.told} by "
            f"{' or '.join(known)}; the condition is {np.shape(given)}"
        )
    return tokens


def is_map(given, prior, grid: Sides, shape: Sides) -> bool:
    """Whether that is a map, which a published prior's tokenizer reads; else codes.

    Args:
      given: what people give.
      prior: a `PretrainedPrior` whose condition is tokens.
      grid: how many codes there are of the map.
      shape: of the picture, in codes.

    Raises:
      ValueError: for a map of other proportions than the picture, or with fewer pixels
        than are read, and where the tokenizer is missing.
    """
    asked, vqgan = np.asarray(given), prior.condition_vqgan
    if vqgan is None:
        codes = asked.dtype.kind in "iu" and asked.shape[1:] in (grid, shape)
        if asked.ndim > 2 and not codes and (reason := missing(prior)):
            raise ValueError(
                f"{reason}, or give codes int32 [B, {grid[0]}, {grid[1]}]; the "
                f"condition is {asked.dtype} {asked.shape}"
            )
        return False
    if asked.ndim != (3 if vqgan.module.classes else 4):
        return False
    told = asked.shape[1:3]
    if vqgan.module.classes and vqgan.stride > 1 and told in (grid, shape):
        return False
    least = tuple(vqgan.stride * side for side in grid)
    if told[0] * shape[1] != told[1] * shape[0] or any(map(int.__lt__, told, least)):
        raise ValueError(
            f"a picture of {shape[0]} x {shape[1]} codes is told {prior.told} by a map "
            f"in these proportions, of at least {least[0]} x {least[1]} pixels; the "
            f"condition is {asked.dtype} {asked.shape}"
        )
    return True


def codes_of_map(given, prior, grid: Sides, shape: Sides) -> Codes | Any:
    """A map that a published prior is told -> codes [B,h,w]; else as it is given.

    Reduced to the nearest pixels where `grid`, how many codes it is told, asks for it.
    Arguments and errors are those of `is_map`.
    """
    if not is_map(given, prior, grid, shape):
        return given
    vqgan = prior.condition_vqgan
    sides = tuple(vqgan.stride * side for side in grid)
    return encoded(vqgan, resized(np.asarray(given), *sides))


def missing(prior) -> str:
    """What to say where a published prior's tokenizer of maps is gone; else ""."""
    stage = prior.about.get("tokenizer")
    if stage is None or prior.condition_vqgan is not None:
        return ""
    return (
        f"the tokenizer of the {prior.told} that this prior is told is missing: there "
        f"is no {stage} beside {prior.directory}; convert the whole checkpoint again"
    )


def check_tokenizer(directory, fingerprint: str, vqgan: PretrainedVQGAN) -> None:
    """Raises ValueError for another tokenizer than the one it was trained with."""
    if vqgan.fingerprint != fingerprint:
        raise ValueError(
            f"{directory} was trained on codes of another tokenizer than the one in "
            f"{vqgan.directory} (fingerprint {fingerprint[:12]}, there "
            f"{vqgan.fingerprint[:12]}): was that trained again since? Bring the "
            "former back, or train the prior again in another --workdir"
        )
