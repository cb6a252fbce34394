"""How a child's genotype departs from its parent's.

All moves are made in the unit cube, where an axis's own scale is already undone: a step of the same size is the same ratio
on a log axis, the same difference on a linear one, and, because the gene stays continuous, small steps on an integer axis
add up to a whole one in either direction. A step across a bound goes the other way, or is reflected back inside.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vmaptune.space import Space


def reflect(x: jax.Array) -> jax.Array:
    """Folds any finite number into [0, 1], as a ray bouncing between the two bounds."""
    return 1.0 - jnp.abs(1.0 - jnp.mod(x, 2.0))


def shares(space: Space) -> jax.Array:
    """f32[D]: how far a gene must move to reach the next value of a discrete axis; 0 on a continuous one."""
    return jnp.array([axis.share for axis in space.axes.values()], jnp.float32)


def perturb(key: jax.Array, genotype: jax.Array, shares: jax.Array, *, sigma: float, resample: float) -> jax.Array:
    """Perturbs every gene of every row independently.

    A step on a discrete axis goes at least to the neighbouring value, so that a child never trains with its parent's
    settings again; a step that would leave the axis is taken the other way, or reflected.

    Args:
        key: Key of all draws.
        genotype: f32[N, D] in [0, 1].
        shares: f32[D], from `shares(space)`.
        sigma: Standard deviation of the Gaussian step, as a fraction of the axis; 0: no step at all.
        resample: Probability, per gene, of a fresh uniform draw instead of a step.

    Returns:
        f32[N, D] in [0, 1].
    """
    step_key, fresh_key, coin_key = jax.random.split(key, 3)
    noise = jax.random.normal(step_key, genotype.shape)
    least = (sigma > 0) * 1.0001 * jnp.broadcast_to(shares, genotype.shape)  # a little more, lest rounding fall short
    step = jnp.sign(noise) * jnp.maximum(jnp.abs(sigma * noise), least)
    onward, back = genotype + step, genotype - step
    outside = (onward < 0) | (onward > 1)
    moved = jnp.where(outside & (back >= 0) & (back <= 1), back, reflect(onward))
    fresh = jax.random.uniform(fresh_key, genotype.shape, jnp.float32)
    return jnp.where(jax.random.bernoulli(coin_key, resample, genotype.shape), fresh, moved)
