"""Random search: no selection among running trials. The control that every other method must beat."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from vmaptune.population import Offspring
from vmaptune.selectors.contract import Selector, View, failed
from vmaptune.space import Space


def random() -> Selector:
    """Random search: every trial keeps its settings to the end; a finished or diverged one makes room for a fresh draw.

    The best sound member keeps its slot even when it has finished, so that its weights stay at hand.

    References:
        Bergstra & Bengio, Random Search for Hyper-Parameter Optimization, JMLR 13, 2012
    """

    def init(key: jax.Array, space: Space, n: int) -> Any:
        del key, space, n
        return ()

    def update(key: jax.Array, state: Any, view: View, fitness: jax.Array) -> tuple[Any, Offspring]:
        slots = jnp.arange(fitness.shape[0], dtype=jnp.int32)
        bad = failed(view, fitness)
        best = jnp.argmax(jnp.where(bad, -jnp.inf, fitness))
        anew = bad | (view.done & (slots != best))
        fresh = jax.random.uniform(key, view.genotype.shape)
        return state, Offspring(jnp.where(anew, -1, slots), jnp.where(anew[:, None], fresh, view.genotype))

    return Selector(init, update, pure=True)
