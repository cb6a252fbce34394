"""The median stopping rule: a trial ends that was never as good as the others were on average."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vmaptune.errors import ConfigError
from vmaptune.settings import Count, Natural
from vmaptune.stoppers.contract import Report, Stopper, check_acts


class _State(NamedTuple):
    """Every trial so far, and of each age compared at the newest.

    Attributes:
        best: f32[T], highest fitness of each trial; -inf: it has not reported.
        mean: f32[T], of its fitness over its reports.
        reports: i32[T], how many they are.
        trial: i32[A, W], the trial remembered at an age, in the column of its number modulo W; -1: none.
        average: f32[A, W], its mean up to that age; inf: none.
    """

    best: jax.Array
    mean: jax.Array
    reports: jax.Array
    trial: jax.Array
    average: jax.Array


def median(*, warmup: Natural = 1, startup: Count = 5, interval: Count = 1, window: Count = 512) -> Stopper:
    """The median stopping rule: a trial ends when its best fitness so far is below the median of the others' averages.

    An average is the mean of a trial's fitness over all its generations up to the same age, as in Vizier and Ray. The
    others are all trials that have reached this age, stopped since or not, those of the same generation included. At an age
    the newest `window` trials are remembered, at most: `window x generations / interval` numbers, whatever the count of
    trials.

    Args:
        warmup: Generations of a trial before it may be stopped.
        startup: Others that must have reached an age before any trial is stopped there.
        interval: Generations between two comparisons of a trial.
        window: Trials remembered at an age.

    Raises:
        ConfigError: `window` is no more than `startup`.

    References:
        Golovin et al., Google Vizier: A Service for Black-Box Optimization, https://doi.org/10.1145/3097983.3098043
    """
    if window <= startup:
        raise ConfigError(f"search.stop.window: expected more trials than startup, {startup}; given: {window}")

    def init(trials: int, generations: int) -> _State:
        check_acts("warmup", warmup, warmup + 1, generations)
        table = len(range(warmup + 1, generations, interval)), min(trials, window)
        return _State(
            best=jnp.full(trials, -jnp.inf, jnp.float32),
            mean=jnp.zeros(trials, jnp.float32),
            reports=jnp.zeros(trials, jnp.int32),
            trial=jnp.full(table, -1, jnp.int32),
            average=jnp.full(table, jnp.inf, jnp.float32),
        )

    def update(state: _State, report: Report) -> tuple[_State, jax.Array]:
        trials, (ages, width) = state.best.shape[0], state.average.shape
        known = jnp.clip(report.trial, 0)
        target = jnp.where(report.trial >= 0, report.trial, trials)  # past the end: written nowhere
        best = state.best.at[target].max(report.fitness, mode="drop")
        reports = state.reports.at[target].add(1, mode="drop")
        # Not sum / count: the mean of a constant is that constant, so ties stay ties.
        step = (report.fitness - state.mean[known]) / jnp.maximum(reports[known], 1)
        mean = state.mean.at[target].add(step, mode="drop")

        row, rest = jnp.divmod(report.age - 1 - warmup, interval)
        compared = (report.trial >= 0) & (row >= 0) & (row < ages) & (rest == 0)
        row, column = jnp.where(compared, row, 0), known % width
        trial = state.trial.at[jnp.where(compared, row, ages), column].max(report.trial, mode="drop")
        inside = compared & (trial[row, column] == report.trial)  # unless a newer trial of this generation has its column
        average = state.average.at[jnp.where(inside, row, ages), column].set(mean[known], mode="drop")

        ordered = jnp.sort(average, axis=1)
        others = jnp.sum(trial >= 0, axis=1)[row] - inside
        own = jnp.sum(ordered[row] < mean[known][:, None], axis=1)  # its place among all

        def other(place: jax.Array) -> jax.Array:
            return ordered[row, jnp.clip(place + (inside & (place >= own)), 0, width - 1)]

        middle = 0.5 * other((others - 1) // 2) + 0.5 * other(others // 2)
        return _State(best, mean, reports, trial, average), compared & (others >= startup) & (best[known] < middle)

    return Stopper(init, update)
