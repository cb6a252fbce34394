"""How a child's genotype departs from its parent's.

All moves are made in the unit cube, where an axis's own scale is already undone: a step of the same size is the same ratio
on a log axis, the same difference on a linear one, and, because the gene stays continuous, small steps on an integer axis
add up to a whole one in either direction. A step across a bound goes the other way, or is reflected back inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import msgspec

from vmaptune.selectors.readiness import Standing, one_of_the_best
from vmaptune.settings import Fraction
from vmaptune.space import Space

Step = Literal["gaussian", "factors"]
Factor = Annotated[float, msgspec.Meta(gt=1)]


class Scales(NamedTuple):
    """What a step must know of the axes.

    Attributes:
        share: f32[D], how far a gene must move to reach the next value of a discrete axis; 0 on a continuous one.
        low: f32[D], where the axis begins, before a log scale is undone.
        width: f32[D], how long it is, in the same unit.
        log: bool[D].
        choice: bool[D], the axis has choices, which nothing can be multiplied with.
    """

    share: jax.Array
    low: jax.Array
    width: jax.Array
    log: jax.Array
    choice: jax.Array


Explore = Callable[[jax.Array, Scales, jax.Array, jax.Array, Standing], jax.Array]
"""`(key, scales, genotype f32[N, D], parent i32[N], now) -> f32[N, D]`, what a child of each slot's parent would start with."""


def scales(space: Space) -> Scales:
    """Reads `Scales` from a space."""
    axes = list(space.axes.values())
    ends = jnp.array([(0.0, 1.0) if a.choices else a.interval for a in axes], jnp.float32).reshape(-1, 2)
    return Scales(
        share=jnp.array([a.share for a in axes], jnp.float32),
        low=ends[:, 0],
        width=ends[:, 1] - ends[:, 0],
        log=jnp.array([a.scale == "log" for a in axes], bool),
        choice=jnp.array([bool(a.choices) for a in axes], bool),
    )


def explorer(
    *,
    explore: Step = "gaussian",
    sigma: Fraction = 0.1,
    factor: Factor = 1.25,
    resample: Fraction = 0.25,
    crossover: Fraction = 0.0,
    settings_from: Literal["parent", "self"] = "parent",
) -> Explore:
    """How a copied member explores.

    Args:
        explore: The step: a Gaussian one on the axis's scale, or the value times one of two factors.
        sigma: Standard deviation of a Gaussian step, as a fraction of the axis (0.1 of a log axis over three decades is a
            factor of 2).
        factor: The value is multiplied or divided by this; a choice moves to a neighbour.
        resample: Probability, per setting, of a fresh uniform draw instead of a step.
        crossover: Probability, per setting, to start from that of a second parent, one of the best quarter.
        settings_from: Whose settings a child perturbs: those of the parent whose weights it takes, or those its slot had
            before (unless that member failed).
    """

    def child(key: jax.Array, scales: Scales, genotype: jax.Array, parent: jax.Array, now: Standing) -> jax.Array:
        mate_key, coin_key, step_key = jax.random.split(key, 3)
        n = len(genotype)
        start = genotype[parent]
        if settings_from == "self":
            start = jnp.where(now.failed[:, None], start, genotype)
        mate = one_of_the_best(mate_key, now, max(2, math.ceil(n / 4)))
        crossed = jax.random.bernoulli(coin_key, crossover, genotype.shape)
        start = jnp.where(crossed, genotype[mate], start)
        return perturb(step_key, start, scales, explore=explore, sigma=sigma, factor=factor, resample=resample)

    return child


def perturb(
    key: jax.Array,
    genotype: jax.Array,
    scales: Scales,
    *,
    explore: Step = "gaussian",
    sigma: float = 0.0,
    factor: float = 1.25,
    resample: float = 0.0,
) -> jax.Array:
    """Perturbs every gene of every row independently.

    A step on a discrete axis goes at least to the neighbouring value, so that a child never trains with its parent's
    settings again; a step that would leave the axis is taken the other way, or reflected.

    Args:
        key: Key of all draws.
        genotype: f32[N, D] in [0, 1].
        scales: From `scales(space)`.
        explore: "gaussian", or "factors": the value (not the gene) is multiplied by `factor` or `1 / factor`, with equal
            probability. That is a fixed step on a log axis and a fixed share of the value on a linear one, where 0 stays 0.
        sigma: Standard deviation of the Gaussian step, as a fraction of the axis; 0: no step at all.
        factor: Above 1.
        resample: Probability, per gene, of a fresh uniform draw instead of a step.

    Returns:
        f32[N, D] in [0, 1].
    """
    step_key, fresh_key, coin_key = jax.random.split(key, 3)
    scales = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, genotype.shape), scales)
    noise = jax.random.normal(step_key, genotype.shape)
    if explore == "gaussian":
        step = (sigma > 0) * jnp.sign(noise) * _at_least_a_value(jnp.abs(sigma * noise), scales)
        onward, back = genotype + step, genotype - step
    else:
        onward, back = (_times(genotype, direction, factor, scales) for direction in (jnp.sign(noise), -jnp.sign(noise)))
    outside = (onward < 0) | (onward > 1)
    moved = jnp.where(outside & (back >= 0) & (back <= 1), back, reflect(onward))
    fresh = jax.random.uniform(fresh_key, genotype.shape, jnp.float32)
    return jnp.where(jax.random.bernoulli(coin_key, resample, genotype.shape), fresh, moved)


def reflect(x: jax.Array) -> jax.Array:
    """Folds any finite number into [0, 1], as a ray bouncing between the two bounds."""
    return 1.0 - jnp.abs(1.0 - jnp.mod(x, 2.0))


def _times(genotype: jax.Array, direction: jax.Array, factor: float, scales: Scales) -> jax.Array:
    """Where the value times `factor` lies (direction 1) or divided by it (-1), in the unit of genes, bounds unheeded."""
    power = direction * math.log(factor)
    value = scales.low + genotype * scales.width
    step = jnp.where(scales.log, power, value * jnp.expm1(power)) / scales.width
    towards = jnp.where(step == 0, direction, jnp.sign(step))  # 0 times anything is 0; a discrete axis must move on
    step = jnp.where(scales.share > 0, towards * _at_least_a_value(jnp.abs(step), scales), step)
    step = jnp.where(scales.choice, direction * _at_least_a_value(jnp.zeros_like(step), scales), step)
    return genotype + step


def _at_least_a_value(length: jax.Array, scales: Scales) -> jax.Array:
    """A step's length, or that to the next value of a discrete axis; a little more, lest rounding fall short."""
    return jnp.maximum(length, 1.0001 * scales.share)
