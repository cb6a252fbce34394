"""Random search: no selection among running trials. The control that every other method must beat."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from vmaptune.population import Offspring
from vmaptune.selectors.contract import Selector, View, failed
from vmaptune.settings import Natural
from vmaptune.space import Space


def random(*, trials: Natural = 0) -> Selector:
    """Random search: every trial keeps its settings to the end; a finished or diverged one makes room for a fresh draw.

    Args:
        trials: Trials in all, rounded up to whole rounds of population.size; 0: as many as there are slots.

    References:
        Bergstra & Bengio, Random Search for Hyper-Parameter Optimization, JMLR 13, 2012
    """
    del trials  # how long a run is, is for the run to know

    def init(key: jax.Array, space: Space, n: int) -> Any:
        del key, space, n
        return ()

    def update(key: jax.Array, state: Any, view: View, fitness: jax.Array) -> tuple[Any, Offspring]:
        slots = jnp.arange(fitness.shape[0], dtype=jnp.int32)
        anew = failed(view, fitness) | view.done
        fresh = jax.random.uniform(key, view.genotype.shape)
        return state, Offspring(jnp.where(anew, -1, slots), jnp.where(anew[:, None], fresh, view.genotype))

    return Selector(init, update, pure=True)
