"""What a trained prior is told by: its conditions, and a map's tokenizer.

    config.json --condition_tokenizer, conditions_of--> {name: Condition}
    a published prior's map --codes_of_map--> codes

Whoever took the tokenizer's place since is found by the fingerprint.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from taming_jax import stored
from taming_jax.conditions.coordinates import resized
from taming_jax.conditions.kinds import Label
from taming_jax.conditions.table import Condition, from_facts
from taming_jax.pretrained import tiled
from taming_jax.pretrained.vqgan import PretrainedVQGAN, load_vqgan
from taming_jax.training.recipe import PriorRecipe
from taming_jax.units import Codes


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

    Of a published prior, which does not remember it, the one that came along.
    """
    if told.get("tokenizer") is None:
        return None
    directory = stored.find(path, "prior")
    place = recipe.condition_tokenizer or directory.parent
    if "fingerprint" not in told and not stored.is_there(place, told["tokenizer"]):
        return None
    vqgan = load_vqgan(place, *how, stage=told["tokenizer"])
    if "fingerprint" in told:
        check_tokenizer(directory, told["fingerprint"], vqgan)
    return vqgan


def encoded(vqgan: PretrainedVQGAN, maps) -> Codes:
    """Codes [B,h,w] of maps, as a whole; by tiles where they are too large for that."""
    return vqgan.encode(maps, tile=tiled.tile_for(vqgan.module, maps.shape))


def is_map(given, vqgan: PretrainedVQGAN | None, grid: tuple[int, int]) -> bool:
    """Whether that is a map, which a published prior's tokenizer reads.

    Else it is codes already, of which `grid` says how many there would be.
    """
    asked = np.asarray(given)
    if vqgan is None or asked.ndim != (3 if vqgan.module.classes else 4):
        return False
    largest = vqgan.stride * max(grid)
    return not vqgan.module.classes or max(asked.shape[1:]) >= largest


def codes_of_map(
    given, vqgan: PretrainedVQGAN | None, grid: tuple[int, int]
) -> Codes | Any:
    """A map that a published prior is told -> codes [B,h,w]; else as it is given.

    Reduced to the nearest pixels where `grid`, how many codes it is told, asks for it.
    """
    if not is_map(given, vqgan, grid):
        return given
    sides = tuple(vqgan.stride * side for side in grid)
    return encoded(vqgan, resized(np.asarray(given), *sides))


def check_tokenizer(directory, fingerprint: str, vqgan: PretrainedVQGAN) -> None:
    """Raises ValueError for another tokenizer than the one it was trained with."""
    if vqgan.fingerprint != fingerprint:
        raise ValueError(
            f"{directory} was trained on codes of another tokenizer than the one in "
            f"{vqgan.directory} (fingerprint {fingerprint[:12]}, there "
            f"{vqgan.fingerprint[:12]}): was that trained again since? Bring the "
            "former back, or train the prior again in another --workdir"
        )
