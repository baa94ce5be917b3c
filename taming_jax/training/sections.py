"""From a section of a recipe card to dataclasses, whose fields are its keys.

card --plain--> dict --sorted_by_field--> one dict for each class --construct--> object

A key that no class knows, or one that is missing, ends it in one line.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any


def plain(config: Any) -> Any:
    """A ConfigDict (or what lies in one) as plain dicts, lists and numbers."""
    if isinstance(config, Mapping) or hasattr(config, "items"):
        return {key: plain(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [plain(value) for value in config]
    return config


def sorted_by_field(section: dict, *classes: type) -> list[dict]:
    """Each key of the section to the class that has such a field."""
    names = [{field.name for field in dataclasses.fields(cls)} for cls in classes]
    for key in section:
        if not any(key in fields for fields in names):
            raise ValueError(_unknown(key, set().union(*names)))
    return [{k: v for k, v in section.items() if k in fields} for fields in names]


def construct(cls: type, **fields):
    """`cls(**fields)`; raises ValueError for a key it has not or cannot do without."""
    known = {field.name: field for field in dataclasses.fields(cls)}
    for key in fields:
        if key not in known:
            raise ValueError(_unknown(key, known))
    for key, field in known.items():
        if field.default is dataclasses.MISSING and key not in fields:
            raise ValueError(f"{cls.__name__.lower()}: {key} is missing, set it")
    return cls(**fields)


def as_step(start: int | float, steps: int) -> int:
    """A start that is a step, or a share of so many steps, as a step."""
    if isinstance(start, float) and not start.is_integer():
        return round(start * steps)
    return int(start)


def require(section, name: str, holds: bool, allowed) -> None:
    """Raises ValueError about the section's field unless it holds what is allowed."""
    if not holds:
        if isinstance(allowed, tuple):
            allowed = f"one of {', '.join(allowed)}"
        given = getattr(section, name)
        raise ValueError(f"{name}={given!r} is not allowed: it must be {allowed}")


def _unknown(key: str, known) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {sorted(known)}"
    return f"unknown key {key!r} in the recipe: {hint}"
