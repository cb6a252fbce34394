"""The config of a run: frozen, complete and checked.

A config is a tree of TOML values. Some sections name a row of a table (`[optimizer] name = "adamw"`) and hold that row's
settings; the others are small dataclasses. Both are read by their signatures, so a section knows no more keys than the
code does. Resolving fills in every default and checks every name, type, range and axis, before anything is compiled.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property, partial
from typing import Any, Literal

from vmaptune.choices import Choice, MixedChoice, Tree, bind, choose, choose_schedule
from vmaptune.errors import ConfigError, did_you_mean
from vmaptune.optimizers import OPTIMIZERS
from vmaptune.plateau import plateau
from vmaptune.recipe import LEARNING_RATE, Recipe, make_recipe, schedule_prefix
from vmaptune.schedules import SCHEDULES
from vmaptune.selectors import SELECTORS, Selector
from vmaptune.settings import Count, Natural, Seed, Setting, convert, settings, show
from vmaptune.space import Axis, Space
from vmaptune.strict_json import finite_json
from vmaptune.tasks import Task, check_task, find_task
from vmaptune.train import Order

FROM_PYTHON = "(from Python)"  # stands as task.name when a Task object was passed to tune()


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a step sees.

    Attributes:
        size: Examples a step.
        order: shared: all members see the same batches, so they differ by their settings alone; independent: each trial
            shuffles for itself.
    """

    size: Count = 128
    order: Order = "shared"


@dataclass(frozen=True, kw_only=True)
class PopulationSize:
    """How many members train for how long.

    Attributes:
        size: Members, N.
        segment_steps: Training steps between two selections, K.
        generations: Number of selections; the horizon of every schedule is segment_steps x generations.
        replicates: Sources of randomness (initial weights, dropout, independent batches) that trials share in turn: trial t
            draws as trial t modulo replicates does, so that settings which are each tried so often are compared on the same
            seeds. 0: every trial draws for itself.
    """

    size: Count = 64
    segment_steps: Count = 50
    generations: Count = 20
    replicates: Natural = 0

    @property
    def horizon(self) -> int:
        """Steps of a full trial."""
        return self.segment_steps * self.generations


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """How often the run can be picked up again.

    Attributes:
        every: Generations between two checkpoints, at least: they are made where a dispatch ends. The end always has one.
    """

    every: Count = 1


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the population is laid on the hardware. Changes speed and memory, and results by no more than rounding.

    Attributes:
        name: auto: the fastest of a few plans that were timed once on this machine, or a rule of thumb for runs too short
            to time any. strict: a member's results do not depend on how many others there are. What is given below is
            kept to by both.
        devices: Devices that share the population; 0: all, but no more than population.size.
        chunk: Members that a device trains side by side; 0: chosen.
        lowering: How convolutions are computed: grouped (as vmap leaves them), canonical (dimensions in the order of the
            fast CPU code), im2col (as matrix products), or auto.
        unroll: Training steps in one iteration of the compiled loop; 0: chosen.
        generations_per_dispatch: Generations that run without the host in between; 0: about a second's worth. The run can
            be stopped, and is checkpointed, where a dispatch ends.
    """

    name: Literal["auto", "strict"] = "auto"
    devices: Natural = 0
    chunk: Natural = 0
    lowering: Literal["auto", "grouped", "canonical", "im2col"] = "auto"
    unroll: Natural = 0
    generations_per_dispatch: Natural = 0


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run does. Made by `load_config` or `resolve`; never by hand."""

    seed: int
    task: Choice
    batch: Batch
    optimizer: Choice
    schedules: dict[str, Choice]
    plateau: Choice
    population: PopulationSize
    search: Choice
    checkpoint: Checkpoint
    plan: Layout

    @cached_property
    def tree(self) -> Tree:
        """The config as plain TOML values, complete: every setting, defaults included."""
        schedule: Tree = {}
        for target, family in self.schedules.items():
            schedule |= family.tree if target == LEARNING_RATE else {target.partition(".")[2]: family.tree}
        return {
            "seed": self.seed,
            "task": self.task.tree,
            "batch": asdict(self.batch),
            "optimizer": self.optimizer.tree,
            "schedule": schedule,
            "plateau": {k: v for k, v in self.plateau.tree.items() if k != "name"},
            "population": asdict(self.population),
            "search": {"method": self.search.name} | {k: v for k, v in self.search.tree.items() if k != "name"},
            "checkpoint": asdict(self.checkpoint),
            "plan": asdict(self.plan),
        }

    @property
    def essence(self) -> Tree:
        """The config without what may change while a run goes on: where it runs, and how often it is checkpointed."""
        return {section: table for section, table in self.tree.items() if section not in ("plan", "checkpoint")}

    @property
    def canonical_json(self) -> str:
        """One text for one config: sorted keys, no spaces, infinities as strings. Hashed into `run_id`."""
        return json.dumps(finite_json(self.essence), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def run_id(self) -> str:
        """Name of this config by content: two runs with the same id were asked to do the same."""
        return hashlib.sha256(self.canonical_json.encode()).hexdigest()[:12]

    @property
    def rounds(self) -> int:
        """How often the slots are filled: once, unless the search method was asked for more trials than there are slots."""
        return math.ceil(max(self.search.values.get("trials", 0), self.population.size) / self.population.size)

    @property
    def total_generations(self) -> int:
        """Generations of the whole run: those of a trial, in each round."""
        return self.population.generations * self.rounds

    @property
    def space(self) -> Space:
        """Every traced setting by dotted name."""
        entries = {f"task.{k}": v for k, v in self.task.traced.items()}
        entries |= {f"optimizer.{k}": v for k, v in self.optimizer.traced.items()}
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
        return make_recipe(task, optimizer, schedules, self.space, horizon=self.population.horizon)

    def selector(self) -> Selector:
        """The search method."""
        return SELECTORS[self.search.name](**self.search.values)

    def with_values(self, values: Mapping[str, float]) -> RunConfig:
        """This config as a single, plain training run: each axis replaced by its value, one member, no selection."""

        def below(prefix: str) -> dict[str, float]:
            return {k.removeprefix(f"{prefix}."): v for k, v in values.items() if k.startswith(f"{prefix}.")}

        schedules = {target: c.pinned(below(schedule_prefix(target))) for target, c in self.schedules.items()}
        return RunConfig(
            seed=self.seed,
            task=self.task.pinned(below("task")),
            batch=self.batch,
            optimizer=self.optimizer.pinned(below("optimizer")),
            schedules=schedules,
            plateau=self.plateau.pinned(below("plateau")),
            population=PopulationSize(
                size=1, segment_steps=self.population.segment_steps, generations=self.population.generations
            ),
            search=choose({"method": "random"}, "search", SELECTORS, default="random", key="method"),
            checkpoint=self.checkpoint,
            plan=Layout(),
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
    sections = [f.name if f.name != "schedules" else "schedule" for f in fields(RunConfig)]
    for name in tree:
        if name not in sections:
            raise ConfigError(f"there is no section or setting {name!r}{did_you_mean(name, sections)}")
    seed = convert(Setting("seed", Seed, 0, False, ""), tree.get("seed", 0), "seed")
    task_choice, task = _resolve_task(_table(tree, "task"), task)
    optimizer = choose(_table(tree, "optimizer"), "optimizer", OPTIMIZERS, default="adamw")
    config = RunConfig(
        seed=seed,
        task=task_choice,
        batch=_resolve_fixed(Batch, tree, "batch"),
        optimizer=optimizer,
        schedules=_resolve_schedules(_table(tree, "schedule"), optimizer, task_choice),
        plateau=Choice("plateau", bind(settings(plateau), _table(tree, "plateau"), "plateau", owner="it")),
        population=_resolve_fixed(PopulationSize, tree, "population"),
        search=choose(_table(tree, "search"), "search", SELECTORS, default="truncation", key="method"),
        checkpoint=_resolve_fixed(Checkpoint, tree, "checkpoint"),
        plan=_resolve_fixed(Layout, tree, "plan"),
    )
    if (horizon := config.population.horizon) >= 2**31:
        raise ConfigError(f"population: segment_steps x generations must stay below {2**31}; given: {horizon}")
    check_task(task, where=f"task {task_choice.name}")
    examples = task.splits.size("train")
    if config.batch.size > examples:
        raise ConfigError(f"batch.size: larger than the {examples} training examples; given: {show(config.batch.size)}")
    return config, task


def _table(tree: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    table = tree.get(section, {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"{section}: expected a table, [{section}]; given: {table!r}")
    return table


def _resolve_fixed(cls: type[Any], tree: Mapping[str, Any], section: str) -> Any:
    return cls(**bind(settings(cls), _table(tree, section), section))


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
        known = _builder_settings(builder, name)
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


def _builder_settings(builder: Any, name: str) -> dict[str, Setting]:
    """The settings of a task's builder; raises `ConfigError` if it is none."""
    try:
        known = settings(builder)
        inspect.signature(builder).bind(**dict.fromkeys(known))
    except (TypeError, ValueError):
        expected = "a function whose parameters are keyword-only, or have defaults"
        raise ConfigError(f"task.name: {name} does not build a task: expected {expected}; found: {show(builder)}") from None
    if traced := [s.name for s in known.values() if s.traced]:
        raise ConfigError(
            f"task.name: {name} takes the float {traced[0]!r}: floats are traced, so declare it on the task's loss"
        )
    return known


def _resolve_schedules(table: Mapping[str, Any], optimizer: Choice, task: Choice) -> dict[str, Choice]:
    targets = {k: f"optimizer.{k}" for k in optimizer.traced}
    targets |= {k: f"task.{k}" for k in task.traced if k not in targets}
    targets |= {"batch": targets["accumulate"]} if "accumulate" in targets else {}  # of a batch, or several
    names = table.get("name")
    families = names if isinstance(names, list | tuple) else ()
    nested = {k: v for k, v in table.items() if isinstance(v, Mapping) and k not in families and ("name" in v or k in targets)}
    own = {k: v for k, v in table.items() if k not in nested}
    schedules = {LEARNING_RATE: choose_schedule(own, "schedule")}
    for key, sub in nested.items():
        if key not in targets:
            raise ConfigError(f"schedule.{key}: there is no hyperparameter {key!r} to shape{did_you_mean(key, targets)}")
        if targets[key] == LEARNING_RATE and own:
            raise ConfigError(
                "schedule.learning_rate: the learning rate's schedule stands in [schedule] already; keep one of the two"
            )
        if targets[key] in schedules and targets[key] != LEARNING_RATE:
            raise ConfigError(f"schedule.{key}: {targets[key]} has a schedule already, under another name; keep one of the two")
        schedules[targets[key]] = choose_schedule(sub, f"schedule.{key}")
    return {target: schedules[target] for target in (LEARNING_RATE, *targets.values()) if target in schedules}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two config trees: `optimizer.b1: 0.9 -> 0.95`, one line a setting."""
    flat_old, flat_new = _flatten(old), _flatten(new)
    return [
        f"{key}: {flat_old.get(key, 'absent')} -> {flat_new.get(key, 'absent')}"
        for key in sorted({*flat_old, *flat_new})
        if flat_old.get(key) != flat_new.get(key)
    ]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Tree:
    flat: Tree = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
