"""Threshold: a trial ends that is worse than what is worth having."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vmaptune.settings import Natural
from vmaptune.stoppers.contract import Report, Stopper, check_acts


def threshold(*, worst: float, warmup: Natural = 1) -> Stopper:
    """Threshold: a trial ends when its fitness is below what is worth having.

    Fitness is higher the better: the metric itself where more of it is better, else minus the metric. So an accuracy of at
    least 0.5 is `worst = 0.5`, a loss of at most 5 is `worst = -5.0`.

    Args:
        worst: Lowest fitness a trial may have; of a metric that is minimised, minus its highest value.
        warmup: Generations of a trial before it may be stopped.

    References:
        Akiba et al., Optuna: A Next-generation Hyperparameter Optimization Framework, https://arxiv.org/abs/1907.10902
    """

    def init(trials: int, generations: int) -> jax.Array:
        del trials
        check_acts("warmup", warmup, warmup + 1, generations)
        return jnp.array(generations, jnp.int32)

    def update(state: jax.Array, report: Report) -> tuple[jax.Array, jax.Array]:
        may = (report.trial >= 0) & (report.age > warmup) & (report.age < state)
        return state, may & (report.fitness < worst)

    return Stopper(init, update)
