"""How a child's genotype departs from its parent's.

All moves are made in the unit cube, where an axis's own scale is already undone: a step of the same size is the same ratio
on a log axis, the same difference on a linear one, and, because the gene stays continuous, small steps on an integer axis
add up to a whole one in either direction. A step across a bound is reflected back inside.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def reflect(x: jax.Array) -> jax.Array:
    """Folds any finite number into [0, 1], as a ray bouncing between the two bounds."""
    return 1.0 - jnp.abs(1.0 - jnp.mod(x, 2.0))


def perturb(key: jax.Array, genotype: jax.Array, *, sigma: float, resample: float) -> jax.Array:
    """Perturbs every gene of every row independently, so that no two rows stay alike.

    Args:
        key: Key of all draws.
        genotype: f32[N, D] in [0, 1].
        sigma: Standard deviation of the Gaussian step, as a fraction of the axis.
        resample: Probability, per gene, of a fresh uniform draw instead of a step.

    Returns:
        f32[N, D] in [0, 1].
    """
    step_key, fresh_key, coin_key = jax.random.split(key, 3)
    moved = reflect(genotype + sigma * jax.random.normal(step_key, genotype.shape))
    fresh = jax.random.uniform(fresh_key, genotype.shape)
    return jnp.where(jax.random.bernoulli(coin_key, resample, genotype.shape), fresh, moved)
