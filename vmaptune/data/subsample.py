"""Less data, for a coarse first search: some of the classes, and a share of the training examples.

Labels stay as they are, so a model has the same outputs with some of the classes as with all of them, and what was found can
be gone on with on all the data without another shape. Validation and test keep every example of the classes: a small
training set makes training cheaper, a small validation set only makes its score noisier.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from vmaptune.data.splits import Part, Splits
from vmaptune.errors import ConfigError


def subsampled(splits: Splits, *, fraction: float, classes: Sequence[int], seed: int, where: str = "data") -> Splits:
    """Keeps the examples of some classes in all parts, and a random share of those for training.

    The share is the same of every class (rounded, at least one example), where examples have integer labels: where a part is
    a pair `(inputs, i32[examples])`. With one seed, a smaller share is part of a larger one, and a class gives the same
    examples whichever other classes are kept.

    Args:
        splits: All the data.
        fraction: Of the training examples, above 0 and at most 1.
        classes: Labels to keep; none: all.
        seed: Of the draw.
        where: What to call the two in an error.

    Returns:
        Splits of NumPy arrays; examples in their old order, labels unchanged. The same object if nothing is left out.

    Raises:
        ConfigError: The fraction is out of its range; classes are asked for that a part does not have, or of examples without
            integer labels.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"{where}.fraction: expected float > 0 and <= 1; given: {fraction!r}")
    if classes:
        splits = Splits(*(_of_classes(splits, part, classes, where) for part in Splits._fields))  # type: ignore[arg-type]
    if fraction == 1:
        return splits
    labels = labels_of(splits.train)
    return splits._replace(train=_take(splits.train, _drawn(splits, labels, fraction, seed)))


def _of_classes(splits: Splits, part: Part, classes: Sequence[int], where: str) -> Any:
    labels = labels_of(getattr(splits, part))
    if labels is None:
        expected = "integer labels: parts that are pairs (inputs, labels)"
        raise ConfigError(f"{where}.classes: the task's data have no {expected}; given: {list(classes)}")
    if len({*classes}) < 2:
        raise ConfigError(f"{where}.classes: expected two classes or more, to tell apart; given: {list(classes)}")
    known = np.unique(labels)
    if missing := sorted({*classes} - {*known.tolist()}):
        there = f"known: {', '.join(map(str, known[:20]))}{', ...' if len(known) > 20 else ''}"
        raise ConfigError(f"{where}.classes: the {part} split has no example of class {missing[0]}; {there}")
    return _take(getattr(splits, part), np.flatnonzero(np.isin(labels, list(classes))))


def _drawn(splits: Splits, labels: np.ndarray | None, fraction: float, seed: int) -> np.ndarray:
    """Rows of the training split, ascending."""
    size = splits.size("train")
    groups = [np.arange(size)] if labels is None else [np.flatnonzero(labels == label) for label in np.unique(labels)]
    taken = []
    for rows in groups:
        # A stream of a class's own, so that what it gives does not depend on which others are kept.
        label = 0 if labels is None else int(labels[rows[0]]) % 2**32
        order = np.random.default_rng((seed, label)).permutation(len(rows))
        taken.append(rows[order[: max(1, math.floor(fraction * len(rows) + 0.5))]])
    return np.sort(np.concatenate(taken))


def labels_of(part: Any) -> np.ndarray | None:
    """The labels i32[examples] of a part, or None if it has none."""
    if not isinstance(part, tuple | list) or len(part) != 2:
        return None
    leaves = jax.tree.leaves(part[1])
    labels = np.asarray(leaves[0]) if len(leaves) == 1 else np.zeros(0)
    return labels if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer) else None


def _take(part: Any, rows: np.ndarray) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], part)
