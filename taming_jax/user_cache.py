"""Where things lie that can be had again: compiled programs, fetched weights."""

import os
from pathlib import Path


def user_cache() -> Path:
    """~/.cache/taming_jax, or where XDG_CACHE_HOME says; it may not be there yet."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "taming_jax"
