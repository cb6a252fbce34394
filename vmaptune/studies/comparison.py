"""Arms compared at equal budget: each run on the same seeds, then best so far, final scores, ranks and a paired test."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vmaptune.choices import Tree
from vmaptune.config import RunConfig, resolve
from vmaptune.errors import AllMembersFailed, ConfigError, did_you_mean
from vmaptune.loop import tune
from vmaptune.settings import show
from vmaptune.store.folder import RunFolder, new_folder, write_text
from vmaptune.store.history import is_begun
from vmaptune.store.reading import read_run
from vmaptune.strict_json import finite_json
from vmaptune.studies.curves import Curve, on_grid, read_curve
from vmaptune.studies.paired import Paired, average_ranks, compare_pairs
from vmaptune.studies.running import Listener
from vmaptune.studies.scores import Interval, median_interval
from vmaptune.tasks import Task
from vmaptune.toml import load_config, override, read_toml

_POINTS = 100  # of a curve
_UNEQUAL = 0.01  # a difference in member-steps that is worth a word, of the larger
_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]*")  # an arm's: its runs lie in a folder of that name

Source = Mapping[str, Any] | str | Path | None
Arm = Mapping[str, Any] | str | Path | Sequence[str]


@dataclass(frozen=True)
class ArmResult:
    """One arm over all seeds. Metrics are in the task's own direction; NaN where a run failed.

    Attributes:
        name: The arm.
        validation: f64[S], the final champion's validation metric, by seed.
        test: f64[S], its test metric: read once, after the choice.
        member_steps: f64[S], training steps of all members.
        seconds: f64[S], of training.
        failed: Runs in which all members of a generation were non-finite.
        by_steps: The champion's validation metric at each point of the grid of member-steps: median over seeds and its 95 %
            interval; infinitely bad where half of the seeds have no champion yet. After its end, a run keeps its last.
        by_seconds: The same at each point of the grid of seconds.
        validation_median: Median over seeds, and its interval.
        test_median: The same of the test metric.
        validation_rank: Mean over seeds of the rank among all arms; 1 is the best.
        test_rank: The same by the test metric.
    """

    name: str
    validation: np.ndarray
    test: np.ndarray
    member_steps: np.ndarray
    seconds: np.ndarray
    failed: int
    by_steps: list[Interval]
    by_seconds: list[Interval]
    validation_median: Interval
    test_median: Interval
    validation_rank: float
    test_rank: float


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        folder: Holds a folder of runs for each arm, and this as JSON, CSV and a figure.
        metric: What members were selected by, and arms are compared by.
        direction: "max" or "min".
        seeds: S; the seeds 0 to S - 1 were run by every arm.
        steps: f64[P], a grid of member-steps.
        seconds: f64[P], a grid of seconds.
        arms: Best mean rank on test first.
        test: Every pair of arms by test metric. A difference is the first arm's median less the other's, in the metric's units.
        validation: The same by final validation metric.
        notes: What is to be kept in mind, a sentence each.
        wall: Seconds that this call took.
    """

    folder: Path
    metric: str
    direction: str
    seeds: int
    steps: np.ndarray
    seconds: np.ndarray
    arms: list[ArmResult]
    test: list[Paired]
    validation: list[Paired]
    notes: list[str]
    wall: float

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""

        def plain(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                return value.tolist()
            if isinstance(value, ArmResult):
                return {k: plain(v) for k, v in vars(value).items()}
            if isinstance(value, Paired):
                return value._asdict() | {"difference": plain(value.difference)}
            if isinstance(value, Interval):
                return value._asdict()
            return [plain(item) for item in value] if isinstance(value, list) else value

        return {k: plain(v) for k, v in vars(self).items()} | {"folder": str(self.folder), "wall": round(self.wall, 3)}

    def as_csv(self) -> str:
        """A row an arm and seed; an empty cell where there is no number."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["arm", "seed", "validation", "test", "member_steps", "seconds"])
        for arm in self.arms:
            for seed, numbers in enumerate(zip(arm.validation, arm.test, arm.member_steps, arm.seconds, strict=True)):
                writer.writerow([arm.name, seed, *("" if x != x else repr(float(x)) for x in numbers)])
        return text.getvalue()


def compare(
    arms: Mapping[str, Arm] | Sequence[str | Path],
    *,
    config: Source = None,
    task: Task | None = None,
    assignments: Sequence[str] = (),
    seeds: int = 10,
    budget: Mapping[str, float] | None = None,
    out: str | Path | None = None,
    listen: Listener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Comparison | None:
    """Runs every arm on the same seeds and compares what they find.

    Each run is an ordinary one, in `out/<arm>/seed-<s>`. A second call with the same `out` only reads those that have ended, so
    a stopped comparison goes on, and one may add seeds and arms later. A run in which all members fail counts as worse than
    any other.

    Args:
        arms: By name, a TOML file, a tree of values, or a list of `key=value` that are set in `config`:
            `{"pbt": ["search.method=truncation"], "random": ["search.method=random"]}`. Or a list of TOML files, named after
            the files.
        config: What arms given as `key=value` have in common; default: the embedded config.
        task: A task of your own, for all arms.
        assignments: `key=value` set in all arms, before their own.
        seeds: S; seeds 0 to S - 1.
        budget: `{"steps": ...}` (of all members together), `{"seconds": ...}` (of training), or both: a run ends at whichever
            comes first. In place of the arms' `[search.budget]`; default: each arm's own length.
        out: The folder; default: a new one below `runs/`.
        listen: `(stage, config, task) -> sinks`.
        should_stop: Asked after every dispatch.

    Returns:
        What was found; None if it was asked to stop.

    Raises:
        ConfigError: An arm cannot be run, or arms cannot be compared: another task, metric or held-out data.
        StoreError: A run folder is in use, or holds a run of another config.

    References:
        Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7, 2006
    """
    begun = time.perf_counter()
    sources = _sources(arms, config)
    if seeds < 1:
        raise ConfigError(f"compare: seeds must be at least 1; given: {seeds}")
    limits = _limits(budget)

    def resolved(name: str, seed: int) -> tuple[RunConfig, Task]:
        source, own = sources[name]
        try:
            return _resolved(source, [*assignments, *own, *limits], seed, task)
        except ConfigError as error:
            raise ConfigError(f"arm {name!r}: {error}") from error.__cause__

    ready = {name: resolved(name, 0) for name in sources}  # every arm is checked before any is run
    metric, direction = _alike(ready)
    folder = Path(out) if out is not None else new_folder("runs", "compare").path
    curves: dict[str, list[Curve]] = {name: [] for name in sources}
    for seed in range(seeds):  # one arm after another, so that what a stop leaves is pairs
        for name in sources:
            place = RunFolder(folder / name / f"seed-{seed}")
            run, run_task = resolved(name, seed) if seed else ready[name]
            if not _has_ended(place, run):
                sinks = listen(f"{name}, seed {seed}", run, run_task) if listen else ()
                if not _train(run, run_task, place, sinks=sinks, should_stop=should_stop):
                    return None
            curves[name].append(read_curve(place))
    found = _judge(folder, curves, metric, direction, "seconds" in (budget or {}), begun)
    _write(found)
    return found


def _sources(arms: Mapping[str, Arm] | Sequence[str | Path], config: Source) -> dict[str, tuple[Source, Sequence[str]]]:
    """For each arm, what it begins with and what it sets."""
    named: list[tuple[str, Any]] = list(arms.items()) if isinstance(arms, Mapping) else [(Path(arm).stem, arm) for arm in arms]
    whole = (Mapping, str, Path)
    for name, arm in named:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"compare: an arm's name is made of letters, digits and _ . + -; given: {name!r}")
        if not isinstance(arm, (*whole, Sequence)):
            raise ConfigError(
                f"compare: arm {name!r} must be a TOML file, a tree of values or a list of key=value; given: {show(arm)}"
            )
    names = [name for name, _ in named]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"compare: two arms are called {twice[0]!r}; give each a name of its own")
    if len(names) < 2:
        raise ConfigError(f"compare: expected two arms or more; given: {', '.join(names) or 'none'}")
    return {name: (arm, ()) if isinstance(arm, whole) else (config, arm) for name, arm in named}


def _limits(budget: Mapping[str, float] | None) -> list[str]:
    """The budget as `key=value`; what is not limited by it is not limited at all."""
    if budget is None:
        return []
    known = ("steps", "seconds")
    for name, value in budget.items():
        if name not in known:
            raise ConfigError(f"compare: there is no budget of {name!r}{did_you_mean(name, known)}")
        if not 0 < value < float("inf") or (name == "steps" and value != int(value)):
            raise ConfigError(f"compare: a budget of {name} must be a {'whole ' * (name == 'steps')}number > 0; given: {value}")
    return [f"search.budget.steps={int(budget.get('steps', 0))}", f"search.budget.seconds={float(budget.get('seconds', 0))}"]


def _resolved(source: Source, assignments: Sequence[str], seed: int, task: Task | None) -> tuple[RunConfig, Task]:
    if task is None and not isinstance(source, Mapping):
        return load_config(source, assignments, seed=seed)
    tree: Tree = dict(source) if isinstance(source, Mapping) else read_toml(source) if source is not None else {}
    return resolve(override(tree, assignments) | {"seed": seed}, task=task)


def _alike(ready: Mapping[str, tuple[RunConfig, Task]]) -> tuple[str, str]:
    """The metric and direction that arms share; raises `ConfigError` where a comparison would mean nothing."""
    (first, (config, task)), *others = ready.items()
    for name, (other, its) in others:
        both = f"compare: arms {first!r} and {name!r}"
        if other.task.name != config.task.name:
            raise ConfigError(f"{both} train different tasks: {config.task.name} and {other.task.name}")
        if (its.metric, its.direction) != (task.metric, task.direction):
            ones = f"{task.metric} ({task.direction}) and {its.metric} ({its.direction})"
            raise ConfigError(f"{both} are selected by different metrics: {ones}")
        for part in ("validation", "test"):
            if not _same(getattr(task.splits, part), getattr(its.splits, part)):
                raise ConfigError(f"{both} are measured on different data: their {part} splits are not the same")
    return task.metric, task.direction


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    ones, others = jax.tree.leaves(one), jax.tree.leaves(other)
    return len(ones) == len(others) and all(map(np.array_equal, ones, others))


def _has_ended(place: RunFolder, config: RunConfig) -> bool:
    """True if there is nothing left to train; a run of another config is left for `tune` to refuse."""
    if not (place.is_run() and is_begun(place.history)):
        return False
    run = read_run(place)
    return run["id"] == config.run_id and run["status"] in ("finished", "failed")


def _train(config: RunConfig, task: Task, place: RunFolder, *, sinks: Sequence[Any], should_stop: Callable[[], bool]) -> bool:
    """Runs one, or goes on with it; False if it was asked to stop. One in which all failed is an outcome too."""
    try:
        result = tune(config, task=task, out=place.path, resume=True, sinks=sinks, should_stop=should_stop)
    except AllMembersFailed:
        return True
    return result.status != "interrupted"


def _judge(
    folder: Path, curves: Mapping[str, Sequence[Curve]], metric: str, direction: str, timed: bool, begun: float
) -> Comparison:
    sign = -1.0 if direction == "max" else 1.0

    def score(values: Any) -> np.ndarray:
        return np.nan_to_num(sign * np.asarray(values, np.float64), nan=np.inf, posinf=np.inf, neginf=-np.inf)

    def centre(scores: np.ndarray) -> Interval:
        return _turned(median_interval(scores), sign)

    test = {name: score([c.test for c in runs]) for name, runs in curves.items()}
    validation = {name: score([np.nan if c.failed else c.validation for c in runs]) for name, runs in curves.items()}
    grids = {
        along: np.linspace(0, max(getattr(c, along)[-1] for runs in curves.values() for c in runs), _POINTS + 1)[1:]
        for along in ("member_steps", "seconds")
    }

    def over(runs: Sequence[Curve], along: str) -> list[Interval]:
        each = np.stack([score(on_grid(getattr(c, along), c.best, grids[along])) for c in runs])
        return [centre(column) for column in each.T]

    test_ranks, validation_ranks = average_ranks(test), average_ranks(validation)
    arms = [
        ArmResult(
            name=name,
            validation=np.array([np.nan if c.failed else c.validation for c in runs]),
            test=np.array([c.test for c in runs]),
            member_steps=np.array([c.member_steps[-1] for c in runs]),
            seconds=np.array([c.seconds[-1] for c in runs]),
            failed=sum(c.failed for c in runs),
            by_steps=over(runs, "member_steps"),
            by_seconds=over(runs, "seconds"),
            validation_median=centre(validation[name]),
            test_median=centre(test[name]),
            validation_rank=validation_ranks[name],
            test_rank=test_ranks[name],
        )
        for name, runs in curves.items()
    ]
    arms.sort(key=lambda arm: (arm.test_rank, arm.validation_rank))

    def paired(scores: Mapping[str, np.ndarray]) -> list[Paired]:
        pairs = compare_pairs({arm.name: scores[arm.name] for arm in arms})
        return [pair._replace(difference=_turned(pair.difference, sign)) for pair in pairs]

    on_test = paired(test)
    return Comparison(
        folder=folder,
        metric=metric,
        direction=direction,
        seeds=len(arms[0].test),
        steps=grids["member_steps"],
        seconds=grids["seconds"],
        arms=arms,
        test=on_test,
        validation=paired(validation),
        notes=_notes(arms, on_test, timed),
        wall=time.perf_counter() - begun,
    )


def _turned(interval: Interval, sign: float) -> Interval:
    """An interval of scores in the metric's own units."""
    return interval if sign > 0 else Interval(-interval.value, -interval.high, -interval.low)


def _notes(arms: Sequence[ArmResult], pairs: Sequence[Paired], timed: bool) -> list[str]:
    notes = []
    steps = {arm.name: float(np.median(arm.member_steps)) for arm in arms}
    least, most = min(steps, key=steps.__getitem__), max(steps, key=steps.__getitem__)
    if not timed and steps[most] - steps[least] > _UNEQUAL * steps[most]:
        notes.append(f"Budgets are not equal: {least} was given {steps[least]:,.0f} member-steps, {most} {steps[most]:,.0f}.")
    for arm in arms:
        if arm.failed:
            notes.append(f"{arm.name}: all members failed in {arm.failed} of {len(arm.test)} runs, which count as the worst.")
    for note in dict.fromkeys(pair.note for pair in pairs if pair.note):
        about = [f"{pair.one} - {pair.other}" for pair in pairs if pair.note == note]
        notes.append(f"Test of {'all pairs' if len(about) == len(pairs) else ', '.join(about)}: {note}.")
    return notes


def _write(found: Comparison) -> None:
    from vmaptune.studies.figures import comparison_figure

    write_text(found.folder / "compare.json", json.dumps(finite_json(found.as_json()), indent=2, allow_nan=False) + "\n")
    write_text(found.folder / "compare.csv", found.as_csv())
    write_text(found.folder / "compare.html", comparison_figure(found))
