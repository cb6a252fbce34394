"""Quasi-random search: points that leave no gaps, around SciPy's Sobol' sequence."""

from __future__ import annotations

import math

import numpy as np

from vmaptune.proposers.contract import Proposer, Told, generator
from vmaptune.space import Space


def sobol(*, scramble: bool = True) -> Proposer:
    """The Sobol' sequence: trial t begins at its t-th point, so any first 2^k trials cover the cube evenly.

    Args:
        scramble: Points are moved at random, by the seed, such that they stay as even and each is uniform; false: the bare
            sequence, the same for all seeds, which begins at a corner.

    References:
        Owen, On dropping the first Sobol' point, https://arxiv.org/abs/2008.08051
        Bousquet et al., Critical Hyper-Parameters: No Random, No Cry, https://arxiv.org/abs/1706.03200
    """

    def propose(space: Space, told: Told, count: int, seed: int) -> np.ndarray:
        from scipy.stats.qmc import Sobol

        first = len(told.value)
        if not space.dimension or not count:
            return np.zeros((count, space.dimension), np.float32)
        sequence = Sobol(space.dimension, scramble=scramble, rng=generator(seed, 0))
        # From its beginning to a power of two, because SciPy warns of any other number of points.
        points = sequence.random_base2(math.ceil(math.log2(first + count)))
        return points[first : first + count].astype(np.float32)

    return Proposer(propose, adaptive=False)
