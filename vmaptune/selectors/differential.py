"""Differential evolution of the settings of a population in training."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
import msgspec

from vmaptune.selectors.contract import Selector
from vmaptune.selectors.evolving import evolving
from vmaptune.selectors.explore import Scales, reflect
from vmaptune.selectors.readiness import Readiness, Standing, readiness, sharing
from vmaptune.selectors.truncation import Quantile, truncate
from vmaptune.settings import Fraction

Weight = Annotated[float, msgspec.Meta(ge=0, le=2)]


@sharing(readiness)
def differential(
    ready: Readiness,
    *,
    quantile: Quantile = 0.25,
    weight: Weight = 0.5,
    crossover: Fraction = 0.5,
    sigma: Fraction = 0.01,
) -> Selector:
    """Differential evolution: the worst copy the weights of the best, and explore along differences within the population.

    Classic differential evolution evaluates a trial vector before it replaces its target. Here a vector can only be judged
    by training with it, and weights trained so far belong to the settings they were trained with; so a child takes the
    weights of one of the best, that parent is both target and base vector, and the judgement is left to the next
    generation, which replaces the child if it became one of the worst:

        child = parent + weight (a - b) + sigma noise, in each gene with probability `crossover`, and in one at least

    with two different members a and b drawn from the whole population, reflected into the cube. Steps are as long as the
    population is wide, and correlated as it is. The noise keeps children of one parent apart, and the search alive once
    differences are gone. On an axis of choices a short step may choose what the parent chose.

    Args:
        ready: When a member may be replaced.
        quantile: Share of the population replaced, and share that may be copied.
        weight: Of the difference: F in the paper.
        crossover: Probability that a gene departs from the parent's: CR in the paper.
        sigma: Standard deviation of the added noise, as a fraction of the axis.

    References:
        Storn & Price, Differential Evolution, Journal of Global Optimization 11, 1997 (this is best/1/bin, base out of the
        best `quantile`)
        Awad et al., DEHB, https://arxiv.org/abs/2105.09821 (weight and crossover 0.5)
    """

    def along_differences(key: jax.Array, axes: Scales, genotype: jax.Array, parent: jax.Array, now: Standing) -> jax.Array:
        del axes, now
        first_key, second_key, noise_key, coin_key, gene_key = jax.random.split(key, 5)
        n, d = genotype.shape
        a = jax.random.randint(first_key, (n,), 0, n)
        b = (a + jax.random.randint(second_key, (n,), 1, max(n, 2))) % n
        base, noise = genotype[parent], jax.random.normal(noise_key, (n, d))
        mutant = reflect(base + weight * (genotype[a] - genotype[b]) + sigma * noise)
        sure = jax.random.randint(gene_key, (n, 1), 0, max(d, 1)) == jnp.arange(d)[None]
        return jnp.where(jax.random.bernoulli(coin_key, crossover, (n, d)) | sure, mutant, base)

    return evolving(ready, partial(truncate, quantile=quantile), along_differences)
