"""One generation of a run, from the state before it to the state after it, and the compiled programs that it calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.champion import Champion, crown, nobody
from vmaptune.config import RunConfig
from vmaptune.errors import ConfigError
from vmaptune.plan import Plan
from vmaptune.population import Member, Offspring, Stream, inherit, init_population, make_newborn, root_key, stream_key
from vmaptune.programs import Clock, Program
from vmaptune.selectors import View
from vmaptune.selectors.contract import failed
from vmaptune.store.record import Record
from vmaptune.tasks import Metrics, Task
from vmaptune.train import make_evaluate, make_segment


class State(NamedTuple):
    """All that a run carries from one generation to the next; what a checkpoint holds."""

    population: Member
    selector: Any
    champion: Champion


class Facts(NamedTuple):
    """What the host learns of a generation, computed on the device."""

    trial: jax.Array
    step: jax.Array
    status: jax.Array
    fitness: jax.Array
    metrics: Metrics
    hyperparameters: Mapping[str, jax.Array]


class Programs(NamedTuple):
    """The compiled programs of a run."""

    init: Program
    segment: Callable[[Member, int], tuple[Member, Metrics]]
    evaluate: Callable[[Member], Metrics]
    select: Program
    inherit: Program


def make_programs(config: RunConfig, task: Task, plan: Plan) -> Programs:
    """Makes the five programs that a run calls. Each is compiled when it is first called, and never again."""
    recipe, selector = config.recipe(task), config.selector()
    if not selector.pure:
        raise ConfigError(
            f"search.method: {config.search.name} runs on the host (pure = False), which this loop cannot call yet"
        )
    root = root_key(config.seed)
    sign = 1.0 if task.direction == "max" else -1.0
    metric = f"validation.{task.metric}"
    slots, everywhere = plan.slots, plan.everywhere

    def init() -> State:
        population = init_population(task, recipe.space, recipe.optimizer, size=config.population.size, seed=root)
        selector_state = selector.init(stream_key(root, Stream.SELECT), recipe.space, config.population.size)
        return State(population, selector_state, nobody(population))

    def select(generation: jax.Array, state: State, metrics: Metrics) -> tuple[Any, Champion, Offspring, Facts]:
        population = state.population
        done = population.step >= recipe.horizon
        view = View(population.genotype, population.step, population.trial, population.status, done)
        fitness = (sign * metrics[metric]).astype(jnp.float32)
        loss = metrics["validation.loss"].astype(jnp.float32)
        fitness = jnp.where(jnp.isfinite(loss), fitness, jnp.nan)  # accuracy is finite even where the network is not
        bad = failed(view, fitness)
        key = stream_key(root, Stream.SELECT, generation)
        selector_state, offspring = selector.update(key, state.selector, view, fitness)
        facts = {"done": done, "failed": bad, "fitness": fitness, "loss": loss}
        champion = crown(state.champion, population, **facts, generation=generation)
        values = recipe.space.decode(population.genotype)
        searched = {name: values[name] for name in recipe.space.axes}
        fitness = jnp.where(bad, jnp.nan, fitness)
        return selector_state, champion, offspring, Facts(view.trial, view.step, view.status, fitness, metrics, searched)

    newborn = make_newborn(task, recipe.optimizer, seed=root)
    return Programs(
        init=Program("init", init, out_shardings=State(slots, everywhere, everywhere)),  # type: ignore[arg-type]
        segment=make_segment(
            task,
            recipe.space,
            recipe.optimizer,
            recipe.schedules,
            steps=config.population.segment_steps,
            horizon=recipe.horizon,
            batch_size=config.batch.size,
            order=config.batch.order,
            seed=config.seed,
            plan=plan,
        ),
        evaluate=make_evaluate(task, plan=plan),
        select=Program("select", select, out_shardings=everywhere),
        inherit=Program("inherit", partial(inherit, newborn=newborn), donate=(0,), out_shardings=slots),
    )


def advance(programs: Programs, state: State, generation: int, *, last: bool, clock: Clock) -> tuple[State, Record]:
    """One generation: trains, measures, selects, and carries the selector's order out (not after the last one)."""
    with clock("train"):
        population, train = programs.segment(state.population, generation)
        validation = programs.evaluate(population)
        jax.block_until_ready((population, validation))
    with clock("select"):
        state = state._replace(population=population)
        metrics = {f"train.{k}": v for k, v in train.items()} | {f"validation.{k}": v for k, v in validation.items()}
        selector_state, champion, offspring, facts = programs.select(jnp.int32(generation), state, metrics)
        facts, parent = jax.device_get((facts, offspring.parent))
        if last:
            parent = np.arange(len(parent), dtype=np.int32)
        else:
            population = programs.inherit(population, offspring)
        next_trial = np.array(population.trial)  # a copy: the next segment reuses the buffer
        state = jax.block_until_ready(State(population, selector_state, champion))
    return state, Record(generation, **facts._asdict(), parent=parent, next_trial=next_trial, seconds=clock.lap())
