"""Hyperband: successive halving at several degrees of haste side by side."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.errors import ConfigError
from vmaptune.settings import Count, Natural
from vmaptune.stoppers.contract import Reduction, Report, Stopper
from vmaptune.stoppers.rungs import Rungs, empty_rungs, judge, rung_ages


class _State(NamedTuple):
    """Which bracket a trial is in, and what became of each.

    Attributes:
        bracket: i32[T], of each trial.
        column: i32[T], of each trial among those of its bracket.
        rungs: Of each bracket that has any.
    """

    bracket: jax.Array
    column: jax.Array
    rungs: tuple[Rungs, ...]


def hyperband(*, reduction: Reduction = 3, grace: Count = 1, brackets: Natural = 0) -> Stopper:
    """Hyperband: trials are dealt to brackets, each of which halves its own as ASHA does, one beginning later than the other.

    How early a trial can be told to be bad is not known before, so each bracket bets on another age: bracket b = 0, 1, ...
    has its first rung at `grace x reduction^b`, up to the horizon (one that begins there is plain random search). With
    `s = floor(log(generations / grace) / log(reduction)) - b` it gets `ceil((s + b + 1) / (s + 1) reduction^s)` of the
    trials, as in the paper, so that all brackets cost about the same; the trials of a bracket are spread evenly over the
    numbers, not drawn. Nothing waits, as in Optuna's `HyperbandPruner`; who goes on at a rung is defined at `asha`.

    Args:
        reduction: Trials on a rung over those that go on; 3 or 4 is usual.
        grace: Generations of a trial before the first rung of the first bracket.
        brackets: Brackets, the earliest-stopping first; 0: as many as fit; 1: the same as `asha`.

    References:
        Li et al., Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization, https://arxiv.org/abs/1603.06560
    """

    def init(trials: int, generations: int) -> _State:
        ages = rung_ages(grace, reduction, generations)
        if len(ages) < 2:
            raise ConfigError(
                f"search.stop.grace: hyperband needs grace x reduction = {grace * reduction} generations, but trials end after "
                f"{generations}; given: {grace}"
            )
        if brackets > len(ages):
            raise ConfigError(
                f"search.stop.brackets: {len(ages)} fit into {generations} generations with grace {grace} and reduction "
                f"{reduction}; given: {brackets}"
            )
        shares = bracket_shares(len(ages), reduction)[: brackets or len(ages)]
        bracket = np.resize(deal(shares), trials)
        column = np.zeros(trials, np.int32)
        rungs = []
        for number in range(len(shares)):
            own = bracket == number
            size = int(own.sum())
            column[own] = np.arange(size)
            if below := [age for age in ages[number:] if age < generations]:
                rungs.append(empty_rungs(below, max(size, 1)))
        return _State(jnp.array(bracket, jnp.int32), jnp.array(column), tuple(rungs))

    def update(state: _State, report: Report) -> tuple[_State, jax.Array]:
        known = jnp.clip(report.trial, 0)
        bracket = jnp.where(report.trial >= 0, state.bracket[known], -1)
        column = state.column[known]
        stop = jnp.zeros(report.trial.shape, bool)
        after = []
        for number, rungs in enumerate(state.rungs):
            rungs, stopped = judge(rungs, report._replace(trial=jnp.where(bracket == number, column, -1)), reduction)
            after.append(rungs)
            stop |= stopped
        return state._replace(rungs=tuple(after)), stop

    return Stopper(init, update)


def bracket_shares(fit: int, reduction: int) -> list[int]:
    """Trials of each bracket in one round of Hyperband, where so many brackets fit; the earliest-stopping first."""
    return [-(-fit * reduction**s // (s + 1)) for s in reversed(range(fit))]


def deal(shares: list[int]) -> np.ndarray:
    """i64[sum of shares]: the bracket of each trial of a round, those of each spread evenly over it."""
    bracket = np.repeat(np.arange(len(shares)), shares)
    place = np.concatenate([(np.arange(share) + 0.5) / share for share in shares])
    return bracket[np.argsort(place, kind="stable")]
