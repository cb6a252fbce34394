"""Replicates: each genotype is trained with several seeds, and judged by all of them.

The replicates of a genotype stand in neighbouring slots and are born, copied and ended together. A search method sees a
population of groups: one member for all replicates of a genotype, whose fitness is their median or mean.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from vmaptune.population import Offspring, Status
from vmaptune.selectors.contract import Selector, View, failed
from vmaptune.space import Space

Aggregate = Literal["median", "mean"]
"""How the fitness of replicates becomes one number."""


def grouped(fitness: jax.Array, bad: jax.Array, size: int, aggregate: Aggregate) -> jax.Array:
    """f32[N / size]: what a genotype is judged by; NaN where too many of its replicates failed.

    A failed replicate counts as worse than any: the median bears less than half of them, the mean none.

    Args:
        fitness: f32[N].
        bad: bool[N], failed members.
        size: Replicates of a genotype.
        aggregate: How they are made one number.
    """
    values = jnp.where(bad, -jnp.inf, fitness).reshape(-1, size)
    value = jnp.median(values, axis=1) if aggregate == "median" else jnp.mean(values, axis=1)
    return jnp.where(jnp.isfinite(value), value, jnp.nan)


def replicated(selector: Selector, size: int, aggregate: Aggregate) -> Selector:
    """The search method applied to groups of so many neighbouring slots.

    Args:
        selector: Sees a population of N / size.
        size: Replicates of a genotype, by which N can be divided.
        aggregate: How their fitness is made one number.
    """

    def init(key: jax.Array, space: Space, n: int) -> Any:
        return selector.init(key, space, n // size)

    def update(key: jax.Array, state: Any, view: View, fitness: jax.Array) -> tuple[Any, Offspring]:
        bad = failed(view, fitness)
        together = grouped(fitness, bad, size, aggregate)
        first: View = jax.tree.map(lambda leaf: leaf[::size], view)
        status = jnp.where(jnp.isnan(together), Status.NONFINITE_LOSS, Status.OK).astype(jnp.int32)
        trial = jnp.where(first.trial < 0, -1, first.trial // size)
        state, (parent, genotype) = selector.update(key, state, first._replace(trial=trial, status=status), together)

        slots = jnp.arange(fitness.shape[0], dtype=jnp.int32)
        group = jnp.repeat(parent, size)
        same = group * size + slots % size  # each replicate goes on from the same one of its parents
        scores = jnp.where(bad, -jnp.inf, fitness).reshape(-1, size)
        best = jnp.arange(len(parent)) * size + jnp.argmax(scores, axis=1)
        sound = jnp.where(bad[same] & ~jnp.all(bad), best[group], same).astype(jnp.int32)
        kept = jnp.where(group == slots // size, sound if selector.heals else slots, sound)
        return state, Offspring(jnp.where(group < 0, group, kept), jnp.repeat(genotype, size, axis=0))

    return selector._replace(init=init, update=update)
