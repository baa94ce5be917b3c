"""Pictures larger than a prior's grid, by windows that slide over the codes.

    Windows --places--> steps: which places are drawn together
    --drawing--> stretches of steps --steps--> codes int32 [B,h,w]

Only `steps` is compiled; `places` is numpy alone.
"""

from taming_jax.windows.drawing import sample_windows
from taming_jax.windows.places import Windows

__all__ = ["Windows", "sample_windows"]
