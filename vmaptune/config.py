"""The config of a run: frozen, complete and checked.

A config is a tree of TOML values. Some sections name a row of a table (`[optimizer] name = "adamw"`) and hold that row's
settings; the others are small dataclasses. Both are read by their signatures, so a section knows no more keys than the
code does. Resolving fills in every default and checks every name, type, range and axis, before anything is compiled.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax

from vmaptune.choices import (
    Choice,
    MixedChoice,
    Tree,
    bind,
    builder_settings,
    choose,
    choose_groups,
    choose_schedules,
    choose_stopper,
    table_of,
)
from vmaptune.data.batching import Batches, make_batches
from vmaptune.data.subsample import subsampled
from vmaptune.data.weights import located
from vmaptune.errors import ConfigError, did_you_mean
from vmaptune.feed import Feed, placed
from vmaptune.finetuning import finetuned
from vmaptune.optimizers import OPTIMIZERS
from vmaptune.plan import Plan
from vmaptune.plateau import plateau
from vmaptune.precision import precise
from vmaptune.recipe import LEARNING_RATE, Recipe, check_groups, make_recipe, schedule_prefix
from vmaptune.schedules import SCHEDULES
from vmaptune.sections import (
    Batch,
    Budget,
    Checkpoint,
    Data,
    Fitness,
    Init,
    Layout,
    Lookahead,
    PopulationSize,
    Precision,
    Repeats,
    as_table,
    bound,
    essence_of,
    fixed,
    sink_tables,
)
from vmaptune.selectors import SELECTORS, TRIAL_METHODS, Selector, replicated, stopped_by
from vmaptune.settings import Seed, Setting, convert, settings
from vmaptune.space import Axis, Space
from vmaptune.stoppers import STOPPERS
from vmaptune.strict_json import finite_json
from vmaptune.tasks import Task, check_task, find_task

FROM_PYTHON = "(from Python)"  # stands as task.name when a Task object was passed to tune()
SECTIONS = (
    *("seed", "task", "data", "init", "batch", "optimizer", "groups", "schedule", "plateau"),
    *("precision", "population", "fitness", "search", "checkpoint", "plan", "sinks"),
)


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run does. Made by `load_config` or `resolve`; never by hand."""

    seed: int
    task: Choice
    data: Data
    init: Init
    batch: Batch
    optimizer: Choice
    parameter_groups: dict[str, Choice]
    schedules: dict[str, Choice]
    plateau: Choice
    precision: Precision
    population: PopulationSize
    fitness: Fitness
    lookahead: Lookahead
    search: Choice
    repeats: Repeats
    stop: Choice
    budget: Budget
    checkpoint: Checkpoint
    plan: Layout
    sinks: dict[str, Tree]

    @cached_property
    def tree(self) -> Tree:
        """The config as plain TOML values, complete: every setting, defaults included."""
        schedule: Tree = {}
        for target, family in self.schedules.items():
            schedule |= family.tree if target == LEARNING_RATE else {target.partition(".")[2]: family.tree}
        return {
            "seed": self.seed,
            "task": self.task.tree,
            "data": asdict(self.data) | {"classes": list(self.data.classes)},
            "init": as_table(self.init),
            "batch": asdict(self.batch),
            "optimizer": self.optimizer.tree,
            "groups": {name: choice.table for name, choice in self.parameter_groups.items()},
            "schedule": schedule,
            "plateau": self.plateau.table,
            "precision": asdict(self.precision),
            "population": asdict(self.population),
            "fitness": asdict(self.fitness) | {"lookahead": asdict(self.lookahead)},
            "search": {
                "method": self.search.name,
                **self.search.table,
                **asdict(self.repeats),
                "stop": self.stop.tree,
                "budget": asdict(self.budget),
            },
            "checkpoint": asdict(self.checkpoint),
            "plan": asdict(self.plan),
            "sinks": self.sinks,
        }

    @property
    def essence(self) -> Tree:
        """The config without what may change while a run goes on: where it and its data are, how often it is checkpointed."""
        return essence_of(self.tree)

    @property
    def canonical_json(self) -> str:
        """One text for one config: sorted keys, no spaces, infinities as strings. Hashed into `run_id`."""
        return json.dumps(finite_json(self.essence), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def run_id(self) -> str:
        """Name of this config by content: two runs with the same id were asked to do the same."""
        return hashlib.sha256(self.canonical_json.encode()).hexdigest()[:12]

    @property
    def groups(self) -> int:
        """Genotypes that are trained side by side: slots, or groups of replicates."""
        return self.population.size // self.repeats.replicates

    @property
    def total_generations(self) -> int:
        """Generations of the whole run, at most: those that all trials need one after another, as far as the budget goes.

        Trials without a number to them go on until the budget is spent.
        """
        size, selector = self.population, self.selector_alone()
        generations = size.generations * math.ceil(max(selector.trials, self.groups) / self.groups)
        if not self.budget.steps:
            return generations
        affordable = self.budget.steps // self.generation_steps
        return affordable if selector.proposer and not selector.trials else min(generations, affordable)

    @property
    def generation_steps(self) -> int:
        """Member-steps of a generation; of the first, where trials are fewer than slots."""
        groups = min(self.groups, self.selector_alone().trials or self.groups)
        return groups * self.repeats.replicates * (self.population.segment_steps + self.lookahead.steps)

    @property
    def most_trials(self) -> int:
        """The most genotypes that the run can begin: every slot may be freed after every generation."""
        return self.selector_alone().trials or self.groups * self.total_generations

    @property
    def space(self) -> Space:
        """Every traced setting by dotted name."""
        entries = {f"task.{k}": v for k, v in self.task.traced.items()}
        entries |= {f"optimizer.{k}": v for k, v in self.optimizer.traced.items()}
        for name, choice in self.parameter_groups.items():
            entries |= {f"groups.{name}.{k}": v for k, v in choice.traced.items()}
        for target, family in self.schedules.items():
            entries |= {f"{schedule_prefix(target)}.{k}": v for k, v in family.traced.items()}
        entries |= {f"plateau.{k}": v for k, v in self.plateau.traced.items()}
        return Space(entries)

    @property
    def optional_axes(self) -> set[str]:
        """Axes that do not matter to every member: knobs of families that only some of them follow."""
        mixed = ((schedule_prefix(target), c) for target, c in self.schedules.items() if isinstance(c, MixedChoice))
        return {f"{prefix}.{k}" for prefix, c in mixed for k, v in c.traced.items() if "." in k and isinstance(v, Axis)}

    def recipe(self, task: Task) -> Recipe:
        """The functions and the space that train a member of this config."""
        optimizer = partial(OPTIMIZERS[self.optimizer.name], **self.optimizer.static)
        schedules = {
            target: c.mixture() if isinstance(c, MixedChoice) else partial(SCHEDULES[c.name], **c.static)
            for target, c in self.schedules.items()
        }
        return make_recipe(
            task,
            optimizer,
            schedules,
            self.space,
            horizon=self.population.horizon,
            final_anneal=self.fitness.final_anneal,
            groups={name: choice.values["match"] for name, choice in self.parameter_groups.items()},
        )

    def batches(self, task: Task) -> Batches:
        """How the training split of the task is cut into batches, and whether it is streamed."""
        batch = self.batch
        batches = make_batches(task.splits, size=batch.size, order=batch.order, balance=batch.balance, seed=self.seed)
        steps = self.population.segment_steps + self.lookahead.steps
        return placed(batches, task, self.data.placement, steps=steps)

    def feed(self, recipe: Recipe, batches: Batches, *, seed: jax.Array | int, plan: Plan) -> Feed:
        """What the generations of the run train on."""
        shape = {"segment_steps": self.population.segment_steps, "round_": self.population.generations}
        return Feed(recipe, batches, seed=seed, plan=plan, ahead=self.lookahead.steps, **shape)

    def selector(self) -> Selector:
        """The search method, with its stopper, applied to groups of replicates."""
        selector, generations = self.selector_alone(), self.population.generations
        if self.stop.name != "none":
            stopper = STOPPERS[self.stop.name](**self.stop.values)
            selector = stopped_by(selector, stopper, trials=self.most_trials, generations=generations)
        repeats = self.repeats
        return replicated(selector, repeats.replicates, repeats.aggregate) if repeats.replicates > 1 else selector

    def selector_alone(self) -> Selector:
        """The search method as it would be alone; a finite number of proposals bounds its trials."""
        selector = SELECTORS[self.search.name](**self.search.values)
        if selector.proposer and (size := selector.proposer.size(self.space)):
            selector = SELECTORS[self.search.name](**self.search.values | {"trials": min(selector.trials or size, size)})
        return selector

    def with_values(self, values: Mapping[str, float]) -> RunConfig:
        """This config as a single, plain training run: each axis replaced by its value, one member, no selection."""

        def below(prefix: str) -> dict[str, float]:
            return {k.removeprefix(f"{prefix}."): v for k, v in values.items() if k.startswith(f"{prefix}.")}

        schedules = {target: c.pinned(below(schedule_prefix(target))) for target, c in self.schedules.items()}
        return RunConfig(
            seed=self.seed,
            task=self.task.pinned(below("task")),
            data=self.data,
            init=self.init,
            batch=self.batch,
            optimizer=self.optimizer.pinned(below("optimizer")),
            parameter_groups={name: c.pinned(below(f"groups.{name}")) for name, c in self.parameter_groups.items()},
            schedules=schedules,
            plateau=self.plateau.pinned(below("plateau")),
            precision=self.precision,
            population=PopulationSize(
                size=1, segment_steps=self.population.segment_steps, generations=self.population.generations
            ),
            fitness=self.fitness,
            lookahead=self.lookahead,
            search=choose({"method": "random"}, "search", SELECTORS, default="random", key="method"),
            repeats=Repeats(),
            stop=choose({}, "search.stop", STOPPERS, default="none"),
            budget=Budget(),
            checkpoint=self.checkpoint,
            plan=Layout(),
            sinks={},
        )


def resolve(tree: Mapping[str, Any], *, task: Task | None = None, source: str = "config") -> tuple[RunConfig, Task]:
    """Checks a tree, fills in every default, and builds the task.

    Args:
        tree: TOML values; `Axis` objects may stand for their tables.
        task: A task of your own, in place of the one that `[task] name` would build.
        source: Where the tree came from, to begin an error with.

    Returns:
        The config and its task.

    Raises:
        ConfigError: The first thing found wrong.
    """
    try:
        return _resolve(tree, task)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error.__cause__


def _resolve(tree: Mapping[str, Any], task: Task | None) -> tuple[RunConfig, Task]:
    for name in tree:
        if name == "cohorts":
            raise ConfigError(
                "cohorts: several shapes are several runs; use `vmaptune run`, or vmaptune.tune_cohorts in Python"
            )
        if name not in SECTIONS:
            raise ConfigError(f"there is no section or setting {name!r}{did_you_mean(name, SECTIONS)}")
    seed = convert(Setting("seed", Seed, 0, False, ""), tree.get("seed", 0), "seed")
    task_choice, task = _resolve_task(table_of(tree, "task"), task)
    optimizer = choose(table_of(tree, "optimizer"), "optimizer", OPTIMIZERS, default="adamw")
    data = bound(Data, table_of(tree, "data"), "data")
    if data != Data():
        splits = subsampled(task.splits, fraction=data.fraction, classes=data.classes, seed=seed)
        task = task.remade(splits) if task.remade else task._replace(splits=splits)
    precision = bound(Precision, table_of(tree, "precision"), "precision")
    if precision != Precision():
        task = precise(task, **asdict(precision))
    init = bound(Init, table_of(tree, "init"), "init")
    task, sha256 = finetuned(task, init.from_, part=init.part, freeze=init.freeze, sha256=init.sha256)
    fitness, search = table_of(tree, "fitness"), table_of(tree, "search")
    method = {k: v for k, v in search.items() if k not in _ALL_METHODS}
    config = RunConfig(
        seed=seed,
        task=task_choice,
        data=data,
        init=replace(init, from_=located(init.from_), sha256=sha256),
        batch=fixed(Batch, tree, "batch"),
        optimizer=optimizer,
        parameter_groups=choose_groups(table_of(tree, "groups")),
        schedules=choose_schedules(table_of(tree, "schedule"), optimizer, task_choice),
        plateau=Choice("plateau", bind(settings(plateau), table_of(tree, "plateau"), "plateau", owner="it")),
        precision=precision,
        population=fixed(PopulationSize, tree, "population"),
        fitness=bound(Fitness, {k: v for k, v in fitness.items() if k != "lookahead"}, "fitness", besides=["lookahead"]),
        lookahead=bound(Lookahead, table_of(fitness, "lookahead", "fitness."), "fitness.lookahead"),
        search=choose(method, "search", SELECTORS, default="truncation", key="method", besides=_ALL_METHODS),
        repeats=bound(Repeats, {k: v for k, v in search.items() if k in settings(Repeats)}, "search"),
        stop=choose_stopper(search.get("stop", {})),
        budget=bound(Budget, table_of(search, "budget", "search."), "search.budget"),
        checkpoint=fixed(Checkpoint, tree, "checkpoint"),
        plan=fixed(Layout, tree, "plan"),
        sinks=sink_tables(table_of(tree, "sinks")),
    )
    check_task(task, where=f"task {task_choice.name}")
    _check(config, task)
    return config, task


_ALL_METHODS = {*settings(Repeats), "stop", "budget"}  # of [search], whatever the method


def _check(config: RunConfig, task: Task) -> None:
    """What sections ask of each other."""
    size, stop = config.population, config.stop
    if size.horizon >= 2**31:
        raise ConfigError(f"population: segment_steps x generations must stay below {2**31}; given: {size.horizon}")
    config.batches(task)
    if config.parameter_groups:
        check_groups(config.recipe(task), config.optimizer.name)
    if config.fitness.final_anneal > size.horizon:
        raise ConfigError(
            f"fitness.final_anneal: more than the {size.horizon} steps of a trial; given: {config.fitness.final_anneal}"
        )
    if config.lookahead.steps and LEARNING_RATE.partition(".")[2] not in config.optimizer.values:
        raise ConfigError(f"fitness.lookahead: {config.optimizer.name} has no learning_rate that could be annealed")
    if size.size % config.repeats.replicates:
        raise ConfigError(f"search.replicates: must divide population.size = {size.size}; given: {config.repeats.replicates}")
    if stop.name != "none" and config.search.name not in TRIAL_METHODS:
        raise ConfigError(
            f"search.stop: {config.search.name} replaces members by copies and stops none; choose another search.method: "
            f"{', '.join(TRIAL_METHODS)}; given: {stop.name!r}"
        )
    if config.total_generations < 1:
        least = f"less than one generation of {config.generation_steps} steps"
        raise ConfigError(f"search.budget.steps: {least}; given: {config.budget.steps}")
    # Computes nothing; a method refuses here what it cannot do.
    jax.eval_shape(lambda: config.selector().init(jax.random.key(0), config.space, size.size))


def _resolve_task(table: Mapping[str, Any], task: Task | None) -> tuple[Choice, Task]:
    given = {k: v for k, v in table.items() if k != "name"}
    if task is not None:
        name, values = FROM_PYTHON, {}
    else:
        name = table.get("name", "digits")
        if name == FROM_PYTHON:
            raise ConfigError(
                "task.name: this run's task was passed from Python; go on there: tune(config, task=..., out=..., resume=True)"
            )
        if not isinstance(name, str):
            raise ConfigError(f"task.name: expected a string; given: {name!r}")
        builder = find_task(name)
        known = builder_settings(builder, name)
        values = bind(known, {k: v for k, v in given.items() if k in known}, "task", owner=name)
        task = builder(**values)
        if not isinstance(task, Task):
            raise ConfigError(f"task.name: {name} must return a vmaptune.Task; it returned {type(task).__name__}")
    rest = {k: v for k, v in given.items() if k not in values}
    loss = settings(task.loss)
    for key in rest:
        if key not in loss:
            raise ConfigError(f"task: {name} has no setting {key!r}{did_you_mean(key, {*loss, *values, 'name'})}")
    own = bind(loss, rest, "task", owner=name)
    static = {k: v for k, v in own.items() if not loss[k].traced}
    if static:
        task = task._replace(loss=partial(task.loss, **static))
    return Choice(name, values | own), task
