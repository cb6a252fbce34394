"""Trials over slots: a trial keeps its settings to its end, and its slot goes to the next one at once.

Random, grid, quasi-random and model-based search are all this, and differ by where the settings of a trial come from: the
proposer, a function of what is known so far. What ends a trial early is a stopper's (see `vmaptune.selectors.stopping`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vmaptune.population import BIRTH, EMPTY, Offspring
from vmaptune.proposers import PROPOSERS, Proposer
from vmaptune.selectors.contract import Selector, View, failed
from vmaptune.settings import Natural, with_settings
from vmaptune.space import Space


def refilling(proposer: Proposer, *, trials: Natural = 0) -> Selector:
    """Trains one trial after another in each slot: an ended or failed one makes room for the next that is proposed.

    Args:
        proposer: Where trials begin.
        trials: Trials in all, replicates not counted; 0: as many as `search.budget.steps` allows, or, without a budget, as
            begin in the generations of one trial: a slot each, and those that take the place of stopped ones.
    """

    def init(key: jax.Array, space: Space, n: int) -> Any:
        del key, space
        return jnp.int32(min(n, trials) if trials else n)  # trials begun

    def update(key: jax.Array, begun: Any, view: View, fitness: jax.Array) -> tuple[Any, Offspring]:
        slots = jnp.arange(fitness.shape[0], dtype=jnp.int32)
        ended = failed(view, fitness) | view.done
        births = ended if not trials else ended & (begun + jnp.cumsum(ended) <= trials)
        parent = jnp.where(births, BIRTH, jnp.where(ended, EMPTY, slots))
        fresh = jax.random.uniform(key, view.genotype.shape)  # for a slot that nothing is proposed for
        begun = begun + jnp.sum(births, dtype=jnp.int32)
        return begun, Offspring(parent, jnp.where(births[:, None], fresh, view.genotype))

    return Selector(init, update, proposer=proposer, trials=trials, heals=False)


def searching(proposer: Callable[..., Proposer]) -> Callable[..., Selector]:
    """A search method from a row of `PROPOSERS`: its settings, and the number of trials."""

    def method(*, trials: Natural = 0, **settings: Any) -> Selector:
        return refilling(proposer(**settings), trials=trials)

    method.__doc__ = f"{proposer.__doc__}"
    method.__name__ = method.__qualname__ = proposer.__name__
    return with_settings(method, proposer, refilling)


TRIAL_METHODS: dict[str, Callable[..., Selector]] = {name: searching(row) for name, row in PROPOSERS.items()}
"""The search methods that refill slots with new trials: one a proposer."""
