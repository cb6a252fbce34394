"""The usual shape of a method that evolves a population: choose parents, then say what their copies start with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vmaptune.population import Offspring
from vmaptune.selectors.contract import Selector, View
from vmaptune.selectors.explore import Explore, scales
from vmaptune.selectors.readiness import Readiness, Standing, last_change, offspring
from vmaptune.space import Space

Choose = Callable[[jax.Array, Standing], jax.Array]
"""`(key, now) -> parent i32[N]`: own slot for those that stay."""


def evolving(ready: Readiness, choose: Choose, child: Explore) -> Selector:
    """The method of a parent's choice and a child's settings; its state is when each slot last changed.

    Args:
        ready: When a member may be replaced.
        choose: Whom each slot copies.
        child: What a copy starts with.
    """

    def init(key: jax.Array, space: Space, n: int) -> Any:
        del key
        return jnp.zeros(n, jnp.int32), scales(space)

    def update(key: jax.Array, state: Any, view: View, fitness: jax.Array) -> tuple[Any, Offspring]:
        changed, axes = state
        parent_key, child_key, birth_key = jax.random.split(key, 3)
        now = ready.standing(changed, view, fitness)
        parent = choose(parent_key, now)
        order = offspring(birth_key, view, now, parent, child(child_key, axes, view.genotype, parent, now))
        return (last_change(changed, view, order.parent), axes), order

    return Selector(init, update)
