"""Which examples a step sees, as indices made outside the training scan.

Data lies on the device; a batch is a row of indices into it. Each epoch is its own permutation of the examples, cut into
whole batches (the remainder, different every epoch, is left out), so no example is seen twice within an epoch. The order
is a pure function of a key and a step: nothing is stored, and any step can be reached without the ones before it.

Rare classes can be shown more often: an epoch is then of an oversampled split, in which every class has as many examples as
the largest (its own, again and again), and a batch may be asked to hold as many of each.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.data.splits import Splits
from vmaptune.data.subsample import labels_of
from vmaptune.errors import ConfigError
from vmaptune.hashing import permuted

Order = Literal["shared", "independent"]
Balance = Literal["none", "oversample", "batch"]


class Batches(NamedTuple):
    """How a training split is cut into batches. Made by `make_batches`, which checks it.

    Attributes:
        size: B, examples a step.
        order: shared: all members see the same batches; independent: each trial shuffles for itself.
        examples: Of an epoch.
        classes: C, if every batch holds as many examples of each class; else 0.
        rows: i32[examples], which example of the split each one of an epoch is, class after class; None: they are the same.
        streamed: The data of a segment are given in the order of its batches, not the whole split.
    """

    size: int
    order: Order
    examples: int
    classes: int = 0
    rows: np.ndarray | None = None
    streamed: bool = False

    def indices(self, key: jax.Array, start: jax.Array | int, steps: int, rows: Any) -> jax.Array:
        """The examples of consecutive batches: i32[steps, B].

        Args:
            key: Key of the order.
            start: i32[], number of the first step. May be traced.
            steps: How many.
            rows: `rows` of this object, on the device: an argument, so that it is not compiled in.
        """
        shape = {"steps": steps, "batch_size": self.size}
        if self.rows is None:
            return batch_indices(key, start, examples=self.examples, **shape)
        if not self.classes:
            return rows[batch_indices(key, start, examples=self.examples, **shape)]
        return rows[_of_each_class(key, start, classes=self.classes, each=self.examples // self.classes, **shape)]


def make_batches(splits: Splits, *, size: int, order: Order = "shared", balance: Balance = "none", seed: int = 0) -> Batches:
    """Decides how a training split is cut into batches.

    Args:
        splits: The data.
        size: B, examples a step.
        order: See `Batches`.
        balance: none: examples as they are. oversample: those of rarer classes come several times an epoch. batch: that, and
            each batch holds as many of each class (or one fewer, in turn, where B is no multiple of their number).
        seed: Of the draw of those that come once more than others of their class.

    Raises:
        ConfigError: A batch larger than an epoch, or balance among examples that have no integer labels.
    """
    examples = splits.size("train")
    if not 1 <= size <= examples:
        raise ConfigError(f"batch.size: must be between 1 and the {examples} training examples; given: {size}")
    if balance == "none":
        return Batches(size, order, examples)
    if (labels := labels_of(splits.train)) is None:
        raise ConfigError(f"batch.balance: the task's data have no integer labels to balance; given: {balance!r}")
    rows = _oversampled(labels, seed)
    if balance == "oversample":
        return Batches(size, order, len(rows), rows=rows)
    classes = len(np.unique(labels))
    if size < classes or math.ceil(size / classes) > len(rows) // classes:
        most = len(rows)
        raise ConfigError(f"batch.size: with batch.balance, between the {classes} classes and {most} examples; given: {size}")
    return Batches(size, order, len(rows), classes, rows)


def batch_indices(key: jax.Array, start: jax.Array | int, *, steps: int, batch_size: int, examples: int) -> jax.Array:
    """The examples of `steps` consecutive batches.

    Args:
        key: Key of the order; epoch e is shuffled with `fold_in(key, e)`.
        start: i32[], number of the first step. May be traced.
        steps: K, how many batches.
        batch_size: B, at most `examples`.
        examples: Number of examples in the split.

    Returns:
        i32[K, B].
    """
    per_epoch = examples // batch_size
    step = start + jnp.arange(steps, dtype=jnp.int32)
    keys = jax.vmap(lambda epoch: jax.random.fold_in(key, epoch))(step // per_epoch)
    position = (step % per_epoch * batch_size)[:, None] + jnp.arange(batch_size, dtype=jnp.int32)[None]
    return permuted(position.astype(jnp.uint32), _words(keys[:, None]), examples).astype(jnp.int32)


def _of_each_class(
    key: jax.Array, start: jax.Array | int, *, steps: int, batch_size: int, classes: int, each: int
) -> jax.Array:
    """As `batch_indices` of `classes` times `each` examples, class after class; every class is shuffled for itself."""
    quota = math.ceil(batch_size / classes)
    per_epoch = each // quota
    step = start + jnp.arange(steps, dtype=jnp.int32)
    label = (jnp.arange(classes, dtype=jnp.int32)[None] + step[:, None]) % classes  # the last ones may have one fewer: in turn
    keys = jax.vmap(lambda epoch: jax.random.fold_in(key, epoch))(step // per_epoch)
    keys = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))(keys, label)[:, None]
    position = (step % per_epoch * quota)[:, None, None] + jnp.arange(quota, dtype=jnp.int32)[None, :, None]
    position = jnp.broadcast_to(position, (steps, quota, classes))
    found = permuted(position.astype(jnp.uint32), _words(keys), each).astype(jnp.int32) + (label * each)[:, None]
    return found.reshape(steps, quota * classes)[:, :batch_size]


def _words(keys: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(jnp.moveaxis(jax.random.key_data(keys), -1, 0))


def _oversampled(labels: np.ndarray, seed: int) -> np.ndarray:
    """i32[classes * largest], rows of the split, class after class: each of a class as often as any other, or once more."""
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    largest = max(len(rows) for rows in groups)
    whole = [np.random.default_rng((seed, i)).permutation(rows) for i, rows in enumerate(groups)]
    return np.concatenate([np.resize(rows, largest) for rows in whole]).astype(np.int32)
