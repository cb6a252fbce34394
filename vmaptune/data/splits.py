"""The three parts of a data set, and how they are cut.

Training fits weights, validation selects, test is read once after the choice. A split is any pytree of NumPy arrays whose
leaves share their leading axis: the examples.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from vmaptune.errors import ConfigError

Part = Literal["train", "validation", "test"]


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
            if np.issubdtype(np.asarray(leaf).dtype, np.floating) and not np.isfinite(leaf).all():
                raise ConfigError(f"{where}: the {part} split holds NaN or infinite values; impute or drop them first")
    return splits


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
    from sklearn.model_selection import train_test_split

    inputs, labels = np.asarray(inputs), np.asarray(labels)
    if len(inputs) != len(labels):
        raise ConfigError(f"data: inputs and labels differ in length; given: {len(inputs)} and {len(labels)}")
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise ConfigError(f"data: validation and test must leave something to train on; given: {validation} and {test} of all")
    try:
        rest, held = train_test_split(np.arange(len(labels)), test_size=test, random_state=seed, stratify=labels)
        train, chosen = train_test_split(rest, test_size=validation / (1 - test), random_state=seed, stratify=labels[rest])
    except ValueError as error:
        raise ConfigError(f"data: cannot cut {len(labels)} examples by class: {error}") from None
    parts = [(inputs[np.sort(rows)], labels[np.sort(rows)]) for rows in (train, chosen, held)]
    return Splits(*parts)
