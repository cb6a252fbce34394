"""No early stopping: every trial is trained to its horizon."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from vmaptune.stoppers.contract import Report, Stopper


def none() -> Stopper:
    """No early stopping: every trial is trained to its horizon."""

    def init(trials: int, generations: int) -> Any:
        del trials, generations
        return ()

    def update(state: Any, report: Report) -> tuple[Any, jax.Array]:
        return state, jnp.zeros(report.trial.shape, bool)

    return Stopper(init, update)
