"""The three parts of a data set, and how they are cut.

Training fits weights, validation selects, test is read once after the choice. A split is any pytree of NumPy arrays whose
leaves share their leading axis: the examples.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from vmaptune.errors import ConfigError

Part = Literal["train", "validation", "test"]
Cut = Literal["auto", "random", "stratified", "grouped", "time"]

_SLICE = 2**22  # numbers that are looked at side by side: arrays may be files larger than memory


class Splits(NamedTuple):
    """Train, validation and test parts: pytrees of arrays with the examples on the leading axis."""

    train: Any
    validation: Any
    test: Any

    def size(self, part: Part) -> int:
        """Number of examples in a part."""
        return len(jax.tree.leaves(getattr(self, part))[0])


def check_splits(splits: Splits, where: str) -> Splits:
    """Raises `ConfigError` if a part is empty, ragged, of another structure than train, or holds a non-finite number."""
    if not isinstance(splits, Splits):
        raise ConfigError(f"{where}: splits must be a vmaptune.Splits; given: {type(splits).__name__}")
    structure: Any = jax.tree.structure(splits.train)
    for part in Splits._fields:
        tree = getattr(splits, part)
        leaves = jax.tree.leaves(tree)
        if not all(isinstance(leaf, np.ndarray | jax.Array) for leaf in leaves):
            raise ConfigError(f"{where}: the {part} split must hold arrays; given: {type(leaves[0]).__name__} among its leaves")
        if jax.tree.structure(tree) != structure:
            raise ConfigError(
                f"{where}: the {part} split is built differently from train: {jax.tree.structure(tree)}, not {structure}"
            )
        sizes = {len(leaf) for leaf in leaves if np.ndim(leaf)}
        if not leaves or any(np.ndim(leaf) == 0 for leaf in leaves) or sizes == {0}:
            raise ConfigError(f"{where}: the {part} split is empty; every split needs at least one example")
        if len(sizes) > 1:
            raise ConfigError(f"{where}: arrays of the {part} split differ in length: {sorted(sizes)}")
        for leaf, reference in zip(leaves, jax.tree.leaves(splits.train), strict=True):
            if np.shape(leaf)[1:] != np.shape(reference)[1:]:
                shapes = f"{np.shape(leaf)[1:]}, in train {np.shape(reference)[1:]}"
                raise ConfigError(f"{where}: an example of the {part} split has shape {shapes}")
            if not _is_finite(np.asarray(leaf)):
                raise ConfigError(f"{where}: the {part} split holds NaN or infinite values; impute or drop them first")
    return splits


def _is_finite(leaf: np.ndarray) -> bool:
    if not np.issubdtype(leaf.dtype, np.floating):
        return True
    rows = max(1, _SLICE // max(1, leaf[0].size))
    return all(np.isfinite(leaf[start : start + rows]).all() for start in range(0, len(leaf), rows))


def split_rows(
    n: int,
    *,
    validation: float,
    test: float,
    seed: int,
    stratify: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    times: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts the rows 0..n-1 into three parts that have none in common.

    Args:
        n: Number of examples.
        validation: Share of all examples for validation; 0: none.
        test: Share of all examples for test; 0: none.
        seed: Seed of the shuffle, apart from a run's seed: every run sees the same split.
        stratify: [n], classes: each part has the same share of every class.
        groups: [n], whose example each is: nobody's are in two parts. Shares are then of groups, not of examples.
        times: [n], ascending, when each example was: the oldest train, the next validate, the newest test. Nothing is
            shuffled, and examples of equal time stay in one part: a cut is moved to the nearest change.

    Returns:
        Rows of train, validation and test, i64[] each, ascending.

    Raises:
        ConfigError: A part would be empty, a class, the groups or the times are too few to be cut, or more than one of
            `stratify`, `groups` and `times` is given.
    """
    if (stratify is not None) + (groups is not None) + (times is not None) > 1:
        raise ConfigError("data: a cut is stratified, grouped or in order of time; given: more than one of these")
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        raise ConfigError(f"data: validation and test must leave something to train on; given: {validation} and {test} of all")
    rest, held = _cut(np.arange(n), test, seed, stratify, groups, times)
    train, chosen = _cut(rest, validation / (1 - test), seed, stratify, groups, times)
    return np.sort(train), np.sort(chosen), np.sort(held)


def _cut(
    rows: np.ndarray,
    share: float,
    seed: int,
    stratify: np.ndarray | None,
    groups: np.ndarray | None,
    times: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Takes a share of the rows away: what is left, and what was taken."""
    from sklearn.model_selection import GroupShuffleSplit, train_test_split

    if share == 0:
        return rows, rows[:0]
    units = len(rows) if groups is None else len(np.unique(groups[rows]))
    count = math.ceil(share * units - 1e-9)  # 0.2 / 0.7 of 70 is 20, whatever floats say
    by = "by class" if stratify is not None else "by group" if groups is not None else "in three"
    if times is not None:
        starts = np.flatnonzero(np.diff(times[rows])) + 1
        if not len(starts):
            raise ConfigError(f"data: cannot cut {len(rows)} examples by time: they have one time, or there is one only")
        at = starts[np.argmin(np.abs(starts - (len(rows) - count)))]
        return rows[:at], rows[at:]
    if stratify is not None:
        known, sizes = np.unique(stratify[rows], return_counts=True)
        few = min(count, len(rows) - count)
        if len(rows) and np.min(sizes) < 2:
            raise ConfigError(
                f"data: cannot cut {len(rows)} examples by class: one has 1 example, too few for all parts; "
                f"leave it out, merge it with another, or give more"
            )
        if 0 < few < len(known):
            raise ConfigError(
                f"data: cannot cut {len(rows)} examples by class: a part of {few} cannot hold all {len(known)} classes; give "
                f"more data, or larger shares"
            )
    try:
        if groups is not None:
            cutter = GroupShuffleSplit(n_splits=1, test_size=count, random_state=seed)
            left, taken = next(cutter.split(rows, groups=groups[rows]))
            return rows[left], rows[taken]
        labels = None if stratify is None else stratify[rows]
        left, taken = train_test_split(rows, test_size=count, random_state=seed, stratify=labels)
    except ValueError as error:
        raise ConfigError(f"data: cannot cut {len(rows)} examples {by}: {error}") from None
    return left, taken


def split_classification(
    inputs: np.ndarray, labels: np.ndarray, *, validation: float = 0.2, test: float = 0.2, seed: int = 0
) -> Splits:
    """Cuts labelled examples into train, validation and test, each with the same share of every class.

    Args:
        inputs: [examples, ...].
        labels: [examples], class indices.
        validation: Fraction of all examples for validation.
        test: Fraction of all examples for test.
        seed: Seed of the shuffle, apart from a run's seed: every run sees the same split.

    Returns:
        Splits of `(inputs, labels)` tuples.

    Raises:
        ConfigError: Lengths differ, or a class has too few examples to be in all three parts.
    """
    inputs, labels = np.asarray(inputs), np.asarray(labels)
    if len(inputs) != len(labels):
        raise ConfigError(f"data: inputs and labels differ in length; given: {len(inputs)} and {len(labels)}")
    parts = split_rows(len(labels), validation=validation, test=test, seed=seed, stratify=labels)
    return Splits(*((inputs[rows], labels[rows]) for rows in parts))
