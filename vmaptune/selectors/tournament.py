"""Population-based training by binary tournament: every member meets one rival, and the loser copies the winner."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from vmaptune.population import Offspring
from vmaptune.selectors.contract import Selector, View
from vmaptune.selectors.explore import Explore, explorer, scales
from vmaptune.selectors.readiness import Readiness, last_change, offspring, one_of_the_best, readiness, sharing
from vmaptune.space import Space


@sharing(readiness, explorer)
def tournament(ready: Readiness, exploring: Explore) -> Selector:
    """Population-based training: each member draws one rival, and if it is strictly worse, becomes a perturbed copy of it.

    The rival is drawn uniformly from the others, and the one that was drawn is the one that is copied. A failed member draws
    its rival from those that did not fail, so it always loses. Half of a population is replaced each time, also by members
    in the middle: more turnover than with truncation, and less weight on the very best.

    Args:
        ready: When a member may be replaced.
        exploring: How a copied member explores.

    References:
        Jaderberg et al., Population Based Training of Neural Networks, https://arxiv.org/abs/1711.09846
    """

    def init(key: jax.Array, space: Space, n: int) -> Any:
        del key
        return jnp.zeros(n, jnp.int32), scales(space)

    def update(key: jax.Array, state: Any, view: View, fitness: jax.Array) -> tuple[Any, Offspring]:
        changed, axes = state
        rival_key, sound_key, explore_key, birth_key = jax.random.split(key, 4)
        n = fitness.shape[0]
        slots = jnp.arange(n, dtype=jnp.int32)
        now = ready.standing(changed, view, fitness)
        rival = (slots + jax.random.randint(rival_key, (n,), 1, max(n, 2))) % n
        rival = jnp.where(now.failed, one_of_the_best(sound_key, now, n), rival)
        lost = now.failed | (now.open & (now.score < now.score[rival]))
        parent = jnp.where(lost, rival, slots)
        child = exploring(explore_key, axes, view.genotype, parent, now)
        order = offspring(birth_key, view, now, parent, child)
        return (last_change(changed, view, order.parent), axes), order

    return Selector(init, update)
