"""Members, the keys they draw from, how they are born and how weights move between slots.

A *slot* is a place on the population axis and outlives what passes through it. A *trial* is one member from its birth to
its end, and its number never changes and is never used twice. A copy of a parent is a new trial: everything random about
a member is derived from (seed, stream, trial, step), never inherited and never from the slot or N, so no two members ever
share a key, two children of one parent differ, and a trial gives the same result wherever it is placed.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.optimizers import Optimizer
from vmaptune.plan import Plan, spread
from vmaptune.plateau import fresh
from vmaptune.recipe import opened_for
from vmaptune.settings import settings
from vmaptune.space import Space
from vmaptune.tasks import Task


class Status(IntEnum):
    """Whether a member is still training, and if not, why. Non-finite members are data, not exceptions."""

    OK = 0
    NONFINITE_LOSS = 1
    NONFINITE_PARAMS = 2

    @property
    def sentence(self) -> str:
        """What it means, and what usually helps."""
        return {
            Status.OK: "training",
            Status.NONFINITE_LOSS: "the training loss became NaN or infinite: a smaller learning rate or clip_norm helps",
            Status.NONFINITE_PARAMS: "a weight became NaN or infinite: a smaller learning rate or clip_norm helps",
        }[self]


class Member(NamedTuple):
    """One network in training. A *population* is a Member whose every leaf has a leading axis N, the slots.

    Attributes:
        genotype: f32[D] in [0, 1], its point in the search space.
        params: Weights.
        model_state: What the model carries besides weights, such as batch statistics.
        opt_state: State of the optimizer.
        step: i32[], steps trained since the weights were fresh, its parents' steps included.
        trial: i32[], number of the trial.
        status: i32[], a `Status`.
        plateau: f32[4], how far its learning rate has fallen on plateaus, and since when; see `vmaptune.plateau`.
    """

    genotype: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    step: jax.Array
    trial: jax.Array
    status: jax.Array
    plateau: jax.Array


BIRTH, EMPTY = -1, -2  # where a slot's next member comes from, if not from a slot


class Offspring(NamedTuple):
    """A selector's order for the next generation.

    Attributes:
        parent: i32[N]. Own slot: survive. Another slot: a copy of that member. BIRTH (-1): born anew. EMPTY (-2): the slot is
            left empty, because no trial is left to fill it.
        genotype: f32[N, D] in [0, 1]; a survivor's is its own, unchanged.
    """

    parent: jax.Array
    genotype: jax.Array


class Stream(IntEnum):
    """Independent sources of randomness under one seed."""

    INIT = 0
    STEP = 1
    BATCH = 2
    GENOTYPE = 3
    SELECT = 4


def stream_key(seed: jax.Array | int, stream: Stream, *numbers: jax.Array | int) -> jax.Array:
    """The key of a stream at given numbers (a trial and a step, or a generation): folded in one after another.

    Args:
        seed: Seed of the run, or its root key.
        stream: What the key is for.
        *numbers: i32[] each.
    """
    key: Any = root_key(seed)
    for number in (stream, *numbers):
        key = jax.random.fold_in(key, number)
    return key


def root_key(seed: jax.Array | int) -> jax.Array:
    """The key of a seed; a key is its own.

    Always threefry: under `vmap`, JAX's `rbg` generators draw for all members from the key of the first.
    """
    if isinstance(seed, jax.Array) and jnp.issubdtype(seed.dtype, jax.dtypes.prng_key):
        return seed
    return jax.random.key(seed, impl="threefry2x32")


def source(trial: jax.Array, replicates: int) -> jax.Array:
    """The number that a trial's keys are made with: its own, or, with replicates, one that it shares on purpose."""
    return trial % replicates if replicates else trial


Newborn = Callable[[jax.Array, jax.Array], Member]


def make_newborn(
    task: Task,
    optimizer: Optimizer,
    *,
    space: Space | None = None,
    seed: jax.Array | int = 0,
    replicates: int = 0,
    plan: Plan | None = None,
) -> Newborn:
    """Makes the function that gives birth: `(trial i32[N], genotype f32[N, D]) -> Member[N]`, fresh weights at step 0.

    Args:
        task: Gives the initial weights.
        optimizer: Gives the initial optimizer state; its structure does not depend on values.
        space: Says which settings of the optimizer are given at all, where that makes a difference to its state.
        seed: Seed of the run, or its root key.
        replicates: See `source`; 0: every trial draws for itself.
        plan: Layout; default: all side by side, wherever they lie.
    """
    init, sample = task.init, jax.tree.map(np.array, task.sample)  # copies, which do not keep the data set alive
    optimizer = opened_for(optimizer, space) if space else optimizer
    fill = {s.name: 1.0 for s in settings(optimizer).values() if s.traced and s.required}

    def one(shared: tuple[jax.Array, Any], member: tuple[jax.Array, jax.Array]) -> Member:
        (root, sample), (trial, genotype) = shared, member
        params, model_state = init(stream_key(root, Stream.INIT, source(trial, replicates)), sample)
        zero = jnp.zeros((), jnp.int32)
        return Member(genotype, params, model_state, optimizer(**fill).init(params), zero, trial, zero, jnp.asarray(fresh()))

    def newborn(trial: jax.Array, genotype: jax.Array) -> Member:
        shared, members = (root_key(seed), sample), (trial, genotype)
        return spread(one, plan, shared, members) if plan else jax.vmap(partial(one, shared))(members)

    return newborn


def init_population(
    task: Task, space: Space, optimizer: Optimizer, *, size: int, seed: jax.Array | int = 0, plan: Plan | None = None
) -> Member:
    """The first generation: trials 0..N-1, uniform over the search space, each with weights of its own.

    Args:
        task: What is trained.
        space: Where genotypes are drawn from.
        optimizer: A row of `OPTIMIZERS`, or any function from keyword settings to an optax transformation.
        size: N.
        seed: Seed of the run, or its root key.
        plan: Layout; default: all side by side, wherever they lie.

    Returns:
        A population.
    """

    @jax.jit
    def born(root: jax.Array) -> Member:
        genotype = space.sample(stream_key(root, Stream.GENOTYPE), size)
        return make_newborn(task, optimizer, space=space, seed=root, plan=plan)(jnp.arange(size, dtype=jnp.int32), genotype)

    return born(root_key(seed))


def unborn(newborn: Newborn, size: int, dimension: int) -> Member:
    """N empty slots, trial -1 in each: what the first births of a run are written into. Costs no compilation.

    Args:
        newborn: From `make_newborn`; only its shapes are asked for.
        size: N.
        dimension: D, length of a genotype.
    """
    slots = jax.ShapeDtypeStruct((size,), jnp.int32), jax.ShapeDtypeStruct((size, dimension), jnp.float32)

    def empty(leaf: jax.ShapeDtypeStruct) -> Any:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return np.zeros(leaf.shape, leaf.dtype)
        like = jax.random.key_data(jax.random.key(0, impl=jax.random.key_impl(leaf)))  # type: ignore[arg-type]
        return jax.random.wrap_key_data(jnp.zeros((*leaf.shape, *like.shape), like.dtype), impl=jax.random.key_impl(leaf))  # type: ignore[arg-type]

    population = jax.tree.map(empty, jax.eval_shape(newborn, *slots))
    return population._replace(trial=np.full(size, -1, np.int32))


def next_trials(trial: jax.Array, parent: jax.Array) -> jax.Array:
    """Numbers of the trials after a selector's order i32[N]: survivors keep theirs, others count up in slot order.

    As long as slots are filled, the largest number is in the population, so the next free one is known from it. An empty
    slot's is -1.
    """
    is_new = (parent != jnp.arange(len(trial), dtype=jnp.int32)) & (parent != EMPTY)
    trial = jnp.where(parent == EMPTY, -1, jnp.where(is_new, jnp.max(trial) + jnp.cumsum(is_new.astype(jnp.int32)), trial))
    return trial.astype(jnp.int32)


def inherit(population: Member, offspring: Offspring, newborn: Newborn) -> Member:
    """Carries out a selector's order: the one place where weights move between slots.

    A copy takes weights, model state, optimizer state and step from its parent and starts a trial of its own (see
    `next_trials`). A pure function; called again and again, it wants `jax.jit(partial(inherit, newborn=newborn))`.

    Args:
        population: N members.
        offspring: Parents and genotypes.
        newborn: From `make_newborn`; only run when somebody is born anew.

    Returns:
        The next generation. Survivors are unchanged, bit for bit.
    """
    n = population.trial.shape[0]
    slots = jnp.arange(n, dtype=jnp.int32)
    reborn = offspring.parent == BIRTH
    trial = next_trials(population.trial, offspring.parent)

    source = jnp.where(offspring.parent < 0, slots, offspring.parent)
    copied = jax.tree.map(lambda leaf: leaf[source], population)
    copied = copied._replace(genotype=offspring.genotype, trial=trial)

    def with_births(copied: Member) -> Member:
        fresh = newborn(trial, offspring.genotype)
        return jax.tree.map(lambda new, old: jnp.where(_along(reborn, new), new, old), fresh, copied)

    return jax.lax.cond(jnp.any(reborn), with_births, lambda copied: copied, copied)


def _along(mask: jax.Array, leaf: jax.Array) -> jax.Array:
    """Reshapes a mask [N] so that it broadcasts over a leaf [N, ...]."""
    return mask.reshape(mask.shape + (1,) * (leaf.ndim - 1))


def take_member(population: Member, slot: jax.Array | int) -> Member:
    """The member in a slot, without the population axis."""
    return jax.tree.map(lambda leaf: leaf[slot], population)
