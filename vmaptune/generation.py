"""Generations of a run as one compiled program, from the state before them to the state after.

A generation carries out the selector's last order, trains, measures and asks the selector again:

    inherit -> segment -> evaluate -> select (and crown)

The order comes first, so the first generation is no exception: it is born by an order that fills every slot. Any number of
generations run in one dispatch, without the host; what it learns of them comes back stacked. How generations are cut into
dispatches changes nothing in the results, because the loop over them is part of the program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.champion import Champion, crown, nobody
from vmaptune.config import RunConfig
from vmaptune.distributed import put
from vmaptune.errors import ConfigError
from vmaptune.plan import Plan, bytes_of
from vmaptune.plateau import SCALE, plateau
from vmaptune.population import Member, Offspring, Stream, inherit, make_newborn, next_trials, root_key, stream_key, unborn
from vmaptune.programs import Program
from vmaptune.recipe import Recipe, under
from vmaptune.selectors import Selector, View
from vmaptune.selectors.contract import failed
from vmaptune.store.record import Record
from vmaptune.tasks import Metrics, Task, check_task
from vmaptune.train import Inputs, evaluates_raw, evaluation_names, evaluation_of, make_inputs, segment_of

_RECORDS_BYTES = 4 * 2**20  # of stacked facts a dispatch: enough for a thousand small generations
_EVALUATION_BATCH = 4096


class State(NamedTuple):
    """All that a run carries from one generation to the next; what a checkpoint holds.

    Attributes:
        population: The members as the last generation measured them.
        offspring: What becomes of them when the next generation begins.
        selector: State of the search method.
        champion: The best member so far.
    """

    population: Member
    offspring: Offspring
    selector: Any
    champion: Champion


class Facts(NamedTuple):
    """What the host learns of a generation, computed on the device: fields of a `Record`."""

    trial: jax.Array
    step: jax.Array
    status: jax.Array
    fitness: jax.Array
    metrics: Metrics
    hyperparameters: Mapping[str, jax.Array]
    parent: jax.Array
    next_trial: jax.Array


def columns(recipe: Recipe) -> list[str]:
    """Names of all that is measured of a member in a generation: `train.loss`, `validation.accuracy`, ..."""
    measured = {"train": check_task(recipe.task), "validation": evaluation_names(recipe)}
    return [f"{part}.{name}" for part, names in measured.items() for name in names] + [SCALE] * recipe.on_plateau


def selector_of(config: RunConfig) -> Selector:
    """The search method; raises `ConfigError` if it runs on the host."""
    selector = config.selector()
    if not selector.pure:
        raise ConfigError(
            f"search.method: {config.search.name} runs on the host (pure = False), which this loop cannot call yet"
        )
    return selector


class Generations:
    """The compiled generations of a run: one program, compiled once.

    Args:
        config: What is run.
        task: Its task.
        plan: How it is laid out.
        start: f32[T, D], the genotypes of trials 0..T-1 where they are born afresh; default: the search method's.

    Attributes:
        capacity: The most generations that one dispatch can run.

    Raises:
        ConfigError: The search method runs on the host.
    """

    def __init__(self, config: RunConfig, task: Task, plan: Plan, start: np.ndarray | None = None) -> None:
        """Puts the data on the devices; compiles nothing yet."""
        self._n = config.population.size
        self._recipe, self._selector = config.recipe(task), selector_of(config)
        self._root = root_key(config.seed)
        self._newborn = make_newborn(
            task, self._recipe.opened, seed=self._root, replicates=config.population.replicates, plan=plan
        )
        self._inputs = make_inputs(self._recipe, seed=self._root, plan=plan)
        start = np.zeros((0, self._recipe.space.dimension), np.float32) if start is None else start
        self._start = put(start, plan.everywhere)
        self._one = _generation(config, self._recipe, plan, self._selector)
        everywhere, slots = plan.everywhere, plan.slots(self._n)
        self._shardings = State(slots, everywhere, everywhere, everywhere)  # type: ignore[arg-type]
        self._facts = _shapes(self._n, columns(self._recipe), self._recipe.space.axes)
        self.capacity = max(1, min(config.total_generations, _RECORDS_BYTES // max(bytes_of(self._facts), 1)))
        self._program = Program("generations", self._several, donate=(2,), out_shardings=(self._shardings, everywhere))

    def begin(self) -> State:
        """The state before the first generation: empty slots, and an order to fill them with uniform draws."""
        return put(self._begin(), self._shardings)

    def _begin(self) -> State:
        space, key = self._recipe.space, self._root
        population = unborn(self._newborn, self._n, space.dimension)
        drawn = space.sample(stream_key(key, Stream.GENOTYPE), self._n)
        parent, trial = jnp.full(self._n, -1, jnp.int32), jnp.arange(self._n, dtype=jnp.int32)
        born = Offspring(parent, _given(self._start, trial, parent, drawn))
        selector = self._selector.init(stream_key(key, Stream.SELECT), space, self._n)
        return State(population, born, selector, nobody(population))

    def __call__(self, state: State, first: int, count: int) -> tuple[State, Facts]:
        """Dispatches generations first..first+count and returns at once; the given state is donated.

        Args:
            state: The state before them.
            first: Number of the first one.
            count: How many, at most `capacity`.

        Returns:
            The state after them, and their facts, stacked along a leading axis of `capacity`; both still being computed.
        """
        return self._program(self._inputs, self._start, state, jnp.int32(first), jnp.int32(count))

    def _several(
        self, inputs: Inputs, start: jax.Array, state: State, first: jax.Array, count: jax.Array
    ) -> tuple[State, Facts]:
        def step(i: jax.Array, carry: tuple[State, Facts]) -> tuple[State, Facts]:
            state, stacked = carry
            state, facts = self._one(inputs, start, state, first + i)
            state = jax.lax.with_sharding_constraint(state, self._shardings)
            return state, jax.tree.map(lambda all_, new: all_.at[i].set(new), stacked, facts)

        stacked = jax.tree.map(lambda leaf: jnp.zeros((self.capacity, *leaf.shape), leaf.dtype), self._facts)
        return jax.lax.fori_loop(0, count, step, (state, stacked))


def _shapes(n: int, metrics: Iterable[str], axes: Iterable[str]) -> Facts:
    """The facts of a generation of n members, as shapes."""
    whole, real = jax.ShapeDtypeStruct((n,), jnp.int32), jax.ShapeDtypeStruct((n,), jnp.float32)
    measured, searched = dict.fromkeys(metrics, real), dict.fromkeys(axes, real)
    return Facts(whole, whole, whole, real, measured, searched, whole, whole)  # type: ignore[arg-type]


def _given(start: jax.Array, trial: jax.Array, parent: jax.Array, genotype: jax.Array) -> jax.Array:
    """The genotypes of an order f32[N, D], where those born afresh take the one that is given for their trial, if any."""
    if not len(start):
        return genotype
    rows = start[jnp.clip(trial, 0, len(start) - 1)]
    return jnp.where(((parent < 0) & (trial < len(start)))[:, None], rows, genotype)


def _generation(
    config: RunConfig, recipe: Recipe, plan: Plan, selector: Selector
) -> Callable[[Inputs, jax.Array, State, jax.Array], tuple[State, Facts]]:
    """One generation as a pure function."""
    task, size = recipe.task, config.population
    segment = segment_of(
        recipe,
        steps=size.segment_steps,
        batch_size=config.batch.size,
        order=config.batch.order,
        plan=plan,
        replicates=size.replicates,
    )
    examples, raw = task.splits.size("validation"), evaluates_raw(recipe)
    evaluate = evaluation_of(task, examples=examples, batch_size=_EVALUATION_BATCH, plan=plan, raw=raw)
    sign = 1.0 if task.direction == "max" else -1.0

    def generation(inputs: Inputs, start: jax.Array, state: State, number: jax.Array) -> tuple[State, Facts]:
        root, shared = inputs.root, size.replicates  # the seed is no part of the program
        newborn = make_newborn(task, recipe.opened, seed=root, replicates=shared, plan=plan)
        population = inherit(state.population, state.offspring, newborn)
        population, train = segment(inputs, jax.lax.rem(number, size.generations), population)  # each round alike
        validation = evaluate(inputs.validation, population)
        metrics = {f"train.{k}": v for k, v in train.items()} | {f"validation.{k}": v for k, v in validation.items()}
        metrics = jax.lax.with_sharding_constraint(metrics, plan.everywhere)  # selection is the same on every device

        done = population.step >= recipe.horizon
        seen = (population.genotype, population.step, population.trial, population.status, done)
        view = View(*jax.lax.with_sharding_constraint(seen, plan.everywhere))
        fitness = (sign * metrics[f"validation.{task.metric}"]).astype(jnp.float32)
        loss = metrics["validation.loss"].astype(jnp.float32)
        fitness = jnp.where(jnp.isfinite(loss), fitness, jnp.nan)  # accuracy is finite even where the network is not
        bad = failed(view, fitness)
        champion = crown(state.champion, population, done=view.done, failed=bad, fitness=fitness, loss=loss, generation=number)
        key = stream_key(inputs.root, Stream.SELECT, number)
        selector_state, offspring = selector.update(key, state.selector, view, fitness)
        last = number == config.total_generations - 1  # nothing comes after it, so nobody is replaced
        slots = jnp.arange(size.size, dtype=jnp.int32)
        parent = jnp.where(last, slots, offspring.parent)
        next_trial = next_trials(view.trial, parent)
        genotype = _given(start, next_trial, parent, offspring.genotype)
        offspring = Offspring(parent, jnp.where(last, view.genotype, genotype))

        values = recipe.space.decode(view.genotype, inputs.arrays)
        if recipe.on_plateau:
            metrics[SCALE] = jax.lax.with_sharding_constraint(population.plateau, plan.everywhere)[:, 0]
            settings = under(values, "plateau", recipe.passed("plateau"))
            decayed = jax.vmap(lambda state, fitness, given: plateau(state, fitness, **given))
            population = population._replace(plateau=decayed(population.plateau, fitness, settings))
        active = recipe.active(values)
        facts = Facts(
            trial=view.trial,
            step=view.step,
            status=view.status,
            fitness=jnp.where(bad, jnp.nan, fitness),
            metrics={name: value.astype(jnp.float32) for name, value in metrics.items()},
            hyperparameters={name: jnp.where(active[name], values[name], jnp.nan) for name in recipe.space.axes},
            parent=parent,
            next_trial=next_trial,
        )
        return State(population, offspring, selector_state, champion), facts

    return generation


def records_of(facts: Facts, first: int, count: int, seconds: Mapping[str, float]) -> list[Record]:
    """Unstacks a dispatch's facts.

    Args:
        facts: From a dispatch, on the host.
        first: Number of its first generation.
        count: How many it ran.
        seconds: Wall time by part, of each.
    """
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], facts) for i in range(count)]
    return [Record(first + i, **one._asdict(), seconds=seconds) for i, one in enumerate(each)]
