"""Generations of a run as one compiled program, from the state before them to the state after.

A generation carries out the selector's last order, trains, measures and asks the selector again:

    inherit -> segment -> evaluate -> select (and crown)

The order comes first, so the first generation is no exception: it is born by an order that fills every slot. Any number of
generations run in one dispatch, without the host; what it learns of them comes back stacked. How generations are cut into
dispatches changes nothing in the results, because the loop over them is part of the program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.champion import Champion, crown, nobody
from vmaptune.config import RunConfig
from vmaptune.data.batching import Batches
from vmaptune.distributed import put
from vmaptune.plan import Plan, bytes_of
from vmaptune.plateau import SCALE, plateau
from vmaptune.population import (
    BIRTH,
    EMPTY,
    Member,
    Offspring,
    Stream,
    inherit,
    make_newborn,
    next_trials,
    root_key,
    stream_key,
    unborn,
)
from vmaptune.programs import Program
from vmaptune.proposers import Told
from vmaptune.recipe import Recipe, under
from vmaptune.selectors import Selector, View, grouped
from vmaptune.selectors.contract import failed
from vmaptune.store.record import Record
from vmaptune.tasks import Metrics, Task, measured
from vmaptune.train import (
    Inputs,
    evaluates_raw,
    evaluation_batch,
    evaluation_names,
    evaluation_of,
    lookahead_of,
    segment_of,
)

_RECORDS_BYTES = 4 * 2**20  # of stacked facts a dispatch: enough for a thousand small generations


class State(NamedTuple):
    """All that a run carries from one generation to the next; what a checkpoint holds.

    Attributes:
        population: The members as the last generation measured them.
        offspring: What becomes of them when the next generation begins.
        selector: State of the search method.
        champion: The best member so far.
        proposals: f32[C, D], genotypes of trials (of groups of replicates) 0..C-1 where they are born afresh.
        known: i32[], how many of them are proposed by now; the rest is for the search method to say.
    """

    population: Member
    offspring: Offspring
    selector: Any
    champion: Champion
    proposals: jax.Array
    known: jax.Array


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


def columns(recipe: Recipe, *, lookahead: bool = False) -> list[str]:
    """Names of all that is measured of a member in a generation: `train.loss`, `validation.accuracy`, ..."""
    names = {"train": measured(recipe.task).train, "validation": evaluation_names(recipe)}
    names |= {"lookahead": names["validation"]} if lookahead else {}
    return [f"{part}.{name}" for part, of_part in names.items() for name in of_part] + [SCALE] * recipe.on_plateau


class Generations:
    """The compiled generations of a run: one program, compiled once.

    Args:
        config: What is run.
        task: Its task.
        plan: How it is laid out.
        start: f32[T, D], the genotypes of trials 0..T-1 where they are born afresh; default: the search method's.
        slots: How many; default: population.size.
        narrows: End a dispatch where half of the slots would do.

    Attributes:
        capacity: The most generations that one dispatch can run.
        waits: True if the program ends a dispatch where a trial is to begin that nothing has been proposed for.
    """

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        plan: Plan,
        start: np.ndarray | None = None,
        *,
        slots: int = 0,
        narrows: bool = False,
    ) -> None:
        """Puts the data on the devices; compiles nothing yet."""
        self._n = slots or config.population.size
        self._recipe, self._selector = config.recipe(task), config.selector()
        self._total = config.total_generations
        self._root, self._replicates = root_key(config.seed), config.repeats.replicates
        self._newborn = make_newborn(task, self._recipe.opened, seed=self._root, replicates=config.population.seeds, plan=plan)
        batches = config.batches(task)
        self._feed = config.feed(self._recipe, batches, seed=self._root, plan=plan)
        self._proposals, self._known = _proposals(config, start)
        self.waits = self._selector.proposer is not None and self._selector.proposer.adaptive
        self._narrows = narrows and self._n % (2 * self._replicates) == 0
        self._one = _generation(config, self._recipe, batches, plan, self._selector, self._n)
        everywhere, by_slot = plan.everywhere, plan.slots(self._n)
        self._shardings = State(by_slot, *[everywhere] * 5)  # type: ignore[arg-type]
        self._facts = _shapes(self._n, columns(self._recipe, lookahead=config.lookahead.steps > 0), self._recipe.space.axes)
        self.capacity = max(1, min(config.total_generations, _RECORDS_BYTES // max(bytes_of(self._facts), 1)))
        self.capacity = 1 if batches.streamed else self.capacity  # the next generation's data come in between
        outputs = (self._shardings, everywhere, everywhere)
        self._numbers = jax.jit(next_trials, out_shardings=everywhere)
        self._program = Program("generations", self._several, donate=(1,), out_shardings=outputs)

    def put(self, state: State) -> State:
        """Lays a state out on the devices."""
        return put(state, self._shardings)

    def births(self, state: State) -> np.ndarray:
        """i32[N], numbers of the genotypes that are to be born at the beginning of the next generation; -1 elsewhere."""
        number = np.asarray(self._numbers(state.population.trial, state.offspring.parent)) // self._replicates
        return np.where(np.asarray(state.offspring.parent) == BIRTH, number, -1)

    def with_proposals(self, state: State, proposals: np.ndarray, known: int) -> State:
        """The state with other proposals f32[C, D], of which so many are known."""
        rows, number = put((proposals, np.int32(known)), (self._shardings.proposals, self._shardings.known))
        return state._replace(proposals=rows, known=number)

    def is_over(self, state: State) -> bool:
        """True if all trials there were to be have ended."""
        return bool(np.all(np.asarray(state.offspring.parent) == EMPTY))

    def has_room(self, state: State) -> bool:
        """True if half of the slots would do from now on, and that is worth a compilation."""
        return self._narrows and bool(self._roomy(state.offspring.parent))

    def _roomy(self, parent: jax.Array) -> jax.Array:
        return ~jnp.any(parent == BIRTH) & (2 * jnp.sum(parent != EMPTY) <= self._n)

    def narrowed(self, state: State) -> State:
        """The state with half of the slots, or a quarter, ...: as few as its living members need."""
        parent = np.asarray(state.offspring.parent)
        living = np.flatnonzero(parent != EMPTY)
        n = self._n
        while n % (2 * self._replicates) == 0 and 2 * len(living) <= n:
            n //= 2
        kept = np.sort(np.concatenate([living, np.flatnonzero(parent == EMPTY)[: n - len(living)]]))
        population = jax.tree.map(lambda leaf: leaf[kept], state.population)
        slots = np.where(parent[kept] == EMPTY, EMPTY, np.arange(n)).astype(np.int32)
        return state._replace(population=population, offspring=Offspring(slots, state.offspring.genotype[kept]))  # type: ignore[arg-type]

    def begin(self) -> State:
        """The state before the first generation: empty slots, and an order to fill them."""
        space, key, n = self._recipe.space, self._root, self._n
        population = unborn(self._newborn, n, space.dimension)
        drawn = space.sample(stream_key(key, Stream.GENOTYPE), n // self._replicates)
        groups, trials = np.arange(n) // self._replicates, self._selector.trials
        parent = np.where((groups >= trials) & (trials > 0), EMPTY, BIRTH).astype(np.int32)
        born = Offspring(parent, np.repeat(drawn, self._replicates, axis=0))  # type: ignore[arg-type]
        selector = jax.tree.map(_copy, self._selector.init(stream_key(key, Stream.SELECT), space, n))
        known = np.int32(self._known)
        return self.put(State(population, born, selector, nobody(population), self._proposals, known))  # type: ignore[arg-type]

    def __call__(self, state: State, first: int, count: int) -> tuple[State, Facts, jax.Array]:
        """Dispatches generations first..first+count and returns at once; the given state is donated.

        Args:
            state: The state before them.
            first: Number of the first one.
            count: How many, at most `capacity`.

        Returns:
            The state after them; their facts, stacked along a leading axis of `capacity`; and how many ran: fewer than asked
            for where the host is needed in between (see `_halted`). All are still being computed.
        """
        result = self._program(self._feed(first), state, jnp.int32(first), jnp.int32(count))
        if first + count < self._total:
            self._feed.prepare(first + count)
        return result

    def _several(self, inputs: Inputs, state: State, first: jax.Array, count: jax.Array) -> tuple[State, Facts, jax.Array]:
        def goes_on(carry: tuple[jax.Array, State, Facts]) -> jax.Array:
            i, state, _ = carry
            return (i == 0) | ((i < count) & ~self._halted(state))

        def step(carry: tuple[jax.Array, State, Facts]) -> tuple[jax.Array, State, Facts]:
            i, state, stacked = carry
            state, facts = self._one(inputs, state, first + i)
            state = jax.lax.with_sharding_constraint(state, self._shardings)
            return i + 1, state, jax.tree.map(lambda all_, new: all_.at[i].set(new), stacked, facts)

        stacked = jax.tree.map(lambda leaf: jnp.zeros((self.capacity, *leaf.shape), leaf.dtype), self._facts)
        ran, state, stacked = jax.lax.while_loop(goes_on, step, (jnp.int32(0), state, stacked))
        return state, stacked, ran

    def _halted(self, state: State) -> jax.Array:
        """bool[]: the run is over, has room in too few slots, or needs a proposal before the next generation."""
        births, living = state.offspring.parent == BIRTH, state.offspring.parent != EMPTY
        halted = ~jnp.any(living)
        if self.waits:
            trial = next_trials(state.population.trial, state.offspring.parent)
            halted |= jnp.any(births & (trial // self._replicates >= state.known))
        if self._narrows:
            halted |= self._roomy(state.offspring.parent)
        return halted


def _copy(leaf: Any) -> Any:
    """A buffer of its own: the program takes its state's buffers over, and may not be given one of them twice."""
    return leaf.copy() if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.array(leaf)


def _proposals(config: RunConfig, start: np.ndarray | None) -> tuple[np.ndarray, int]:
    """f32[C, D], room for the genotypes of all trials, and how many of them are known before anything is measured."""
    space, selector = config.space, config.selector()
    given = np.zeros((0, space.dimension), np.float32) if start is None else start
    if selector.proposer is None:
        return given, len(given)
    capacity = max(config.most_trials, len(given))
    rows = np.zeros((capacity, space.dimension), np.float32)
    rows[: len(given)] = given
    if selector.proposer.adaptive:
        return rows, len(given)
    none = np.zeros(len(given), np.int64)
    told = Told(given, np.full(len(given), np.nan), none, none > 0, config.population.horizon)
    rows[len(given) :] = selector.proposer.propose(space, told, capacity - len(given), config.seed)
    return rows, capacity


def _shapes(n: int, metrics: Iterable[str], axes: Iterable[str]) -> Facts:
    """The facts of a generation of n members, as shapes."""
    whole, real = jax.ShapeDtypeStruct((n,), jnp.int32), jax.ShapeDtypeStruct((n,), jnp.float32)
    measured, searched = dict.fromkeys(metrics, real), dict.fromkeys(axes, real)
    return Facts(whole, whole, whole, real, measured, searched, whole, whole)  # type: ignore[arg-type]


def _proposed(state: State, replicates: int) -> Offspring:
    """The order of a state, where those born afresh take the genotype that is proposed for their trial, if any is."""
    (parent, genotype), proposals = state.offspring, state.proposals
    if not len(proposals):
        return state.offspring
    number = next_trials(state.population.trial, parent) // replicates
    rows = proposals[jnp.clip(number, 0, len(proposals) - 1)]
    return Offspring(parent, jnp.where(((parent == BIRTH) & (number < state.known))[:, None], rows, genotype))


def _generation(
    config: RunConfig, recipe: Recipe, batches: Batches, plan: Plan, selector: Selector, n: int
) -> Callable[[Inputs, State, jax.Array], tuple[State, Facts]]:
    """One generation as a pure function."""
    task, size, ahead = recipe.task, config.population, config.lookahead
    training: dict[str, Any] = {"batches": batches, "plan": plan, "replicates": size.seeds}
    segment = segment_of(recipe, steps=size.segment_steps, **training)
    look = ahead.steps and lookahead_of(recipe, steps=ahead.steps, shape=ahead.shape, after=size.segment_steps, **training)
    examples, raw = task.splits.size("validation"), evaluates_raw(recipe)
    evaluate = evaluation_of(task, examples=examples, batch_size=evaluation_batch(task), plan=plan, raw=raw)
    sign = 1.0 if task.direction == "max" else -1.0

    def generation(inputs: Inputs, state: State, number: jax.Array) -> tuple[State, Facts]:
        root, shared = inputs.root, size.seeds  # the seed is no part of the program
        newborn = make_newborn(task, recipe.opened, seed=root, replicates=shared, plan=plan)
        population = inherit(state.population, _proposed(state, config.repeats.replicates), newborn)
        round_ = jax.lax.rem(number, size.generations)  # each round of trials alike
        population, train = segment(inputs, round_, population)
        validation = evaluate(inputs.validation, population)
        metrics = {f"train.{k}": v for k, v in train.items()} | {f"validation.{k}": v for k, v in validation.items()}
        judged, judgement = population, "validation"
        if look:
            judged, judgement = look(inputs, round_, population), "lookahead"
            metrics |= {f"lookahead.{k}": v for k, v in evaluate(inputs.validation, judged).items()}
        metrics = jax.lax.with_sharding_constraint(metrics, plan.everywhere)  # selection is the same on every device

        view = View.of(population, horizon=recipe.horizon, segment_steps=size.segment_steps)
        view = jax.lax.with_sharding_constraint(view, plan.everywhere)
        fitness = (sign * metrics[f"{judgement}.{task.metric}"]).astype(jnp.float32)
        loss = metrics[f"{judgement}.loss"].astype(jnp.float32)
        fitness = jnp.where(jnp.isfinite(loss), fitness, jnp.nan)  # accuracy is finite even where the network is not
        bad = failed(view, fitness)
        merit, tie = fitness, loss
        if config.repeats.replicates > 1:  # of a genotype; the replicate nearest to it stands for it
            merit = jnp.repeat(grouped(fitness, bad, *astuple(config.repeats)), config.repeats.replicates)
            tie = jnp.abs(fitness - merit)
        champion = crown(
            state.champion,
            judged,
            done=view.done,
            failed=bad | jnp.isnan(merit),
            fitness=merit,
            loss=tie,
            generation=number,
        )
        key = stream_key(inputs.root, Stream.SELECT, number)
        selector_state, offspring = selector.update(key, state.selector, view, fitness)
        last = number == config.total_generations - 1  # nothing comes after it, so nobody is replaced
        slots = jnp.arange(n, dtype=jnp.int32)
        parent = jnp.where(last, slots, offspring.parent)
        offspring = Offspring(parent, jnp.where(last, view.genotype, offspring.genotype))

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
            next_trial=next_trials(view.trial, parent),
        )
        return State(population, offspring, selector_state, champion, state.proposals, state.known), facts

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
