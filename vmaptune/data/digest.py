"""What data are, by their content: a short name that other data do not have."""

from __future__ import annotations

import hashlib

import jax
import numpy as np

from vmaptune.data.splits import Splits

_BYTES = 4 * 2**20  # of each array that are looked at


def digest(splits: Splits) -> str:
    """Names the data of a task: the structure, shapes and types of its parts, and the numbers in them.

    Of a large array, rows that are evenly spread over it, so that a file larger than memory is named in a moment.

    Returns:
        16 hexadecimal digits.
    """
    found = hashlib.sha256(str(jax.tree.structure(splits)).encode())
    for leaf in jax.tree.leaves(splits):
        most = max(1, _BYTES // max(1, leaf[:1].nbytes))
        rows = slice(None) if len(leaf) <= most else np.linspace(0, len(leaf) - 1, most).astype(np.int64)
        found.update(f"{leaf.shape} {leaf.dtype}".encode())
        found.update(np.ascontiguousarray(leaf[rows]).tobytes())
    return found.hexdigest()[:16]
