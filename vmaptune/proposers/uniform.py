"""Random search: every trial begins at a point of its own, drawn uniformly."""

from __future__ import annotations

import numpy as np

from vmaptune.population import Stream, stream_key
from vmaptune.proposers.contract import Proposer, Told
from vmaptune.space import Space


def random() -> Proposer:
    """Uniform draws from the unit cube: on each axis, evenly on its scale.

    A trial's draw depends on the seed and its number alone; the first are those that an evolving population begins with. The
    control that every other method must beat.

    References:
        Bergstra & Bengio, Random Search for Hyper-Parameter Optimization, https://jmlr.org/papers/v13/bergstra12a.html
    """

    def propose(space: Space, told: Told, count: int, seed: int) -> np.ndarray:
        first = len(told.value)
        rows = space.sample(stream_key(seed, Stream.GENOTYPE), first + count)  # of which the first do not depend on how many
        return np.array(rows[first:])

    return Proposer(propose, adaptive=False)
