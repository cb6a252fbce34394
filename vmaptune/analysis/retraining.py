"""Training parts of a run once more, from what its history says: what `replay` and `verify` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.analysis.lineage import winner_of
from vmaptune.config import FROM_PYTHON, RunConfig, resolve
from vmaptune.data.batching import Batches
from vmaptune.data.digest import digest
from vmaptune.errors import ConfigError, StoreError, warn
from vmaptune.plan import Plan
from vmaptune.plateau import SCALE, plateau
from vmaptune.population import Member
from vmaptune.programs import Program
from vmaptune.recipe import Recipe, under
from vmaptune.space import Space
from vmaptune.store.folder import RunFolder
from vmaptune.store.history import connect
from vmaptune.store.reading import Ancestor, read_digest, read_lineage, read_run
from vmaptune.tasks import Metrics, Task
from vmaptune.toml import load_config, read_toml
from vmaptune.train import Inputs, evaluates_raw, evaluation_batch, evaluation_of, lookahead_of, segment_of


class Past(NamedTuple):
    """A run that was, and one lineage of it.

    Attributes:
        folder: Its folder.
        run: Its row, from `read_run`.
        config: Its config.
        task: Its task.
        winner: Trial and generation of its best member; None before there is one.
        lineage: Who trained the weights, generation by generation, the founder first.
    """

    folder: RunFolder
    run: dict[str, Any]
    config: RunConfig
    task: Task
    winner: tuple[int, int] | None
    lineage: list[Ancestor]


def read_past(path: str | Path, *, task: Task | None, member: int | None = None, caller: str) -> Past:
    """Reads a run, and the lineage of a trial, or of the winner.

    Args:
        path: The run folder.
        task: The run's task, if it was passed from Python.
        member: Number of the trial; None: the winner.
        caller: The Python function to name in an error.

    Raises:
        StoreError: Not a run folder, no winner yet, no such trial, or one whose history has gaps.
        ConfigError: The task was passed from Python, and is not given.
    """
    folder = RunFolder(path)
    run = read_run(folder)
    config, task = opened_again(folder, run, task, caller)
    if read_digest(folder.history) not in (None, digest(task.splits)):
        warn(f"{folder.path}: the data are not what they were when the run was begun, so its results cannot come again")
    winner = winner_of(folder, run)
    if member is None and winner is None:
        raise StoreError(f"{path}: no sound member yet, so there is no winner")
    trial, generation = winner if member is None and winner else (member, run["generation"])
    _require_trial(folder, int(trial or 0))
    lineage = read_lineage(folder.history, int(trial or 0), generation)
    if not lineage:
        raise StoreError(f"{path}: trial {trial} has not been trained yet")
    steps = [ancestor.step for ancestor in lineage]
    if steps != [config.population.segment_steps * (age + 1) for age in range(len(lineage))]:
        raise StoreError(f"{path}: the lineage of trial {trial} is not whole: its records are of steps {_shown(steps)}")
    return Past(folder, run, config, task, winner, lineage)


def opened_again(folder: RunFolder, run: Mapping[str, Any], task: Task | None, caller: str) -> tuple[RunConfig, Task]:
    """The config and the task of a run that was; the task is passed again if it was passed from Python.

    Raises:
        ConfigError: It was, and is not given.
    """
    if task is not None:
        return resolve(read_toml(folder.config), task=task, source=str(folder.config))
    if run["config"]["task"]["name"] == FROM_PYTHON:
        there = f"vmaptune.{caller}({str(folder.path)!r}, task=...)"
        raise ConfigError(f"{folder.path}: this run's task was passed from Python; go on there: {there}")
    return load_config(folder.config)


def _require_trial(folder: RunFolder, trial: int) -> None:
    with closing(connect(folder.history)) as db:
        if db.execute("SELECT 1 FROM trial WHERE trial = ?", (trial,)).fetchone():
            return
        last = db.execute("SELECT max(trial) FROM trial").fetchone()[0]
    known = "there are none yet" if last is None else f"its trials are 0 to {last}"
    raise StoreError(f"{folder.path}: there is no trial {trial}; {known}")


def _shown(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps if len(steps) < 9 else [*steps[:4], "...", steps[-1]]))


class Literal(Space):
    """A space whose genotypes are the values themselves: those on record, to the bit, which no encoding would give back."""

    @classmethod
    def of(cls, space: Space) -> Literal:
        """The same names, axes and constants."""
        return cls({**space.axes, **space.constants})

    def decode(self, genotype: jax.Array, arrays: Mapping[str, Any] | None = None) -> dict[str, jax.Array]:
        """Values f32[...] by name, of f32[..., D]: column by column."""
        constants = jnp.asarray((self.arrays if arrays is None else arrays)["constants"])
        values = {name: genotype[..., d] for d, name in enumerate(self.axes)}
        shape = genotype.shape[:-1]
        return values | {name: jnp.broadcast_to(constants[i], shape) for i, name in enumerate(self.constants)}


def recorded_values(space: Space, lineage: Sequence[Ancestor]) -> np.ndarray:
    """f32[A, D], the settings that each ancestor trained with; the middle of the axis where a knob did not matter."""
    middle = {k: float(v) for k, v in Space(space.axes).decode(jnp.full(space.dimension, 0.5, jnp.float32)).items()}
    rows = [[middle[k] if a.values[k] is None else a.values[k] for k in space.axes] for a in lineage]
    return np.array(rows, np.float32).reshape(len(lineage), space.dimension)


def make_retraining(
    config: RunConfig, recipe: Recipe, batches: Batches, plan: Plan, *, replicates: int
) -> Callable[[Inputs, int, Member], tuple[Member, Member, Metrics]]:
    """Compiles one generation without selection: a segment, the look ahead, an evaluation, and the decay on plateaus.

    Args:
        config: Of the run.
        recipe: How its members are trained; its space says what the members' genotypes mean.
        batches: How the training split is cut.
        plan: Layout.
        replicates: As in `segment_of`.

    Returns:
        `(inputs, generation, population) -> (population, judged, metrics)`: the members after it; what they are judged by, the
        annealed copies where the run looks ahead, else themselves; `train.loss`, `validation.accuracy` and so on, f32[N].
    """
    task, size, ahead = recipe.task, config.population, config.lookahead
    training: dict[str, Any] = {"batches": batches, "plan": plan, "replicates": replicates}
    segment = segment_of(recipe, steps=size.segment_steps, **training)
    look = ahead.steps and lookahead_of(recipe, steps=ahead.steps, shape=ahead.shape, after=size.segment_steps, **training)
    examples, raw = task.splits.size("validation"), evaluates_raw(recipe)
    evaluate = evaluation_of(task, examples=examples, batch_size=evaluation_batch(task), plan=plan, raw=raw)
    sign = 1.0 if task.direction == "max" else -1.0

    def generation(inputs: Inputs, number: jax.Array, population: Member) -> tuple[Member, Member, Metrics]:
        round_ = jax.lax.rem(number, size.generations)
        population, train = segment(inputs, round_, population)
        measured = {"train": train, "validation": evaluate(inputs.validation, population)}
        judged = population
        if look:
            judged = look(inputs, round_, population)
            measured["lookahead"] = evaluate(inputs.validation, judged)
        if recipe.on_plateau:
            values = recipe.space.decode(population.genotype, inputs.arrays)
            scores = measured[judgement(config)]
            fitness = jnp.where(jnp.isfinite(scores["loss"]), sign * scores[task.metric], jnp.nan)
            settings = under(values, "plateau", recipe.passed("plateau"))
            decayed = jax.vmap(lambda state, fitness, given: plateau(state, fitness, **given))
            population = population._replace(plateau=decayed(population.plateau, fitness, settings))
        metrics = {f"{part}.{name}": value for part, values in measured.items() for name, value in values.items()}
        return population, judged, metrics

    program = Program("retraining", generation)
    return lambda inputs, number, population: program(inputs, jnp.int32(number), population)


def judgement(config: RunConfig) -> str:
    """What the columns begin with that members are judged by."""
    return "lookahead" if config.lookahead.steps else "validation"


def scales(lineage: Sequence[Ancestor]) -> np.ndarray:
    """f32[A], how far the learning rate had fallen on plateaus in each generation of a lineage; 1 where it does not fall."""
    return np.array([1.0 if a.values.get(SCALE) is None else a.values[SCALE] for a in lineage], np.float32)
