"""Weights that are better to evaluate than the ones being trained: moving averages, and schedule-free's own."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax.contrib import ScheduleFreeState, schedule_free_eval_params

from vmaptune.settings import Rate, Usual


class AverageState(NamedTuple):
    """State of an optimizer that keeps a moving average of the weights.

    Attributes:
        weight: f32[], how much of the average has been filled: 1 - product of the decays so far.
        mean: The average, free of bias, in float32 or wider, because a bfloat16 one would not feel small changes.
        inner: State of the optimizer.
    """

    weight: jax.Array
    mean: Any
    inner: Any


def averaged(inner: optax.GradientTransformation, *, average: Annotated[Rate, Usual(0.9, 0.9999)] = 0.0) -> Any:
    """Keeps an exponential moving average of the weights beside an optimizer, for `evaluation_params`.

    The average is free of bias: after n updates, weights of m updates ago count in proportion to decay^m and nothing is
    left of the initial ones. The decay may change on the way, so the bias is counted, not computed from n.

    Args:
        inner: The optimizer.
        average: Decay per update of an exponential moving average of the weights, which is then evaluated and handed over
            in place of the last ones; it remembers about 1 / (1 - average) updates. 0: none is kept.

    Returns:
        The optimizer itself, or one whose state is an `AverageState`.

    References:
        Polyak & Juditsky, Acceleration of Stochastic Approximation by Averaging, https://epubs.siam.org/doi/10.1137/0330046
        Kingma & Ba, Adam (section 7.2), https://arxiv.org/abs/1412.6980
    """
    if isinstance(average, float) and average == 0.0:
        return inner

    def init(params: Any) -> AverageState:
        return AverageState(jnp.zeros((), jnp.float32), jax.tree.map(_wide, params), inner.init(params))

    def update(gradient: Any, state: AverageState, params: Any = None) -> tuple[Any, AverageState]:
        updates, inner_state = inner.update(gradient, state.inner, params)
        now = evaluation_params(inner_state, optax.apply_updates(params, updates))
        weight = average * state.weight + (1 - average)
        share = (1 - average) / jnp.maximum(weight, jnp.finfo(jnp.float32).tiny)
        mean = jax.tree.map(lambda old, new: old + share * (new - old), state.mean, now)
        return updates, AverageState(weight, mean, inner_state)

    return optax.GradientTransformation(init, update)


def evaluation_params(opt_state: Any, params: Any) -> Any:
    """The weights of one member that should be evaluated and handed over.

    Args:
        opt_state: State of an optimizer, of one member (`jax.vmap` this over a population).
        params: Its weights as they are trained.

    Returns:
        The moving average if one is kept, else the schedule-free average if that is how it is trained, else `params`
        themselves; in the dtypes of `params`.
    """
    if found := _states(opt_state, AverageState):
        average = found[0].mean
    elif found := _states(opt_state, ScheduleFreeState):
        average = schedule_free_eval_params(found[0], params)
    else:
        return params
    return jax.tree.map(lambda a, p: a.astype(p.dtype), average, params)


def averages(opt_state: Any) -> bool:
    """Whether `evaluation_params` differs from the weights being trained; known from the state's structure alone."""
    return bool(_states(opt_state, (AverageState, ScheduleFreeState)))


def _states(opt_state: Any, kind: type | tuple[type, ...]) -> list[Any]:
    """All states of a kind inside a state, outermost first."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]


def _wide(leaf: jax.Array) -> jax.Array:
    # A copy: the state must not share a buffer with the weights, since both are donated.
    return jnp.array(leaf, jnp.promote_types(leaf.dtype, jnp.float32), copy=True)
