"""What every proposer takes and returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vmaptune.space import Space


class Told(NamedTuple):
    """What is known of the trials proposed so far, in the order of their numbers.

    Attributes:
        genotype: f32[T, D] in [0, 1].
        value: f64[T], the newest fitness of each, higher is better; NaN where there is none: it failed, or was not measured
            yet.
        step: i64[T], the steps it was measured after; 0: not measured yet.
        ended: bool[T], it is no longer trained: finished, stopped or failed.
        horizon: Steps of a full trial.
    """

    genotype: np.ndarray
    value: np.ndarray
    step: np.ndarray
    ended: np.ndarray
    horizon: int


Propose = Callable[[Space, Told, int, int], np.ndarray]
"""`propose(space, told, count, seed) -> f32[count, D]`: the genotypes of the next trials. See `Proposer`."""


class Proposer(NamedTuple):
    """Where trials begin: a function of what is known, without a state of its own.

    So a run that is resumed proposes what it would have proposed, and nothing but the trials themselves need be kept.

    Attributes:
        propose: `(space, told, count, seed) -> f32[count, D]` in [0, 1]: genotypes of trials T..T+count-1. Draws from
            `generator(seed, trial number)` and nothing else.
        adaptive: False: proposals depend on no result, so all can be made at once.
        size: `space -> int`, the number of different proposals there are, where they are finite; raises `ConfigError` where
            the space does not suit the method. 0: no end.
    """

    propose: Propose
    adaptive: bool = True
    size: Callable[[Space], int] = lambda space: 0


def generator(seed: int, number: int) -> np.random.Generator:
    """The source of randomness of the proposals that begin with trial `number`."""
    return np.random.default_rng([seed, number])


def costs(value: np.ndarray) -> np.ndarray:
    """f64 of the same shape, to be minimised: minus the fitness, and for those without one a little more than the worst.

    At least one must have a fitness, that is, a finite one.
    """
    sound = np.isfinite(value)
    worst = -np.min(value[sound])
    return np.where(sound, -value, worst + max(1.0, abs(worst)))
