"""Gradient accumulation: one update from the mean of several steps' gradients.

`optax.MultiSteps` is not used because its count is not safe to change midway: an update is due only when the step's number
equals the count less one, so a count that shrinks below it drops what was gathered without an update; and it multiplies
what is not due by zero, which turns an infinite update into NaN.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from msgspec import Meta

from vmaptune.settings import Usual


class AccumulationState(NamedTuple):
    """State of an optimizer that waits for several gradients.

    Attributes:
        gathered: i32[], gradients gathered since the last update.
        mean: Their mean, in float32 or wider.
        inner: State of the optimizer, as of the last update.
    """

    gathered: jax.Array
    mean: Any
    inner: Any


def accumulated(
    inner: optax.GradientTransformation, *, accumulate: Annotated[float, Meta(ge=1), Usual(1, 32, "log")] = 1.0
) -> Any:
    """Averages the gradients of several steps before one update; until then weights and optimizer state stay put.

    The count is that in force at each step: when it falls to what has been gathered or below, the update is due at once.

    Args:
        inner: The optimizer.
        accumulate: Steps whose gradients are averaged into one update, rounded to a whole number: the effective batch size
            is that many batches. Weights stay put in between.

    Returns:
        The optimizer itself, or one whose state is an `AccumulationState`.

    References:
        Smith et al., Don't Decay the Learning Rate, Increase the Batch Size, https://arxiv.org/abs/1711.00489
    """
    if isinstance(accumulate, float) and accumulate == 1.0:
        return inner

    def init(params: Any) -> AccumulationState:
        mean = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), params)
        return AccumulationState(jnp.zeros((), jnp.int32), mean, inner.init(params))

    def update(gradient: Any, state: AccumulationState, params: Any = None) -> tuple[Any, AccumulationState]:
        count = state.gathered + 1
        mean = jax.tree.map(lambda m, g: m + (g - m) / count, state.mean, gradient)
        due = count >= jnp.round(jnp.asarray(accumulate))
        updates, after = inner.update(jax.tree.map(lambda m, g: m.astype(g.dtype), mean, gradient), state.inner, params)
        after = jax.tree.map(lambda new, old: jnp.where(due, new.astype(old.dtype), old), after, state.inner)
        cleared = jax.tree.map(lambda m: jnp.where(due, 0, m), mean)
        updates = jax.tree.map(lambda u: jnp.where(due, u, 0), updates)
        return updates, AccumulationState(jnp.where(due, 0, count), cleared, after)

    return optax.GradientTransformation(init, update)
