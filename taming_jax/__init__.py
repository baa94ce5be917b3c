"""VQGAN tokenizers and autoregressive priors over their codes, in JAX.

    import taming_jax

    vqgan = taming_jax.load_vqgan("runs/shapes")
    codes = vqgan.encode(images)  # float32 [B,H,W,3] in [-1,1] -> int32 [B,h,w]
    images = vqgan.decode(codes)

Importing the package imports nothing else: what is named here is fetched on its
first use, and never needs TensorFlow.
"""

import importlib

__version__ = "0.1.0.dev0"

_HOMES = {
    "load_vqgan": "taming_jax.pretrained.vqgan",
    "load_prior": "taming_jax.pretrained.loading",
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
