"""From `config.prior.condition` to conditions, and from what a run remembers of them.

    "depth" | {"name": "boxes", "objects": 4} | ["label", "depth"]
        --requested--> ((name, options), ...) --conditions_for--> {name: Condition}
        --as_facts--> config.json --from_facts--> the same again

A new kind is a class as `kinds` describes it, and its line in CONDITIONS.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from taming_jax.conditions.direct import Coordinates, LowResolution
from taming_jax.conditions.direct_maps import DirectMap
from taming_jax.conditions.kinds import CodedMap, Data, Label
from taming_jax.conditions.objects import Boxes, Keypoints

Condition = (
    Label | CodedMap | DirectMap | LowResolution | Coordinates | Boxes | Keypoints
)

CONDITIONS: dict[str, type[Condition]] = {
    "label": Label,
    "segmentation": CodedMap,
    "depth": CodedMap,
    "edges": CodedMap,
    "direct_segmentation": DirectMap,
    "direct_depth": DirectMap,
    "direct_edges": DirectMap,
    "low_resolution": LowResolution,
    "coordinates": Coordinates,
    "boxes": Boxes,
    "points": Boxes,
    "keypoints": Keypoints,
}
# Told nothing; or tokens as they are, of which training knows nothing.
UNREAD = ("none", "tokens")


def requested(condition: Any) -> tuple[tuple[str, dict[str, Any]], ...]:
    """`config.prior.condition` -> names and their options; () for "none" or "tokens".

    Raises:
      ValueError: for a name that there is not, twice the same one, two that need a
        tokenizer, an option that a kind does not have, or a value that it cannot have.
    """
    several = condition if isinstance(condition, list | tuple) else [condition]
    made = []
    for each in several:
        options = dict(each) if isinstance(each, Mapping) else {"name": each}
        name = options.pop("name", None)
        if name in UNREAD and len(several) == 1 and not options:
            return ()
        if name not in CONDITIONS:
            raise ValueError(
                f"condition={condition!r} is not allowed: it must be one of "
                f"{', '.join((*CONDITIONS, *UNREAD))}, one with options as "
                "{'name': ..., ...}, or a list of some"
            )
        known = CONDITIONS[name].options
        if odd := [key for key in options if key not in known]:
            raise ValueError(
                f"condition {name!r} has no option {odd[0]!r}: it has "
                f"{', '.join(known) or 'none'}"
            )
        for option, value in options.items():
            _check_option(name, option, value)
        made.append((name, options))
    names = [name for name, _ in made]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"condition={condition!r}: name at least one, each once")
    if len(coded(names)) > 1:
        raise ValueError(
            f"condition={condition!r}: only one of {', '.join(coded(CONDITIONS))}, "
            "since there is one tokenizer of the condition"
        )
    return tuple(made)


def _check_option(name: str, option: str, value: Any) -> None:
    """Raises ValueError for what is neither a count nor, of a switch, True or False."""
    types = {field.name: field.type for field in dataclasses.fields(CONDITIONS[name])}
    wanted = types[option]
    if type(value) is not wanted or (wanted is int and value < 1):
        what = "True or False" if wanted is bool else "a whole number of at least 1"
        raise ValueError(f"condition {name!r} has {option}={value!r}: give {what}")


def coded(names) -> list[str]:
    """Those of the names whose kinds have a tokenizer of their own."""
    return [name for name in names if CONDITIONS.get(name) is CodedMap]


def conditions_for(condition: Any, data: Data) -> dict[str, Condition]:
    """The conditions of a recipe, by name, for such data; ValueError as their `of`."""
    return {
        name: CONDITIONS[name].of(data, name, **options)
        for name, options in requested(condition)
    }


def check_classes(conditions: Mapping[str, Condition], batch: Mapping) -> None:
    """Raises ValueError for class maps of a batch with classes that are not told.

    What is compiled would take one for none, or for what another condition says.

    batch: examples with their "index"; without "segmentation" there is nothing wrong.
    """
    maps = batch.get("segmentation")
    for name in ("segmentation", "direct_segmentation"):
        if maps is None or name not in conditions:
            continue
        known = conditions[name].channels
        if (odd := (maps < 0) | (maps >= known)).any():
            pictures = batch["index"][odd.any((1, 2))].tolist()
            raise ValueError(
                f"class maps reach from {maps.min()} to {maps.max()} (pictures "
                f"{pictures}); the prior is told classes 0 to {known - 1} by {name}: "
                "mend the maps, or train it (and its tokenizer of maps) for as many"
            )


def as_facts(conditions: Mapping[str, Condition]) -> list[dict[str, Any]]:
    """What config.json says of them, so that they can be had again without the data."""
    facts = []
    for name, condition in conditions.items():
        fields = [field for field in dataclasses.fields(condition) if field.compare]
        values = {field.name: getattr(condition, field.name) for field in fields}
        # A run whose condition has never heard of such a switch goes on without it.
        for field in fields:
            if field.metadata.get("said") == "where set" and not values[field.name]:
                values.pop(field.name)
        facts.append({"name": name, **values})
    return facts


def from_facts(facts: Sequence[Mapping[str, Any]], encode=None) -> dict[str, Condition]:
    """The inverse of `as_facts`; `encode` is that of the condition's tokenizer."""
    made = {}
    for fact in facts:
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fact.items()}
        name = fields.pop("name")
        if coded([name]):
            fields["encode"] = encode
        made[name] = CONDITIONS[name](**fields)
    return made
