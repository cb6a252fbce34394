"""What is kept from one run to the next on a machine: compiled programs and measured plans. Losing it costs time only."""

from __future__ import annotations

import os
from pathlib import Path

import jax

VARIABLE = "VMAPTUNE_CACHE"  # a folder, or "off"
_MOST_BYTES = 2**30


def cache_folder() -> Path | None:
    """The cache folder: `VMAPTUNE_CACHE`, or the user's cache folder; None if it is off or cannot be written."""
    from platformdirs import user_cache_path

    given = os.environ.get(VARIABLE, "")
    if given.lower() in ("off", "0", "none"):
        return None
    folder = Path(given) if given else user_cache_path("vmaptune", appauthor=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def use_compilation_cache() -> None:
    """Lets JAX keep compiled programs in the cache folder, unless this process has a compilation cache already."""
    from jax.experimental.compilation_cache import compilation_cache

    if jax.config.values["jax_compilation_cache_dir"] is not None or (folder := cache_folder()) is None:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder / "jax"))
    jax.config.update("jax_compilation_cache_max_size", _MOST_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    compilation_cache.reset_cache()  # it may have been found switched off by a compilation before this
