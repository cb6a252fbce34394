"""The best member so far, kept with its weights while the population moves on.

A trial is judged when it has finished, at its horizon, where its schedule has run out: the champion is the best finished
member. Until one has finished, the best so far stands in, so that a run can be stopped at any time. Judging trials on the
way as well would pick the luckiest of all generations' measurements, and a winner picked from twenty times as many numbers
is the worse for it on data it was not picked by.
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
        done: bool[], it has reached its horizon.
        fitness: f32[], -inf before there is one.
        loss: f32[], validation loss, which decides between equal fitness.
        generation: i32[], when it was measured; -1 before there is one.
    """

    member: Member
    done: jax.Array
    fitness: jax.Array
    loss: jax.Array
    generation: jax.Array


def nobody(population: Member) -> Champion:
    """No champion yet: beaten by any sound member. Takes its shapes from a population."""
    worst = jnp.float32(-jnp.inf)
    return Champion(take_member(population, 0), jnp.bool_(False), worst, -worst, jnp.int32(-1))


def crown(
    champion: Champion,
    population: Member,
    *,
    done: jax.Array,
    failed: jax.Array,
    fitness: jax.Array,
    loss: jax.Array,
    generation: jax.Array,
) -> Champion:
    """Replaces the champion if a sound member beats it: finished before unfinished, then fitness, then the lower loss.

    Args:
        champion: The best before this generation.
        population: N members, as they were measured.
        done: bool[N], at their horizon.
        failed: bool[N].
        fitness: f32[N], higher is better.
        loss: f32[N], validation loss.
        generation: i32[].
    """
    loss = jnp.where(jnp.isnan(loss), jnp.inf, loss)
    slot = jnp.lexsort((loss, -fitness, ~done, failed))[0]
    new = Champion(take_member(population, slot), done[slot], fitness[slot], loss[slot], generation)
    fitter = (new.fitness > champion.fitness) | ((new.fitness == champion.fitness) & (new.loss < champion.loss))
    better = ~failed[slot] & ((new.done & ~champion.done) | ((new.done == champion.done) & fitter))
    return jax.tree.map(lambda n, o: jnp.where(better, n, o), new, champion)
