"""Population-based training by truncation selection: the worst copy the best, with perturbed settings."""

from __future__ import annotations

import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import msgspec

from vmaptune.population import Offspring
from vmaptune.selectors.contract import Selector, View, failed, ranking
from vmaptune.selectors.explore import perturb, shares
from vmaptune.settings import Fraction
from vmaptune.space import Space

Quantile = Annotated[float, msgspec.Meta(ge=0, le=0.5)]


def truncation(*, quantile: Quantile = 0.25, sigma: Fraction = 0.1, resample: Fraction = 0.25) -> Selector:
    """Population-based training: each of the worst members becomes a copy of one of the best, with perturbed settings.

    The worst and the best are `ceil(quantile N)` members each, at most half. A parent is drawn uniformly from the best,
    and takes a place only from a member it strictly beats, so a population of ties is left alone. Failed members are
    always replaced, whatever the quantile, and are never parents; if every member failed, all are born anew. A child takes
    its parent's genotype, perturbed on each axis's own scale, never outside the bounds.

    Args:
        quantile: Share of the population replaced, and share that may be copied.
        sigma: Standard deviation of a perturbation, as a fraction of the axis (0.1 of a log axis over three decades is a
            factor of 2).
        resample: Probability, per setting, of a fresh uniform draw instead of a perturbation.

    References:
        Jaderberg et al., Population Based Training of Neural Networks, https://arxiv.org/abs/1711.09846
    """

    def init(key: jax.Array, space: Space, n: int) -> Any:
        del key, n
        return shares(space)

    def update(key: jax.Array, state: Any, view: View, fitness: jax.Array) -> tuple[Any, Offspring]:
        n = fitness.shape[0]
        cut = min(math.ceil(n * quantile), n // 2)
        parent_key, explore_key = jax.random.split(key)
        slots = jnp.arange(n, dtype=jnp.int32)
        bad = failed(view, fitness)
        order = ranking(view, fitness)
        rank = jnp.zeros(n, jnp.int32).at[order].set(slots)

        sound = jnp.sum(~bad)
        best = jnp.clip(jnp.minimum(max(cut, 1), sound), 1)  # how many may be parents
        parent = order[jax.random.randint(parent_key, (n,), 0, best)].astype(jnp.int32)
        beaten = (rank >= n - cut) & (fitness < fitness[parent])
        parent = jnp.where(bad | beaten, parent, slots)
        parent = jnp.where(sound == 0, -1, parent)

        child = perturb(explore_key, view.genotype[parent], state, sigma=sigma, resample=resample)
        anew = jax.random.uniform(explore_key, view.genotype.shape)
        genotype = jnp.where((parent == slots)[:, None], view.genotype, jnp.where((parent < 0)[:, None], anew, child))
        return state, Offspring(parent, genotype)

    return Selector(init, update, pure=True)
