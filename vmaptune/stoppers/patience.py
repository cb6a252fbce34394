"""Patience: a trial ends that has not improved for some generations."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vmaptune.settings import Count, NonNegative
from vmaptune.stoppers.contract import Report, Stopper, check_acts


class _State(NamedTuple):
    """When each trial last improved.

    Attributes:
        best: f32[T], fitness after its last improvement; -inf: it has not reported.
        since: i32[T], its age then.
        generations: i32[], age at which a trial ends anyway.
    """

    best: jax.Array
    since: jax.Array
    generations: jax.Array


def patience(*, patience: Count = 5, delta: NonNegative = 0.0) -> Stopper:
    """Patience: a trial ends when for so many generations its fitness has not risen above its best by more than `delta`.

    As Keras' `EarlyStopping`: the best moves only with an improvement, so that slow progress adds up to one. Trials are
    not compared with each other.

    Args:
        patience: Generations without an improvement after which a trial ends.
        delta: Rise in fitness that is no improvement yet, in units of the metric.

    References:
        Prechelt, Early Stopping - But When?, https://doi.org/10.1007/3-540-49430-8_3
    """

    def init(trials: int, generations: int) -> _State:
        check_acts("patience", patience, patience + 1, generations)
        return _State(
            best=jnp.full(trials, -jnp.inf, jnp.float32),
            since=jnp.zeros(trials, jnp.int32),
            generations=jnp.array(generations, jnp.int32),
        )

    def update(state: _State, report: Report) -> tuple[_State, jax.Array]:
        known = jnp.clip(report.trial, 0)
        better = (report.trial >= 0) & (report.fitness - delta > state.best[known])
        target = jnp.where(better, report.trial, state.best.shape[0])  # past the end: written nowhere
        best = state.best.at[target].set(report.fitness, mode="drop")
        since = state.since.at[target].set(report.age, mode="drop")
        stop = (report.trial >= 0) & (report.age - since[known] >= patience) & (report.age < state.generations)
        return state._replace(best=best, since=since), stop

    return Stopper(init, update)
