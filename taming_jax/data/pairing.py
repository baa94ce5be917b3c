"""Pictures and the maps that belong to them, out of directories that are alike.

    pictures Found --with_maps--> {kind: Found}, whose name i is the map of picture i

A map belongs to the picture that has its path below the directory, but for the ending:
`labels/park/7.png` to `photos/park/7.jpg`. Of a list the path counts from the deepest
directory that holds all of its files.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

from taming_jax.data.listing import Found
from taming_jax.maps import KINDS

LOG = logging.getLogger(__name__)

MAPS = KINDS[1:]
_FEW = 3  # names in a message


def with_maps(
    pictures: Found,
    maps: Mapping[str, str | None],
    key: str,
    find: Callable,
    known: Sequence[str] | None = None,
) -> dict[str, Found]:
    """The maps of the pictures, by kind, in the pictures' order.

    Args:
      pictures: of one split.
      maps: where the maps of each kind are, as `listing.find` takes it.
      key: of the configuration, that names them.
      find: takes a path and the key that it came from, and gives a `Found`.
      known: names of all pictures that these maps may belong to; how many belong to
        none is said, and they are left out. None: nothing is said.

    Raises:
      ValueError: for a kind that there is not, one without a place, a picture without
        its map or with two.
    """
    check_kinds(maps, key)
    return {
        kind: _of_pictures(
            pictures, find(place, f"{key}.{kind}"), f"{key}.{kind}", known
        )
        for kind, place in maps.items()
    }


def check_kinds(maps: Mapping[str, str | None], key: str) -> None:
    """Raises ValueError for maps of another kind, or that are named and not given."""
    if not isinstance(maps, Mapping):
        raise ValueError(
            f"{key} is {maps!r}; it says for each kind where its maps are: set "
            f"{key}.segmentation, for example, to a directory"
        )
    for kind, place in maps.items():
        if kind not in MAPS:
            raise ValueError(
                f"{key}.{kind} is not a key; there are maps of {', '.join(MAPS)}: "
                "remove it"
            )
        if place is None:
            raise ValueError(
                f"{key}.{kind} is not set, and the card reads {kind} beside pictures: "
                f"set {key}.{kind} to a directory with a map for each picture, of the "
                "same name but for its ending"
            )


def _of_pictures(pictures: Found, maps: Found, key: str, known) -> Found:
    named = {}
    for name in maps.names:
        if (stem := _stem(name)) in named:
            raise ValueError(
                f"{key} has two maps of one picture, {named[stem]} and {name}: remove "
                "one of them"
            )
        named[stem] = name
    if lone := [name for name in pictures.names if _stem(name) not in named]:
        raise ValueError(
            f"{key} lacks the maps of {len(lone)} of {len(pictures.names)} pictures: "
            f"{_some(lone)}; they are looked for in {maps.root} under the pictures' "
            f"own names, such as {_stem(lone[0])}.png: bring them or leave the "
            "pictures out"
        )
    spare = sorted(named.keys() - {_stem(name) for name in known or ()})
    if known is not None and spare:
        LOG.warning(
            "left out: %d of %d maps in %s, which belong to no picture: %s",
            len(spare), len(named), key, _some([named[stem] for stem in spare]),
        )  # fmt: skip
    return Found(maps.root, [named[_stem(name)] for name in pictures.names], ())


def _stem(name: str) -> str:
    """The path without its ending: only that of a picture, for names have dots."""
    return name.rpartition(".")[0]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_FEW]) + (", ..." if len(names) > _FEW else "")
