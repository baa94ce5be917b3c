"""Weights that come from elsewhere, and the names they go by there.

from taming_jax.interop import convert_checkpoint, convert_back
"""

import importlib

_HOMES = {
    "convert_checkpoint": "taming_jax.interop.convert",
    "convert_back": "taming_jax.interop.back",
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
