"""Sub-populations that evolve at different frequencies, against the greed of population-based training."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from vmaptune.population import Offspring
from vmaptune.selectors.contract import Selector, View
from vmaptune.selectors.explore import Explore, Scales, explorer, scales
from vmaptune.selectors.readiness import Readiness, Standing, last_change, offspring, one_of_the_best, readiness, sharing
from vmaptune.settings import Count
from vmaptune.space import Space

Frequencies = Annotated[tuple[Count, ...], msgspec.Meta(min_length=1)]


class _State(NamedTuple):
    changed: jax.Array
    axes: Scales
    generation: jax.Array  # i32[], how many were seen


@sharing(readiness, explorer)
def multifrequency(ready: Readiness, exploring: Explore, *, frequencies: Frequencies = (1, 2, 4, 8)) -> Selector:
    """Population-based training in sub-populations, each of which evolves every so many generations.

    The slots are divided evenly, neighbours together, with at least four slots to a sub-population: a small population has
    fewer of them, the first ones. When one evolves, its worst quarter become perturbed copies of its best quarter, and its
    third quarter give way to the best members of the others, as far as these are strictly better, one for one. A migrant
    brings its weights unchanged. It brings its settings too if it comes from a sub-population that evolves as slowly or more
    slowly; else it takes those of the best member of its new home, so that what is good in the short run only does not
    spread to those who look further. Failed members are replaced at once, from their own sub-population if it can.

    Args:
        ready: When a member may be replaced.
        exploring: How a copied member explores.
        frequencies: Generations from one evolution of a sub-population to the next, one number for each.

    References:
        Doulazmi et al., Multiple-Frequencies Population-Based Training, https://arxiv.org/abs/2506.03225
    """

    def init(key: jax.Array, space: Space, n: int) -> Any:
        del key
        return _State(jnp.zeros(n, jnp.int32), scales(space), jnp.int32(0))

    def update(key: jax.Array, state: Any, view: View, fitness: jax.Array) -> tuple[Any, Offspring]:
        anywhere_key, home_key, explore_key, birth_key = jax.random.split(key, 4)
        n = fitness.shape[0]
        now, generation = ready.standing(state.changed, view, fitness), state.generation + 1
        home = homes(n, len(frequencies))
        slots = jnp.arange(n, dtype=jnp.int32)
        parent = jnp.where(now.failed, one_of_the_best(anywhere_key, now, max(1, n // 4)), slots)
        donor = jnp.full(n, -1, jnp.int32)  # whose settings a migrant takes; -1: no migrant
        for i in range(int(home[-1]) + 1):
            here = np.flatnonzero(home == i)
            due = generation % frequencies[i] == 0
            slower = jnp.asarray(np.array(frequencies)[home] >= frequencies[i])
            parent = parent.at[here].set(_exploit(jax.random.fold_in(home_key, i), now, here, due, parent[here]))
            migrating, migrant = _migrate(now, here, due)
            local_best = jnp.asarray(here, jnp.int32)[jnp.argmax(now.score[here])]
            keeps = slower[migrant] | now.failed[local_best]
            parent = parent.at[migrating].set(jnp.where(migrant == migrating, parent[migrating], migrant))
            donor = donor.at[migrating].set(jnp.where(migrant == migrating, -1, jnp.where(keeps, migrant, local_best)))
        child = exploring(explore_key, state.axes, view.genotype, parent, now)
        child = jnp.where((donor >= 0)[:, None], view.genotype[donor], child)
        order = offspring(birth_key, view, now, parent, child)
        return _State(last_change(state.changed, view, order.parent), state.axes, generation), order

    return Selector(init, update)


def homes(n: int, count: int) -> np.ndarray:
    """i64[n]: the sub-population of each slot: at most `count` of them, of four slots or more, as even as can be."""
    count = min(count, max(1, n // 4))
    return np.arange(n) * count // n


def _exploit(key: jax.Array, now: Standing, here: np.ndarray, due: jax.Array, otherwise: jax.Array) -> jax.Array:
    """Parents of one sub-population's slots: winners for its losers if it is due, and for those that failed at any time.

    Args:
        key: Key of the draws.
        now: How all members stand.
        here: i64[n], the slots of the sub-population.
        due: bool[], whether it evolves now.
        otherwise: i32[n], parents for when nobody here can be one.
    """
    size = len(here)
    quarter = min(max(size // 4, 1), size // 2)
    order = jnp.asarray(here, jnp.int32)[jnp.argsort(now.rank[here])]
    sound = jnp.sum(~now.failed[here])
    winner = order[jax.random.randint(key, (size,), 0, jnp.clip(jnp.minimum(max(quarter, 1), sound), 1, size))]
    last = jnp.zeros(len(now.rank), bool).at[order[size - quarter :]].set(True)[here]
    beaten = last & due & now.open[here] & (now.score[here] < now.score[winner])
    replaced = (now.failed[here] | beaten) & (sound > 0)
    return jnp.where(replaced, winner, otherwise)


def _migrate(now: Standing, here: np.ndarray, due: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Pairs the third quarter of a sub-population with the best members elsewhere, best first.

    Returns:
        The slots of the third quarter, i32[q], and for each the slot of its migrant, or itself.
    """
    n, quarter = len(now.rank), len(here) // 4 * (len(here) < len(now.rank))
    bracket = jnp.asarray(here, jnp.int32)[jnp.argsort(now.rank[here])][2 * quarter : 3 * quarter]
    elsewhere = jnp.argsort(now.rank.at[here].set(n))[: n - len(here)].astype(jnp.int32)

    def meet(taken: jax.Array, slot: jax.Array) -> tuple[jax.Array, jax.Array]:
        migrant = elsewhere[taken]
        worse = due & (now.open[slot] | now.failed[slot]) & (now.score[slot] < now.score[migrant])
        return taken + worse, jnp.where(worse, migrant, slot)

    if not quarter:
        return bracket, bracket
    return bracket, jax.lax.scan(meet, jnp.int32(0), bracket)[1]
