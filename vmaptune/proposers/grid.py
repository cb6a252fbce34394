"""Grid search: every combination of the values of all axes."""

from __future__ import annotations

import math

import numpy as np

from vmaptune.errors import ConfigError
from vmaptune.proposers.contract import Proposer, Told, generator
from vmaptune.settings import Natural
from vmaptune.space import Axis, Space

_MOST = 1_000_000  # combinations: more is a mistake, not a search


def grid(*, points: Natural = 0) -> Proposer:
    """Every combination, once each, in an order shuffled by the seed: a run that ends early has looked everywhere a little.

    An axis of choices and an integer axis take all their values; a continuous one takes `points`, evenly spread on its scale
    with both ends included (one point: its middle). After the last combination the order begins anew.

    Args:
        points: Points of each continuous axis; 0: there must be no such axis.
    """

    def size(space: Space) -> int:
        lengths = [_length(name, axis, points) for name, axis in space.axes.items()]
        if (combinations := math.prod(lengths)) > _MOST:
            product = " x ".join(f"{length:,}" for length in lengths)
            raise ConfigError(
                f"search: a grid of {product} = {combinations:,} combinations is beyond {_MOST:,}; "
                "give fewer points, or axes of choices, or search with sobol"
            )
        return combinations

    def propose(space: Space, told: Told, count: int, seed: int) -> np.ndarray:
        order = generator(seed, 0).permutation(size(space))
        first = len(told.value)
        index = order[np.arange(first, first + count) % len(order)]
        genotype = np.empty((count, space.dimension), np.float32)
        for d, (name, axis) in enumerate(space.axes.items()):
            index, place = np.divmod(index, _length(name, axis, points))
            genotype[:, d] = _genes(axis, points)[place]
        return genotype

    return Proposer(propose, adaptive=False, size=size)


def _length(name: str, axis: Axis, points: int) -> int:
    """How many points an axis has.

    Raises:
        ConfigError: It is continuous, and nobody said how many.
    """
    if axis.choices:
        return len(axis.choices)
    if axis.integer:
        return int(axis.high - axis.low) + 1
    if not points:
        raise ConfigError(f"search.points: grid needs points for the continuous axis {name!r}; given: 0")
    return points


def _genes(axis: Axis, points: int) -> np.ndarray:
    """f32[points of the axis]: its genes, ascending; of a discrete axis, one that decodes to each value."""
    if axis.choices:
        return ((np.arange(len(axis.choices)) + 0.5) / len(axis.choices)).astype(np.float32)
    if not axis.integer:
        return np.linspace(0, 1, points, dtype=np.float32) if points > 1 else np.array([0.5], np.float32)
    low, high = axis.interval
    values = np.arange(axis.low, axis.high + 1)
    return (((np.log(values) if axis.scale == "log" else values) - low) / (high - low)).astype(np.float32)
