"""Rungs: ages at which trials are compared, and only the best of them go on. What ASHA and Hyperband share."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vmaptune.stoppers.contract import Report


class Rungs(NamedTuple):
    """The results of one bracket of trials.

    Attributes:
        age: i32[R], generations at which a trial is compared; ascending.
        fitness: f32[R, T], of each trial at each rung; -inf where it has not come so far.
    """

    age: jax.Array
    fitness: jax.Array


def rung_ages(grace: int, reduction: int, last: int) -> list[int]:
    """The ages `grace x reduction^r` for r = 0, 1, ... that are not above the last."""
    ages = []
    age = grace
    while age <= last:
        ages.append(age)
        age *= reduction
    return ages


def empty_rungs(ages: list[int], trials: int) -> Rungs:
    """Rungs that nobody has reached yet: at least one age, at least one trial."""
    return Rungs(jnp.array(ages, jnp.int32), jnp.full((len(ages), trials), -jnp.inf, jnp.float32))


def judge(rungs: Rungs, report: Report, reduction: int) -> tuple[Rungs, jax.Array]:
    """Records the trials that stand on a rung, then stops those that are not among its best.

    Of m trials recorded at a rung, those reported just now included, the best `max(1, floor(m / reduction))` go on, and
    whoever ties with the last of them. The work is a sort of each rung.

    Args:
        rungs: What is known so far.
        report: Of a generation; the trials are numbered by their columns in `rungs`.
        reduction: A rung's trials over those that go on.

    Returns:
        The rungs, and bool[N], the trial ends here.
    """
    trials = rungs.fitness.shape[1]
    here = (report.age[:, None] == rungs.age[None, :]) & (report.trial >= 0)[:, None]
    judged, rung = jnp.any(here, axis=1), jnp.argmax(here, axis=1)
    column = jnp.where(judged, report.trial, trials)
    fitness = rungs.fitness.at[rung, column].set(report.fitness, mode="drop")
    recorded = jnp.sum(fitness > -jnp.inf, axis=1)
    kept = jnp.maximum(recorded // reduction, 1)
    lowest = jnp.take_along_axis(jnp.sort(fitness, axis=1), (trials - kept)[:, None], axis=1)[:, 0]
    return rungs._replace(fitness=fitness), judged & (report.fitness < lowest[rung])
