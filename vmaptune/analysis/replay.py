"""`replay`: the winner's realised schedule, trained from scratch on fresh seeds: how much of its score was the schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.analysis.retraining import Literal, Past, judgement, make_retraining, read_past, recorded_values
from vmaptune.cache import use_compilation_cache
from vmaptune.config import RunConfig
from vmaptune.errors import ConfigError
from vmaptune.plan import Plan, prepare_backend
from vmaptune.planner import choose_plan
from vmaptune.population import Member, Status, make_newborn, root_key
from vmaptune.programs import Program
from vmaptune.store.reading import Ancestor
from vmaptune.strict_json import finite_json
from vmaptune.tasks import Metrics, Task
from vmaptune.train import make_evaluate, make_inputs

REPLAYS = 2**31  # folded into the run's key: far from the number of any `Stream`, so no key of the run is used again

Told = Callable[[int, int], None]


class Summary(NamedTuple):
    """Scores of several seeds.

    Attributes:
        mean: Of the seeds that did not diverge; NaN if all did.
        std: Their standard deviation (n - 1); NaN below two.
        n: How many they are.
    """

    mean: float
    std: float
    n: int


@dataclass(frozen=True)
class Retrained:
    """One way of training, on S seeds.

    Attributes:
        validation: f64[S] by metric, at the end, measured as the run's members are (after the look ahead, if it has one); NaN
            where training diverged.
        test: The same of the test split, read once for all.
    """

    validation: Mapping[str, np.ndarray]
    test: Mapping[str, np.ndarray]

    def summary(self, metric: str, part: str = "validation") -> Summary:
        """Mean, standard deviation and number of the seeds that did not diverge."""
        return summarise(getattr(self, part)[metric])

    def as_json(self) -> dict[str, Any]:
        """Scores and summaries by part and metric."""
        return {
            part: {
                metric: {**self.summary(metric, part)._asdict(), "scores": scores.tolist()} for metric, scores in table.items()
            }
            for part, table in (("validation", self.validation), ("test", self.test))
        }


@dataclass(frozen=True)
class Replay:
    """What a winner's realised schedule is worth by itself.

    Attributes:
        run: The run folder.
        trial: The winner's trial.
        generation: When it was measured.
        steps: Training steps of its weights, and of each replay.
        copies: How often its lineage was handed on to a copy with other settings.
        metric: What members are selected by.
        direction: "max" or "min".
        seeds: S.
        winner: Its metrics on validation and, from a finished run, on test. Its validation score is the best of many, so it
            flatters.
        schedule: Trained from scratch through the settings that its lineage had, generation by generation.
        last: The control, on the same seeds: its last settings, held from the first step. The same as `schedule` where the
            settings never changed.
    """

    run: Path
    trial: int
    generation: int
    steps: int
    copies: int
    metric: str
    direction: str
    seeds: int
    winner: Mapping[str, Mapping[str, float]]
    schedule: Retrained
    last: Retrained

    def inherited(self, part: str = "validation") -> float | None:
        """How much better the winner scores than the replays' mean; positive: it is better, whatever the direction.

        On validation that is inherited weights, luck and having been chosen by that very score; on test it is what of it
        was real. None if the winner was not measured on that part.
        """
        if part not in self.winner:
            return None
        return self._gain(self.winner[part][self.metric] - self.schedule.summary(self.metric, part).mean)

    @property
    def scheduled(self) -> Summary:
        """How much better the realised schedule is than its last settings alone, seed by seed."""
        pairs = self.schedule.validation[self.metric] - self.last.validation[self.metric]
        return summarise(np.array([self._gain(float(pair)) for pair in pairs]))

    @property
    def as_good(self) -> int:
        """How many replays score as well on validation as the winner, or better."""
        score = self.winner["validation"][self.metric]
        return sum(self._gain(float(x) - score) >= 0 for x in self.schedule.validation[self.metric])

    def _gain(self, difference: float) -> float:
        return difference if self.direction == "max" else -difference

    def as_json(self) -> dict[str, Any]:
        """As strict JSON values."""
        plain = ("trial", "generation", "steps", "copies", "metric", "direction", "seeds", "as_good")
        facts = {"run": str(self.run), **{name: getattr(self, name) for name in plain}}
        facts |= {"inherited": {part: self.inherited(part) for part in ("validation", "test")}}
        facts |= {"scheduled": self.scheduled._asdict(), "winner": self.winner}
        return finite_json(facts | {"schedule": self.schedule.as_json(), "last_settings": self.last.as_json()})


def summarise(scores: np.ndarray) -> Summary:
    """Mean and spread of the finite ones."""
    sound = scores[np.isfinite(scores)]
    mean = float(sound.mean()) if len(sound) else math.nan
    return Summary(mean, float(sound.std(ddof=1)) if len(sound) > 1 else math.nan, len(sound))


def replay(run: str | Path, *, seeds: int = 5, task: Task | None = None, told: Told = lambda done, total: None) -> Replay:
    """Trains the schedule that a run's winner went through once more, from scratch, on fresh seeds.

    A winner of population-based training has weights that were handed on from parent to copy, each time because they
    were ahead. Its score is owed to the settings it went through, in that order, and to what it inherited, luck and
    having been chosen among many. New members know nothing of the latter: each begins with fresh weights and is trained
    for as many steps, in generation a of its life with what the winner's ancestor of age a had. Half of them are a control
    on the same seeds: the winner's last settings, held from the first step. All are one population; no key of the run is
    used again, and each seed has batches of its own. Where the learning rate falls on plateaus, it falls on their own.

    The test split is read once, for all of them together; nothing is chosen by it.

    Args:
        run: The run folder.
        seeds: S, how many of each; the first are the same whatever S is.
        task: The run's task, if it was passed from Python.
        told: Told after each generation how many are done, and of how many.

    Raises:
        StoreError: Not a run folder, or no winner yet.
        ConfigError: `seeds` is not positive, or the task was passed from Python and is not given.
    """
    if seeds < 1:
        raise ConfigError(f"seeds: expected int >= 1; given: {seeds}")
    prepare_backend()
    use_compilation_cache()
    past = read_past(run, task=task, caller="replay")
    lineage = past.lineage
    population, validation, test = _retrained(past, seeds, told)
    sound = (population.status == Status.OK) & np.isfinite(validation["loss"])
    arms = []
    for arm in (slice(seeds), slice(len(sound) - seeds, None)):
        parts = ({k: np.where(sound, np.asarray(v, np.float64), np.nan)[arm] for k, v in m.items()} for m in (validation, test))
        arms.append(Retrained(*parts))
    return Replay(
        run=past.folder.path,
        trial=lineage[-1].trial,
        generation=lineage[-1].generation,
        steps=lineage[-1].step,
        copies=len({a.trial for a in lineage}) - 1,
        metric=past.task.metric,
        direction=past.task.direction,
        seeds=seeds,
        winner=_of_winner(past, lineage[-1], list(validation)),
        schedule=arms[0],
        last=arms[1],
    )


def _retrained(past: Past, seeds: int, told: Told) -> tuple[Member, Metrics, Metrics]:
    """Members as judged after the winner's number of steps: S replays, then S with its last settings; validation and test.

    Where its settings never changed, the two would be the same, so S members are both.
    """
    config, task, lineage = past.config, past.task, past.lineage
    recipe = config.recipe(task)
    recipe = recipe._replace(space=Literal.of(recipe.space))
    path = recorded_values(recipe.space, lineage)
    n = seeds if (path == path[-1]).all() else 2 * seeds
    plan = _plan(config, task, n)
    root = jax.random.fold_in(root_key(config.seed), REPLAYS)
    batches = config.batches(task)
    if batches.streamed:
        raise ConfigError(
            f"{past.folder.path}: its training data are streamed from the host, and replays see them in orders of their own; "
            "data.placement = 'device' is needed for that"
        )
    batches = batches._replace(order="independent")
    # Member s and member S + s draw alike, so that what a seed does to both cancels.
    newborn = make_newborn(task, recipe.opened, seed=root, replicates=seeds, plan=plan)
    generation = make_retraining(config, recipe, batches, plan, replicates=seeds)
    inputs = make_inputs(recipe, batches, seed=root, plan=plan)
    last = np.repeat(path[-1:], n - seeds, axis=0)
    genotypes = [np.concatenate([np.repeat(row[None], seeds, axis=0), last]) for row in path]
    population: Member = Program("birth", newborn)(np.arange(n, dtype=np.int32), genotypes[0])
    judged, metrics = population, dict[str, jax.Array]()
    for age, genotype in enumerate(genotypes):
        population, judged, metrics = generation(inputs, age, population._replace(genotype=jnp.asarray(genotype)))
        jax.block_until_ready(metrics)
        told(age + 1, len(genotypes))
    test = make_evaluate(task, split="test", plan=plan)(judged)
    measured = {k.partition(".")[2]: v for k, v in metrics.items() if k.startswith(f"{judgement(config)}.")}
    return jax.device_get((judged, measured, test))


def _plan(config: RunConfig, task: Task, n: int) -> Plan:
    """The run's layout for n members, where it does not depend on their number."""
    size, layout = replace(config.population, size=n), replace(config.plan, devices=0, chunk=0)
    return choose_plan(replace(config, population=size, plan=layout), task, timed=False).plan


def _of_winner(past: Past, record: Ancestor, metrics: list[str]) -> dict[str, dict[str, float]]:
    values = {name: record.values[f"{judgement(past.config)}.{name}"] for name in metrics}
    found = {"validation": {name: math.nan if value is None else value for name, value in values.items()}}
    test = (past.run["result"] or {}).get("test") if past.run["status"] == "finished" else None
    return found | ({"test": test} if test else {})
