"""No selection: every member keeps its slot and its settings to the end. The control of controls."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from vmaptune.population import Offspring
from vmaptune.selectors.contract import Selector, View
from vmaptune.space import Space


def fixed() -> Selector:
    """No selection: nobody is ever replaced, so the first draws train to the end, and one that fails stays failed.

    What a grid or random search without early stopping does with one filling of the slots. A failed member keeps its place,
    as it would in a search that trains each network by itself, but nobody copies it.
    """

    def init(key: jax.Array, space: Space, n: int) -> Any:
        del key, space, n
        return ()

    def update(key: jax.Array, state: Any, view: View, fitness: jax.Array) -> tuple[Any, Offspring]:
        del key
        return state, Offspring(jnp.arange(fitness.shape[0], dtype=jnp.int32), view.genotype)

    return Selector(init, update, heals=False)
