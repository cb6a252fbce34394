"""What every selector takes and returns, and the ranking they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vmaptune.population import Member, Offspring, Status
from vmaptune.proposers import Proposer
from vmaptune.space import Space


class View(NamedTuple):
    """What a selector may know of a population.

    Attributes:
        genotype: f32[N, D] in [0, 1].
        step: i32[N], steps trained.
        trial: i32[N], number of the trial in each slot.
        status: i32[N], a `Status`.
        done: bool[N], the trial has ended: it has reached its horizon, or was stopped before.
        age: i32[N], generations trained, its parents' included: step / segment_steps.
        progress: f32[N], step / horizon.
    """

    genotype: jax.Array
    step: jax.Array
    trial: jax.Array
    status: jax.Array
    done: jax.Array
    age: jax.Array
    progress: jax.Array

    @classmethod
    def of(cls, population: Member, *, horizon: int, segment_steps: int) -> View:
        """What a selector sees of a population.

        Args:
            population: N members.
            horizon: Steps of a full trial.
            segment_steps: Steps of a generation.
        """
        step = population.step
        progress = step.astype(jnp.float32) / horizon
        known = population.genotype, step, population.trial, population.status
        return cls(*known, done=step >= horizon, age=step // segment_steps, progress=progress)


class Selector(NamedTuple):
    """A search method.

    Attributes:
        init: `(key, space, n) -> state`, a pytree of arrays (or `()`).
        update: `(key, state, view, fitness f32[N]) -> (state, Offspring)`; higher fitness is better. It keeps to these
            rules: parents are in [-1, N); genotypes are in [0, 1]; a survivor's genotype is unchanged, bit for bit; a
            failed member (see `failed`) is no parent while a sound one exists; the best sound member survives, unless it has
            finished. It is traceable: it runs inside `jit`, `scan` and `vmap`.
        proposer: Where the genotypes of those born afresh come from, on the host; None: from `update` itself.
        heals: True if a failed replicate gives way to a copy of a sound one with the same settings.
        trials: Trials in all, after which slots stay empty; 0: as many as the run has time for.
    """

    init: Callable[[jax.Array, Space, int], Any]
    update: Callable[[jax.Array, Any, View, jax.Array], tuple[Any, Offspring]]
    proposer: Proposer | None = None
    trials: int = 0
    heals: bool = True


def failed(view: View, fitness: jax.Array) -> jax.Array:
    """bool[N]: members that diverged, or whose fitness is NaN or infinite, and empty slots. They rank behind all others."""
    return (view.status != Status.OK) | ~jnp.isfinite(fitness) | (view.trial < 0)


def ranking(view: View, fitness: jax.Array) -> jax.Array:
    """i32[N]: slots from best to worst; failed members last, ties in slot order."""
    score = jnp.where(failed(view, fitness), -jnp.inf, fitness)
    return jnp.argsort(-score, stable=True)
