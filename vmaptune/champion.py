"""The best member seen so far, kept with its weights while the population moves on.

Selection can lose the best weights: their member trains on and may get worse, or a run may end in a bad generation. The
champion is a copy taken at the moment validation chose it, which is what early stopping returns.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vmaptune.population import Member, take_member


class Champion(NamedTuple):
    """A copy of the best member so far.

    Attributes:
        member: The member, without the population axis.
        fitness: f32[], -inf before there is one.
        loss: f32[], validation loss, which decides between equal fitness.
        generation: i32[], when it was measured; -1 before there is one.
    """

    member: Member
    fitness: jax.Array
    loss: jax.Array
    generation: jax.Array


def nobody(population: Member) -> Champion:
    """No champion yet: beaten by any sound member. Takes its shapes from a population."""
    worst = jnp.float32(-jnp.inf)
    return Champion(take_member(population, 0), worst, -worst, jnp.int32(-1))


def crown(
    champion: Champion, population: Member, *, failed: jax.Array, fitness: jax.Array, loss: jax.Array, generation: jax.Array
) -> Champion:
    """Replaces the champion if a sound member has higher fitness, or equal fitness and a lower loss.

    Args:
        champion: The best before this generation.
        population: N members, as they were measured.
        failed: bool[N].
        fitness: f32[N], higher is better.
        loss: f32[N], validation loss.
        generation: i32[].
    """
    score = jnp.where(failed, -jnp.inf, fitness)
    slot = jnp.argmin(jnp.where(score == jnp.max(score), loss, jnp.inf))
    better = (score[slot] > champion.fitness) | ((score[slot] == champion.fitness) & (loss[slot] < champion.loss))
    new = Champion(take_member(population, slot), score[slot], loss[slot], generation)
    return jax.tree.map(lambda n, o: jnp.where(better & ~failed[slot], n, o), new, champion)
