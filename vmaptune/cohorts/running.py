"""Cohorts one after another: each an ordinary run with a program of its own, and halving decides which of them go on.

    OUT/cohorts.toml    the config, choices and all
    OUT/cohorts.json    each cohort: how far it came and why it was left; each decision; the winner
    OUT/<cohort>/       its run, which `vmaptune show` and `vmaptune resume` take
    OUT/best/           the winner's files

Every decision is read from the cohorts' histories, so a study that was killed goes on by asking the same questions again:
what has been trained is not trained twice. The test split is read once, for the winner.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vmaptune.choices import Tree, differences
from vmaptune.cohorts.expansion import Cohort, CohortBudget, budget_of, cohorts_of, plain_tree
from vmaptune.cohorts.result import CohortResult, CohortRun, Decision
from vmaptune.config import FROM_PYTHON, RunConfig, resolve
from vmaptune.distributed import agreed, anyone, is_main, texts, together
from vmaptune.errors import AllMembersFailed, ConfigError, OutOfMemory, StoreError
from vmaptune.loop import tune
from vmaptune.plan import prepare_backend
from vmaptune.result import Result
from vmaptune.store.folder import RunFolder, new_folder, write_text
from vmaptune.store.history import History, is_begun, now
from vmaptune.store.reading import read_history, read_run
from vmaptune.store.record import Sink
from vmaptune.strict_json import finite_json
from vmaptune.tasks import Task
from vmaptune.toml import load_tree, read_toml

CONFIG, SUMMARY = "cohorts.toml", "cohorts.json"

Listener = Callable[[str, RunConfig, Task], Sequence[Sink]]


def load_cohorts(
    path: str | Path | None = None, assignments: Sequence[str] = (), *, seed: int | None = None
) -> tuple[Tree, list[Cohort]]:
    """Reads a config file (or the embedded default), and the cohorts that its choices open: one if there are none.

    Raises:
        ConfigError: It cannot be read, or its choices or `[cohorts]` cannot mean anything.
    """
    tree = load_tree(path, assignments, seed=seed)
    return tree, _expanded(tree, None, str(path or "default config"))[0]


def _expanded(tree: Tree, task: Task | None, source: str) -> tuple[list[Cohort], CohortBudget]:
    try:
        return cohorts_of(tree, task=task), budget_of(tree)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error.__cause__


def tune_cohorts(
    config: Mapping[str, Any] | str | Path | None = None,
    *,
    task: Task | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    listen: Listener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    source: str = "",
) -> CohortResult:
    """Runs a config whose choices on static settings open cohorts, and finds the best member of them all.

    By halving, all cohorts train for a short while, and only those with the best validation fitness so far go on, from
    where they are, again and again until one runs to its end; by an equal budget, all run to the end. A cohort whose members
    all fail, or which does not fit the memory, goes on no further; another takes its place.

    Args:
        config: A TOML file, a tree of its values (`Axis` objects allowed), or None for the default. Its section `[cohorts]`
            says how the budget is shared; see `CohortBudget`.
        task: A task of your own, in place of `[task] name`.
        out: The folder of all cohorts; default: a new one below `runs/`.
        resume: Go on with what is in `out`, if there is anything; it must have been begun with the same config.
        listen: `(cohort, its config, its task) -> sinks` that are told of every generation; called whenever one goes on.
        should_stop: Asked after every dispatch and between cohorts; True ends it there, and it can be resumed.
        source: Where a tree came from, to begin an error with.

    Returns:
        The result; see `CohortResult`.

    Raises:
        ConfigError: The config cannot mean anything, or the cohorts are measured by different metrics.
        StoreError: The folder is in use, holds something else, or cannot be resumed.
        AllMembersFailed: No cohort has a sound member.
    """
    begun = time.perf_counter()
    prepare_backend()
    tree = dict(config) if isinstance(config, Mapping) else load_tree(config)
    source = source or ("config" if isinstance(config, Mapping) else str(config or "default config"))
    cohorts, budget = _expanded(tree, task, source)
    generations, metric = _check(cohorts, task, source)
    with ExitStack() as stack:
        folder = _open(tree, task, out, resume=resume, stack=stack)
        runs = [CohortRun(cohort, RunFolder(folder / cohort.name)) for cohort in cohorts]
        study = _Study(folder, metric, budget, runs, [], task, listen, should_stop, _decided(folder), begun)
        winner = _train(study, budget.rungs(len(cohorts), generations), generations)
        result = _conclude(study, winner) if winner else None
        return _report(study, "finished" if winner else "interrupted", winner, result)


class _Study(NamedTuple):
    """What the parts of `tune_cohorts` share; `decided` is what an earlier process decided."""

    folder: Path
    metric: str
    budget: CohortBudget
    runs: list[CohortRun]
    decisions: list[Decision]
    task: Task | None
    listen: Listener | None
    should_stop: Callable[[], bool]
    decided: list[Decision]
    begun: float


def _check(cohorts: Sequence[Cohort], task: Task | None, source: str) -> tuple[int, str]:
    """Resolves every cohort, before any of them trains; generations of a whole run, and the metric."""
    generations, measured = [], {}
    for cohort in cohorts:
        config, built = resolve(cohort.tree, task=task, source=f"{source}: cohort {cohort.name}" if cohort.name else source)
        generations.append(config.total_generations)
        measured[built.metric, built.direction] = cohort.name
    if len(measured) > 1:
        given = ", ".join(f"{metric} ({direction}) of {name}" for (metric, direction), name in measured.items())
        raise ConfigError(f"{source}: cohorts are compared by one metric; given: {given}")
    return max(generations), next(iter(measured))[0]


def _open(tree: Tree, task: Task | None, out: str | Path | None, *, resume: bool, stack: ExitStack) -> Path:
    """The folder of all cohorts, locked for writing by process 0."""
    plain = plain_tree(tree)
    if task is not None:
        plain["task"] = {**plain.get("task", {}), "name": FROM_PYTHON}

    def open_() -> Path | None:
        if not is_main():
            return None
        folder = RunFolder(out) if out is not None else new_folder("runs", "cohorts")
        begun = folder.path / CONFIG
        if folder.is_run():
            raise StoreError(f"{folder.path}: holds a run already; choose another --out for cohorts")
        if begun.is_file() and not resume:
            go_on = f"go on with them (vmaptune resume {folder.path})"
            raise StoreError(f"{folder.path}: holds cohorts already; {go_on} or choose another --out")
        stack.enter_context(folder.locked())
        if not begun.is_file():
            header = f"# Cohorts of runs; go on with them by `vmaptune resume {folder.path}`.\n"
            write_text(begun, header + _toml(plain))
        if changed := differences(_essence(read_toml(begun)), _essence(plain)):
            other = "was begun with another config and cannot go on with this one"
            raise StoreError(f"{folder.path}: {other}: {'; '.join(changed)}")
        return folder.path

    return Path(texts(str(together(open_) or ""))[0])


def _toml(tree: Tree) -> str:
    """A tree as TOML, with axes on one line."""
    import tomlkit

    def inline(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        table: Any = tomlkit.inline_table() if {"low", "high", "choices"} & {*value} else {}
        table.update({k: inline(v) for k, v in value.items()})
        return table

    return tomlkit.dumps({section: inline(table) for section, table in tree.items()})


def _essence(tree: Tree) -> Tree:
    return {section: table for section, table in tree.items() if section not in ("plan", "checkpoint")}


def _decided(folder: Path) -> list[Decision]:
    """What an earlier process decided, with its times."""
    try:
        return [Decision(**decision) for decision in json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["decisions"]]
    except (OSError, ValueError, TypeError, KeyError):
        return []


# ----------------------------------------------------------------------------------------------------------- training


def _train(study: _Study, rungs: Mapping[int, int], generations: int) -> CohortRun | None:
    """Trains the cohorts as far as each deserves; the one with the best member, or None if it was told to stop."""
    alive = list(study.runs)
    for done, count in [*rungs.items(), (generations, 0)]:
        if not all(_go_on(study, run, done if count else None) for run in alive):
            return None
        alive = _decide(study, alive, done, count) if count else alive
    while not (ended := [run for run in study.runs if run.status == "finished"]):  # those that went on to the end failed
        sound = [run for run in study.runs if run.status != "failed" and np.isfinite(run.fitness)]
        if not sound:
            problems = "; ".join(run.problem for run in study.runs)
            raise AllMembersFailed(f"{study.folder}: no cohort came to its end: {problems}")
        if not _go_on(study, max(sound, key=lambda run: run.fitness), None):
            return None
    return max(ended, key=lambda run: (run.matured, run.fitness, -run.loss))


def _go_on(study: _Study, run: CohortRun, until: int | None) -> bool:
    """Trains a cohort until so many generations are done, or to its end; False if it was told to stop before."""
    _look(run)
    if run.status in ("finished", "failed") or (until is not None and run.generations >= until):
        return True
    if anyone(study.should_stop()):
        return False
    begun = time.perf_counter()
    config, task = resolve(run.cohort.tree, task=study.task)
    sinks = study.listen(run.cohort.name, config, task) if study.listen else ()
    options: dict[str, Any] = {"until": until, "conclude": False, "should_stop": study.should_stop}
    try:
        result = tune(config, task=task, out=run.folder.path, resume=True, sinks=sinks, **options)
        run.compilations.update(result.compilations)
    except (AllMembersFailed, OutOfMemory) as error:
        run.problem = str(error)
    run.seconds += time.perf_counter() - begun
    agreed(0)  # all of it is written
    _look(run)
    _report(study, "running")
    return run.status in ("finished", "failed") or (until is not None and run.generations >= until)


def _look(run: CohortRun) -> None:
    """Reads how far a cohort is from its folder."""
    if run.folder.is_run() and is_begun(run.folder.history):
        facts, history = read_run(run.folder), read_history(run.folder.history)
        size = facts["config"]["population"]
        run.status, run.generations = facts["status"], facts["generation"] + 1
        settled = facts["result"] if run.status in ("finished", "interrupted") else None
        run.member_steps = (settled or {}).get("member_steps", len(history) * size["segment_steps"])
        sound = history[np.isfinite(history["fitness"])]
        if len(sound):
            mature = sound["step"] >= size["segment_steps"] * size["generations"]
            loss = np.nan_to_num(sound["validation.loss"], nan=np.inf)
            best = np.lexsort((loss, -sound["fitness"], ~mature))[0]
            run.matured, run.fitness, run.loss = bool(mature[best]), float(sound["fitness"][best]), float(loss[best])
            columns = [name for name in sound.dtype.names or () if name.startswith("validation.")]
            run.validation = {name.partition(".")[2]: float(sound[name][best]) for name in columns}
    if run.status == "failed" or run.problem:
        run.status, run.problem = "failed", run.problem or f"{run.folder.path}: all members failed"


def _decide(study: _Study, alive: Sequence[CohortRun], done: int, count: int) -> list[CohortRun]:
    """Those that go on, the best first; what is decided is noted."""
    fitness = {run.cohort.name: _fitness_after(run, done) for run in alive}
    order = sorted(alive, key=lambda run: -fitness[run.cohort.name])  # of equals, the first in the config
    kept = [run for run in order if fitness[run.cohort.name] > -np.inf][:count]
    left = [run for run in order if run not in kept]
    decision = Decision(now(), done, [run.cohort.name for run in kept], [run.cohort.name for run in left], fitness)
    before = next((d for d in study.decided if d[1:4] == decision[1:4]), None)
    study.decisions.append(decision._replace(time=before.time) if before else decision)
    for run in left:
        run.left_after = done
    if not before and is_main():
        for run in alive:
            if run.folder.is_run() and is_begun(run.folder.history):
                with closing(History(run.folder.history)) as history:
                    why = {"fitness": finite_json(fitness[run.cohort.name]), "kept": decision.kept, "left": decision.left}
                    history.event("kept" if run in kept else "left", why, done - 1)
    _report(study, "running")
    return kept


def _fitness_after(run: CohortRun, done: int) -> float:
    """The best fitness in the first generations of a cohort; -inf if it did not get through them."""
    if (run.status != "finished" and run.generations < done) or (run.status == "failed" and run.generations == done):
        return -math.inf
    history = read_history(run.folder.history)
    found = history["fitness"][(history["generation"] < done) & np.isfinite(history["fitness"])]
    return float(found.max(initial=-np.inf))


# ---------------------------------------------------------------------------------------------------------- reporting


def _conclude(study: _Study, winner: CohortRun) -> Result:
    """Reads the test split for the winner, and puts its files beside the cohorts."""
    config, task = resolve(winner.cohort.tree, task=study.task)
    result = tune(config, task=task, out=winner.folder.path, resume=True)
    winner.compilations.update(result.compilations)
    if is_main():
        best = study.folder / "best"
        partial = study.folder / "best.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(winner.folder.best, partial)
        shutil.rmtree(best, ignore_errors=True)
        partial.replace(best)
    return result


def _report(study: _Study, status: str, winner: CohortRun | None = None, result: Result | None = None) -> CohortResult:
    """What is known by now, written to `cohorts.json`."""
    found = CohortResult(
        run=study.folder,
        status=status,
        metric=study.metric,
        budget=study.budget,
        cohorts=tuple(study.runs),
        decisions=tuple(study.decisions),
        winner=winner.cohort.name if winner else None,
        result=result,
        member_steps=sum(run.member_steps for run in study.runs),
        seconds=time.perf_counter() - study.begun,
    )
    if is_main():
        write_text(study.folder / SUMMARY, json.dumps(found.as_json(), indent=2, allow_nan=False) + "\n")
    return found
