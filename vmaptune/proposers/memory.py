"""How model-based proposers bound what they learn from, so that a proposal costs no more late in a run than early."""

from __future__ import annotations

import numpy as np


def even(length: int, most: int) -> np.ndarray:
    """Indices of at most `most` of `length` things, evenly spread."""
    kept = min(length, most)
    return (np.arange(kept) * length) // max(kept, 1)


def thinned(ranking: np.ndarray, memory: int) -> np.ndarray:
    """At most `memory` (0: all) of the trials, ascending: the best quarter of so many, and an even sample of the others.

    Args:
        ranking: Numbers of the trials, best first.
        memory: How many to keep.
    """
    if not memory or len(ranking) <= memory:
        return np.sort(ranking)
    best = -(-memory // 4)
    others = ranking[best:]
    return np.sort(np.concatenate([ranking[:best], others[even(len(others), memory - best)]]))
