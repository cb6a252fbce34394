"""Population-based training by truncation selection: the worst copy the best, with perturbed settings."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
import msgspec

from vmaptune.selectors.contract import Selector
from vmaptune.selectors.evolving import evolving
from vmaptune.selectors.explore import Explore, explorer
from vmaptune.selectors.readiness import Readiness, Standing, one_of_the_best, readiness, sharing

Quantile = Annotated[float, msgspec.Meta(ge=0, le=0.5)]


@sharing(readiness, explorer)
def truncation(ready: Readiness, exploring: Explore, *, quantile: Quantile = 0.25) -> Selector:
    """Population-based training: each of the worst members becomes a copy of one of the best, with perturbed settings.

    The worst and the best are `ceil(quantile N)` members each, at most half. A parent is drawn uniformly from the best,
    and takes a place only from a member it strictly beats, so a population of ties is left alone. Failed members are
    always replaced, whatever the quantile, and are never parents; if every member failed, all are born anew. A child takes
    its parent's genotype, perturbed on each axis's own scale, never outside the bounds.

    Args:
        ready: When a member may be replaced.
        exploring: How a copied member explores.
        quantile: Share of the population replaced, and share that may be copied.

    References:
        Jaderberg et al., Population Based Training of Neural Networks, https://arxiv.org/abs/1711.09846
    """
    return evolving(ready, partial(truncate, quantile=quantile), exploring)


def cut_of(quantile: float, n: int) -> int:
    """How many of n members are the worst, and how many the best."""
    return min(math.ceil(n * quantile), n // 2)


def truncate(key: jax.Array, now: Standing, quantile: float) -> jax.Array:
    """i32[N]: a parent out of the best for each of the worst whose place is open, and for all that failed; else own slot."""
    n = len(now.rank)
    cut = cut_of(quantile, n)
    parent = one_of_the_best(key, now, max(cut, 1))
    beaten = (now.rank >= n - cut) & now.open & (now.score < now.score[parent])
    return jnp.where(now.failed | beaten, parent, jnp.arange(n, dtype=jnp.int32))
