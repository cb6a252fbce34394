"""What all population-based training has in common: who may be replaced when, and how an order is put together.

A row of the table chooses a parent for each slot and a genotype for each child. Here is the rest: who failed, how the sound
ones rank, whose place is open, and the settings of that, which every row shares (`sharing`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vmaptune.population import BIRTH, Offspring
from vmaptune.selectors.contract import Selector, View, failed, ranking
from vmaptune.settings import Natural, settings, with_settings


class Standing(NamedTuple):
    """How the members of a generation stand.

    Attributes:
        failed: bool[N]; they are always replaced.
        score: f32[N], the fitness, -inf of those that failed.
        order: i32[N], slots from best to worst.
        rank: i32[N], the place of each slot in that order.
        sound: i32[], how many did not fail.
        open: bool[N], sound members that may be replaced now by better ones.
    """

    failed: jax.Array
    score: jax.Array
    order: jax.Array
    rank: jax.Array
    sound: jax.Array
    open: jax.Array


class Readiness(NamedTuple):
    """When a sound member's place may be taken; made by `readiness`.

    Attributes:
        interval: Steps since its last change, at least.
        burn_in: Steps trained, at least.
        elite: How many of the best keep their places anyway.
    """

    interval: int
    burn_in: int
    elite: int

    def standing(self, changed: jax.Array, view: View, fitness: jax.Array) -> Standing:
        """Ranks a generation.

        Args:
            changed: i32[N], the step at which each slot's settings last changed.
            view: The population.
            fitness: f32[N].
        """
        n = fitness.shape[0]
        bad, order = failed(view, fitness), ranking(view, fitness).astype(jnp.int32)
        rank = jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, dtype=jnp.int32))
        ready = (view.step >= self.burn_in) & (view.step - changed >= self.interval) & (rank >= self.elite)
        score = jnp.where(bad, -jnp.inf, fitness)
        return Standing(bad, score, order, rank, jnp.sum(~bad), ready & ~bad)


def readiness(*, interval: Natural = 0, burn_in: Natural = 0, elite: Natural = 1) -> Readiness:
    """When a member may be replaced by a better one. One that failed is replaced at once.

    Args:
        interval: Steps that a member trains with its settings before it may be replaced; 0: every generation may replace it.
        burn_in: Steps before which nobody is replaced.
        elite: So many of the best are never replaced (the best one never is, whatever the number).
    """
    return Readiness(interval, burn_in, elite)


def sharing(*parts: Callable[..., Any]) -> Callable[[Callable[..., Selector]], Callable[..., Selector]]:
    """Decorates a row of the table, which is given what `parts` make of their settings, and shows those beside its own."""

    def decorate(row: Callable[..., Selector]) -> Callable[..., Selector]:
        def method(**given: Any) -> Selector:
            made = [part(**{name: given.pop(name) for name in settings(part) if name in given}) for part in parts]
            return row(*made, **given)

        method.__name__ = method.__qualname__ = row.__name__
        method.__doc__ = row.__doc__
        with_settings(method, row, *parts)
        # The borrowed Args end the docstring there; what the row says after its own stays true.
        method.__doc__ = "".join((method.__doc__ or "", *(inspect.getdoc(row) or "").partition("\n\nReferences:")[1:]))
        return method

    return decorate


def one_of_the_best(key: jax.Array, now: Standing, count: int) -> jax.Array:
    """i32[N]: for each slot one of the best `count` members that did not fail, drawn uniformly (slot order[0] if all did)."""
    n = len(now.order)
    return now.order[jax.random.randint(key, (n,), 0, jnp.clip(jnp.minimum(count, now.sound), 1, n))]


def offspring(key: jax.Array, view: View, now: Standing, parent: jax.Array, child: jax.Array) -> Offspring:
    """The order: survivors keep their genotypes, copies start with `child`, and if every member failed, all are born anew.

    Args:
        key: Key of the genotypes of those born anew.
        view: The population.
        now: How it stands.
        parent: i32[N], own slot: survive.
        child: f32[N, D], what a copy in each slot starts with.
    """
    slots = jnp.arange(len(parent), dtype=jnp.int32)
    parent = jnp.where(now.sound == 0, BIRTH, parent).astype(jnp.int32)
    anew = jax.random.uniform(key, view.genotype.shape, jnp.float32)
    genotype = jnp.where((parent == slots)[:, None], view.genotype, jnp.where((parent < 0)[:, None], anew, child))
    return Offspring(parent, genotype)


def last_change(changed: jax.Array, view: View, parent: jax.Array) -> jax.Array:
    """i32[N]: the step of each slot's last change, once an order is carried out: a copy changes at its parent's step."""
    copied = jnp.where(parent < 0, 0, view.step[parent])
    return jnp.where(parent == jnp.arange(len(parent)), changed, copied)
