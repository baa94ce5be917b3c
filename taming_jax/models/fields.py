"""Modules that answer a wrong field in words.

A configuration becomes a module by its constructor, `VQGAN(**config.vqgan.model)`,
so the constructor is where a misspelt key must be named, together with the one that
was probably meant. `strict` does that for a module's fields, `choose` for a string
that picks one entry of a closing dict.
"""

import dataclasses
import difflib
import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

# What a field `dtype` may say, of activations and products.
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def strict(module_class):
    """Let a module's constructor refuse unknown and missing fields by ValueError.

    A class decorator for linen modules (whose own TypeError names no remedy).
    """
    inherited = ("parent", "name")  # what linen adds to every module's fields
    fields = [f for f in dataclasses.fields(module_class) if f.name not in inherited]
    allowed = [f.name for f in fields]
    construct = module_class.__init__

    @functools.wraps(construct)
    def checked(self, *arguments, **given):
        for key in given:
            if key not in allowed and key not in inherited:
                raise ValueError(_unknown(module_class.__name__, "field", key, allowed))
        for f in fields[len(arguments) :]:
            if f.name not in given and _is_required(f):
                raise ValueError(
                    f"{module_class.__name__} needs {f.name}= "
                    f"(its fields: {', '.join(allowed)})"
                )
        construct(self, *arguments, **given)

    module_class.__init__ = checked
    return module_class


def choose(owner: str, field: str, name: str, choices: Mapping[str, Any]) -> Any:
    """Return `choices[name]`, or raise a ValueError that lists the choices."""
    if name not in choices:
        raise ValueError(_unknown(owner, field, name, list(choices)))
    return choices[name]


def dtype_named(owner: str, given: Any) -> str:
    """The key of DTYPES for a dtype or its name; ValueError for any other."""
    try:
        name = jnp.dtype(given).name
    except TypeError:  # numpy's, of what is no dtype at all
        name = str(given)
    choose(owner, "dtype", name, DTYPES)
    return name


def _is_required(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _unknown(owner: str, what: str, given: str, allowed: list[str]) -> str:
    near = difflib.get_close_matches(str(given), allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{owner} has no {what} {given!r}{hint} allowed: {', '.join(allowed)}"
