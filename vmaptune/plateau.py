"""Decay of the learning rate when the validation metric stops improving, for each member by itself."""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from vmaptune.settings import Fraction, NonNegative, Usual

Factor = Annotated[float, msgspec.Meta(gt=0, le=1), Usual(0.1, 0.9)]
Generations = Annotated[float, msgspec.Meta(ge=0), Usual(0.0, 10.0)]
Threshold = Annotated[NonNegative, Usual(1e-4, 1e-1, "log")]

SCALE = "plateau.scale"  # how far the learning rate has fallen: a column of the history


def fresh() -> np.ndarray:
    """f32[4], the state of a newborn member: scale of the learning rate, best fitness, generations waited, cooldown left."""
    return np.array([1.0, -np.inf, 0.0, 0.0], np.float32)


def plateau(
    state: jax.Array,
    fitness: jax.Array,
    *,
    factor: Factor = 1.0,
    patience: Generations = 5.0,
    cooldown: Generations = 0.0,
    threshold: Threshold = 1e-4,
    floor: Fraction = 0.0,
) -> jax.Array:
    """Multiplies the learning rate by a factor whenever the validation metric has not improved for some generations.

    On top of any schedule. Judged where a generation ends, by what members are selected by; a copy goes on with its
    parent's scale. The same rules as PyTorch's ReduceLROnPlateau with a relative threshold.

    Args:
        state: f32[4], from `fresh`.
        fitness: f32[], higher is better; NaN is no improvement.
        factor: What the learning rate is multiplied by; 1: it never falls.
        patience: Generations without improvement that are tolerated.
        cooldown: Generations after a fall in which none are counted.
        threshold: Improvement that counts, as a fraction of the best so far.
        floor: The learning rate never falls below this fraction of its schedule.

    Returns:
        f32[4], the state after this generation.

    References:
        PyTorch, torch.optim.lr_scheduler.ReduceLROnPlateau
    """
    scale, best, waited, cooling = state
    margin = jnp.where(jnp.isfinite(best), threshold * jnp.abs(best), 0.0)
    better = fitness > best + margin
    best = jnp.where(better, fitness, best)
    waited = jnp.where(better | (cooling > 0), 0.0, waited + 1.0)
    cooling = jnp.maximum(cooling - 1.0, 0.0)
    falls = waited > patience
    lower = jnp.minimum(scale, jnp.maximum(scale * factor, floor))
    return jnp.stack(
        [jnp.where(falls, lower, scale), best, jnp.where(falls, 0.0, waited), jnp.where(falls, jnp.round(cooldown), cooling)]
    )
