"""Which family of learning-rate schedules is best, and whether that can be told from the noise of seeds.

Ordinary runs, each of thousands of trials:

    explore   shapes of every family, crossed with learning rates (and weight decays) and seeds
    refine-1  the best candidates of each family and others near them, judged anew: by fresh seeds alone
    refine-2, refine-3  the best of those and others, half as far away each time
    confirm   the few best of each family with many fresh seeds: half of them choose the family's candidate, the other half
              say how good it is, so that nobody is judged by the luck that chose it
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vmaptune.choices import Tree
from vmaptune.config import RunConfig, resolve
from vmaptune.errors import ConfigError, did_you_mean
from vmaptune.recipe import LEARNING_RATE
from vmaptune.schedules import SCHEDULES
from vmaptune.space import Space
from vmaptune.store.folder import RunFolder, new_folder, write_text
from vmaptune.store.reading import Ancestor
from vmaptune.studies import design as designs
from vmaptune.studies.design import WEIGHT_DECAY, Candidate
from vmaptune.studies.running import Listener, Trained, base_config, held, searched_axis, train
from vmaptune.studies.scores import Interval, basin_decades, difference_interval, median_interval
from vmaptune.tasks import Task
from vmaptune.toml import to_toml
from vmaptune.winner import schedule_csv, shortest

BASELINES = ("constant", "cosine")
NOT_FOR_RATES = ("one_cycle_momentum",)
_FINALISTS = 4  # candidates of each family that are confirmed
_SIGMAS = (1 / 8, 1 / 16, 1 / 32)  # of an axis, in each round of refinement
_NEAR = 12  # candidates that are tried around each of the best
_STAGES = ("explore", "refine-1", "refine-2", "refine-3", "confirm")


@dataclass(frozen=True)
class FamilyResult:
    """The best of one family.

    Attributes:
        family: Its name.
        hyperparameters: The best candidate: knobs, learning rate, weight decay, by dotted name.
        score: Median over fresh seeds, with its 95 % bootstrap interval; lower is better.
        seeds: How many.
        diverged: How many of them diverged.
        regret: How much higher its median is than that of the best family, with the interval of the difference.
        over_constant: The same against the best constant learning rate; negative: better.
        over_cosine: The same against the best cosine.
        tied: It cannot be told from the best family: the interval of its regret holds 0.
        basin_decades: Width in decades of the learning rates whose score is at most a quarter worse than the best, for the
            best shape explored; NaN if the learning rate's axis has no log scale.
        at_end: Axes at whose end the best candidate lies: a better one may lie beyond.
    """

    family: str
    hyperparameters: dict[str, float]
    score: Interval
    seeds: int
    diverged: int
    regret: Interval
    over_constant: Interval
    over_cosine: Interval
    tied: bool
    basin_decades: float
    at_end: list[str]

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        intervals = {k: v._asdict() for k, v in vars(self).items() if isinstance(v, Interval)}
        return asdict(self) | intervals


@dataclass(frozen=True)
class ScheduleStudy:
    """The answer of `evaluate_schedules`.

    Attributes:
        folder: Where its runs are.
        metric: What was scored, on validation.
        families: One a family, the best first.
        held: What the config searches besides, and was held at.
        trainings: Trials trained.
        member_steps: Steps of all of them.
        seconds: Wall time of this process.
    """

    folder: Path
    metric: str
    families: list[FamilyResult]
    held: dict[str, float]
    trainings: int
    member_steps: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        facts = {"folder": str(self.folder), "metric": self.metric, "held": self.held}
        counts = {"trainings": self.trainings, "member_steps": self.member_steps, "seconds": round(self.seconds, 3)}
        return facts | counts | {"families": [family.as_json() for family in self.families]}

    def as_csv(self) -> str:
        """As a table, a line a family."""
        text = io.StringIO()
        names = sorted({name for family in self.families for name in family.hyperparameters})
        writer = csv.writer(text, lineterminator="\n")
        compared = ("score", "regret", "over_constant", "over_cosine")
        intervals = [f"{field}{end}" for field in compared for end in ("", "_low", "_high")]
        writer.writerow(["family", *intervals, "tied", "basin_decades", "seeds", "diverged", *names])
        for f in self.families:
            numbers = [number for interval in (f.score, f.regret, f.over_constant, f.over_cosine) for number in interval]
            settings = [f.hyperparameters.get(name, "") for name in names]
            writer.writerow([f.family, *numbers, f.tied, f.basin_decades, f.seeds, f.diverged, *settings])
        return text.getvalue()


def evaluate_schedules(
    task: Task | None = None,
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    assignments: Sequence[str] = (),
    families: Sequence[str] | str = "all",
    shapes: int = 64,
    learning_rates: int = 5,
    weight_decays: int = 1,
    seeds: int = 3,
    refine: int = 4,
    confirm: int = 32,
    steps: int | None = None,
    score: str = "loss",
    out: str | Path | None = None,
    listen: Listener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ScheduleStudy | None:
    """Finds the best shape of each family of learning-rate schedules, and compares the families.

    Shape and base learning rate are separated: every shape is tried at the same learning rates, and judged at its best.

    Args:
        task: A task of your own, in place of the config's.
        config: TOML file or tree; default: the embedded one made small, with 64 hidden units, batches of 64 and 300 steps. Its
            learning rate must be an axis, and its weight decay if `weight_decays` is not 1; other axes are held at their
            middle.
        assignments: `key=value`, as for `--set`.
        families: Names, or "all"; constant and cosine are always among them, to compare with.
        shapes: Drawn in each family.
        learning_rates: Points of the learning rate's axis, both ends included.
        weight_decays: Points of the weight decay's axis; 1: its middle, or the config's number.
        seeds: Trials of each candidate while exploring and refining.
        refine: Candidates of each family around which is searched on; 0: none.
        confirm: Fresh seeds of each family's best few; half of them choose, half of them are reported.
        steps: Of each training; default: the config's segment_steps x generations.
        score: Validation metric; of "loss" lower is better, of the task's metric what its direction says.
        out: Folder of the study, itself the run folder of its first stage; an unfinished study there is gone on with.
            Default: a new one below `runs/`.
        listen: `(stage, config, task) -> sinks`, called for each stage.
        should_stop: Asked after every dispatch and every stage; True ends the study there, to be gone on with.

    Returns:
        The study; None if it was asked to stop.

    Raises:
        ConfigError: What was asked for cannot mean anything.
    """
    begun = time.perf_counter()
    _check(shapes=shapes, learning_rates=learning_rates, weight_decays=weight_decays, seeds=seeds)
    if steps is not None:
        _check(steps=steps)
    if refine < 0 or confirm < 4:
        raise ConfigError(f"schedules: expected refine >= 0 and confirm >= 4; given: {refine} and {confirm}")
    names = _families(families)
    tree = base_config(config, task, assignments)
    own = dict(tree.get("schedule", {}))
    kept = {k: v for k, v in own.items() if isinstance(v, Mapping) and "name" in v}  # schedules of other hyperparameters
    tree["schedule"] = designs.shape_axes(names) | kept
    probe, built = resolve(tree, task=task)
    shape_names = [name for name in probe.space.axes if name.startswith("schedule.")]
    searched = [LEARNING_RATE, *shape_names] + [WEIGHT_DECAY] * (weight_decays > 1)
    tree, middles = held(tree, searched, task)
    space = resolve(tree, task=task)[0].space
    rate_axis = searched_axis(probe, LEARNING_RATE)
    rates = designs.grid(rate_axis, learning_rates)
    decays = designs.grid(searched_axis(probe, WEIGHT_DECAY), weight_decays) if weight_decays > 1 else []
    length = probe.population.horizon if steps is None else steps
    folder = Path(out) if out is not None else new_folder("runs", "schedules").path
    seed = probe.seed

    def run(stage: str, candidates: Sequence[Candidate], repeats: int, order: str = "shared") -> Trained | None:
        found = train(
            tree | {"seed": (seed + _STAGES.index(stage)) % 2**32},
            designs.table(candidates, space, seeds=repeats),
            task=task,
            steps=length,
            score=score,
            out=folder if stage == "explore" else folder / stage,
            order=order,
            listen=listen,
            stage=stage,
            replicates=repeats,
            should_stop=should_stop,
        )
        return None if stage != _STAGES[-1] and should_stop() else found

    drawn = designs.explore(space, names, shapes=shapes, rates=rates, decays=decays, seed=seed)
    pool: dict[str, list[Candidate]] = {name: [c for shape in own for c in shape] for name, own in drawn.items()}
    explored = run("explore", designs.by_family(pool), seeds)
    if explored is None:
        return None
    runs = [explored]
    scores = first = _medians(explored.scores, pool, seeds)
    rng = np.random.default_rng([seed, 1])
    for stage, sigma in zip(_STAGES[1:-1], _SIGMAS, strict=True) if refine else ():
        pool = {
            name: [
                near
                for i in _best_shapes(pool[name], scores[name], refine)
                for near in designs.around(space, name, pool[name][i], sigma=sigma, count=_NEAR, rng=rng)
            ]
            for name in names
        }
        refined = run(stage, designs.by_family(pool), seeds)
        if refined is None:
            return None
        runs.append(refined)
        scores = _medians(refined.scores, pool, seeds)
    finalists = {name: [pool[name][i] for i in np.argsort(scores[name], kind="stable")[:_FINALISTS]] for name in names}
    confirmed = run("confirm", designs.by_family(finalists), confirm, order="independent")
    if confirmed is None:
        return None
    runs.append(confirmed)
    chosen = _choose(confirmed.scores, finalists, confirm)
    basins = {name: _basin(drawn[name], first[name], rates, rate_axis.scale == "log") for name in names}
    study = ScheduleStudy(
        folder=folder,
        metric=score,
        families=_compare(chosen, basins, space),
        held={name: shortest(value) for name, value in middles.items()},
        trainings=sum(stage.result.member_steps for stage in runs) // length,
        member_steps=sum(stage.result.member_steps for stage in runs),
        seconds=time.perf_counter() - begun,
    )
    _write(study, confirmed.result.config, built)
    return study


def _check(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"schedules: {name} must be at least 1; given: {count}")


def _families(given: Sequence[str] | str) -> list[str]:
    """The families to compare, in the order of the table; constant and cosine among them."""
    rates = [name for name in SCHEDULES if name not in NOT_FOR_RATES]
    asked = rates if given == "all" else given.split(",") if isinstance(given, str) else list(given)
    for name in asked:
        if name not in rates:
            raise ConfigError(f"families: there is no schedule {name!r} for learning rates{did_you_mean(name, rates)}")
    return [name for name in rates if name in asked or name in BASELINES]


def _medians(scores: np.ndarray, pool: Mapping[str, Sequence[Candidate]], seeds: int) -> dict[str, np.ndarray]:
    """f64 by family: each candidate's median over seeds. Trials stand family after family."""
    medians = np.median(scores.reshape(-1, seeds), axis=1)
    ends = np.cumsum([len(own) for own in pool.values()])
    return dict(zip(pool, np.split(medians, ends[:-1]), strict=True))


def _best_shapes(pool: Sequence[Candidate], scores: np.ndarray, count: int) -> list[int]:
    """The best candidates of different shapes."""
    found: dict[tuple[float, ...], int] = {}
    for i in np.argsort(scores, kind="stable"):
        shape = tuple(v for k, v in pool[i].items() if k not in (LEARNING_RATE, WEIGHT_DECAY))
        if len(found) < count:
            found.setdefault(shape, int(i))
    return list(found.values())


def _choose(
    scores: np.ndarray, finalists: Mapping[str, Sequence[Candidate]], confirm: int
) -> dict[str, tuple[Candidate, np.ndarray]]:
    """Each family's best finalist by the first half of its seeds, and its scores with the other half."""
    half = math.ceil(confirm / 2)
    chosen, rows = {}, iter(scores.reshape(-1, confirm))
    for name, own in finalists.items():
        found = [next(rows) for _ in own]
        best = int(np.argmin([np.median(each[:half]) for each in found]))
        chosen[name] = own[best], found[best][half:]
    return chosen


def _basin(shapes: Sequence[Sequence[Candidate]], scores: np.ndarray, rates: Sequence[float], log: bool) -> float:
    """Width of the basin of a family's best explored shape; NaN where the learning rate was not searched on a log scale."""
    if len(rates) < 2 or not log or not np.isfinite(scores).any() or scores.min() <= 0:
        return float("nan")
    by_rate = scores.reshape(len(shapes), len(rates), -1).min(axis=2)
    return basin_decades(np.array(rates), by_rate[int(np.argmin(by_rate.min(axis=1)))])


def _compare(
    chosen: Mapping[str, tuple[Candidate, np.ndarray]], basins: Mapping[str, float], space: Space
) -> list[FamilyResult]:
    scores = {name: found for name, (_, found) in chosen.items()}
    order = sorted(scores, key=lambda name: float(np.median(scores[name])))
    best = scores[order[0]]
    results = []
    for name in order:
        regret = difference_interval(scores[name], best)
        results.append(
            FamilyResult(
                family=name,
                hyperparameters={k: shortest(v) for k, v in chosen[name][0].items() if k != designs.FAMILY_AXIS},
                score=median_interval(scores[name]),
                seeds=len(scores[name]),
                diverged=int(np.isinf(scores[name]).sum()),
                regret=regret,
                over_constant=difference_interval(scores[name], scores["constant"]),
                over_cosine=difference_interval(scores[name], scores["cosine"]),
                tied=name == order[0] or regret.low <= 0 <= regret.high,
                basin_decades=basins[name],
                at_end=[k for k in (LEARNING_RATE, WEIGHT_DECAY) if _at_end(space, k, chosen[name][0].get(k))],
            )
        )
    return results


def _at_end(space: Space, name: str, value: float | None) -> bool:
    if value is None:
        return False
    gene = Space({name: space.axes[name]}).encode({name: value})[0]
    return not 1e-6 < gene < 1 - 1e-6


def _write(study: ScheduleStudy, config: RunConfig, task: Task) -> None:
    """Writes the table, the figure, and for each family a config that `vmaptune run` takes and the schedule it follows."""
    from vmaptune.studies.figures import families_figure

    folder = RunFolder(study.folder)
    write_text(folder.path / "families.csv", study.as_csv())
    curves = {}
    for result in study.families:
        names = list(_mixture_names(config))
        values = result.hyperparameters | {designs.FAMILY_AXIS: float(names.index(result.family))}
        single = config.with_values(values)
        where = f"{result.family}: median validation {study.metric} {result.score.value:.4g} over {result.seeds} seeds"
        write_text(folder.path / "families" / f"{result.family}.toml", to_toml(single, task, header=where))
        horizon = single.population.horizon
        text = schedule_csv(single, single.recipe(task), [Ancestor(0, 0, 0, horizon, {})])
        write_text(folder.path / "families" / f"{result.family}.csv", text)
        rows = list(csv.DictReader(io.StringIO(text)))
        curves[result.family] = [float(row[LEARNING_RATE]) for row in rows]
    write_text(folder.path / "families.html", families_figure(study, curves))


def _mixture_names(config: RunConfig) -> Sequence[str]:
    tree: Tree = config.tree["schedule"]
    return list(tree["name"])
