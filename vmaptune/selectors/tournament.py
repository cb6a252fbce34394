"""Population-based training by binary tournament: every member meets one rival, and the loser copies the winner."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vmaptune.selectors.contract import Selector
from vmaptune.selectors.evolving import evolving
from vmaptune.selectors.explore import Explore, explorer
from vmaptune.selectors.readiness import Readiness, Standing, one_of_the_best, readiness, sharing


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

    def meet(key: jax.Array, now: Standing) -> jax.Array:
        rival_key, sound_key = jax.random.split(key)
        n = len(now.rank)
        slots = jnp.arange(n, dtype=jnp.int32)
        rival = (slots + jax.random.randint(rival_key, (n,), 1, max(n, 2))) % n
        rival = jnp.where(now.failed, one_of_the_best(sound_key, now, n), rival)
        lost = now.failed | (now.open & (now.score < now.score[rival]))
        return jnp.where(lost, rival, slots)

    return evolving(ready, meet, exploring)
