"""Early stopping joined to a search method: a stopped trial has ended, and its slot is free."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from vmaptune.population import Offspring
from vmaptune.selectors.contract import Selector, View, failed
from vmaptune.space import Space
from vmaptune.stoppers import Report, Stopper


def stopped_by(selector: Selector, stopper: Stopper, *, trials: int, generations: int) -> Selector:
    """The search method whose trials a stopper may end.

    Args:
        selector: The search method.
        stopper: Asked every generation.
        trials: The most trials there can be.
        generations: Of a full trial.
    """

    def init(key: jax.Array, space: Space, n: int) -> Any:
        return selector.init(key, space, n), stopper.init(trials, generations)

    def update(key: jax.Array, state: Any, view: View, fitness: jax.Array) -> tuple[Any, Offspring]:
        searched, stopped = state
        silent = failed(view, fitness)
        report = Report(jnp.where(silent, -1, view.trial), view.age, jnp.where(silent, 0.0, fitness))
        stopped, stop = stopper.update(stopped, report)
        searched, offspring = selector.update(key, searched, view._replace(done=view.done | stop), fitness)
        return (searched, stopped), offspring

    return selector._replace(init=init, update=update)
