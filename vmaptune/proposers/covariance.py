"""Covariance matrix adaptation, around the package `cmaes`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vmaptune.errors import ConfigError
from vmaptune.proposers.contract import Proposer, Told, costs, generator
from vmaptune.settings import Natural, Positive
from vmaptune.space import Space

_LEAST = 4  # trials in a batch: with fewer, no covariance is learned


def cmaes(*, size: Natural = 0, sigma: Positive = 1 / 6) -> Proposer:
    """Covariance matrix adaptation: draws from a Gaussian that each batch of trials moves, widens and turns.

    A batch is `size` trials in the order of their numbers. Once all of it has ended, its ranks update the Gaussian, batch
    after batch; every trial is drawn from the newest. Failed trials rank last, and a batch of nothing else is passed over.
    Draws outside of the cube are drawn again. A search that has converged begins anew, around a uniform draw. Axes of choices
    and integer axes are searched by their genes, as if they were continuous.

    Args:
        size: Trials in a batch; 0: 4 + floor(3 ln D). With more slots than that, as many as there are slots: trials drawn
            before the Gaussian has moved teach it little.
        sigma: Its first standard deviation, as a fraction of each axis; it begins at the middle of the cube.

    References:
        Hansen, The CMA Evolution Strategy: A Tutorial, https://arxiv.org/abs/1604.00772
    """
    if 0 < size < _LEAST:
        raise ConfigError(f"search.size: expected 0 or a batch of {_LEAST} trials or more; given: {size}")

    def propose(space: Space, told: Told, count: int, seed: int) -> np.ndarray:
        dimension = space.dimension
        genotype = np.zeros((count, dimension), np.float32)
        if not dimension:
            return genotype
        batch = size or 4 + math.floor(3 * math.log(dimension))
        gaussian = _gaussian(np.full(dimension, 0.5), sigma, batch)
        for first in range(0, len(told.value) - batch + 1, batch):
            own = slice(first, first + batch)
            if not told.ended[own].all():
                break
            if not np.isfinite(told.value[own]).any():
                continue
            gaussian.tell(list(zip(told.genotype[own].astype(float), costs(told.value[own]), strict=True)))
            with np.errstate(divide="ignore", invalid="ignore"):  # of a covariance without an inverse, for one
                converged = gaussian.should_stop()
            if converged:
                gaussian = _gaussian(generator(seed, first).random(dimension), sigma, batch)
        for i in range(count):
            gaussian.reseed_rng(int(generator(seed, len(told.value) + i).integers(2**32)))
            genotype[i] = gaussian.ask()
        return genotype

    return Proposer(propose)


def _gaussian(mean: np.ndarray, sigma: float, batch: int) -> Any:
    from cmaes import CMA

    bounds = np.tile([0.0, 1.0], (len(mean), 1))
    return CMA(mean=mean, sigma=sigma, bounds=bounds, population_size=batch, seed=0)
