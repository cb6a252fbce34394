"""`tune`: the only file that knows the order of things.

    propose -> (inherit -> segment -> evaluate -> select (and crown)), generation after generation, in dispatches of one or
    many; rows -> checkpoint, of each dispatch while the next one trains.

Everything else in the package is a function that this loop calls; a loop of your own can call the same ones.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mode
from typing import Any, NamedTuple

import jax
import numpy as np

from vmaptune.cache import use_compilation_cache
from vmaptune.champion import Champion
from vmaptune.config import RunConfig, resolve
from vmaptune.data.diagnosis import warnings_of
from vmaptune.distributed import agreed, alone, anyone, texts
from vmaptune.errors import AllMembersFailed, ConfigError, OutOfMemory, StoreError, warn
from vmaptune.finetuning import whole
from vmaptune.generation import Generations, State, records_of
from vmaptune.opening import environment_of, open_run, refuse_to_overwrite
from vmaptune.optimizers import evaluation_params
from vmaptune.pace import Pace
from vmaptune.plan import Plan, fitted, idle_cores, is_out_of_memory, prepare_backend
from vmaptune.planner import choose_plan, is_long
from vmaptune.population import Member, Status
from vmaptune.programs import CompileLog
from vmaptune.result import Best, Result
from vmaptune.search import Search
from vmaptune.sinks import Listeners, choose_sinks
from vmaptune.spread import spread
from vmaptune.store.checkpoints import Checkpoints
from vmaptune.store.folder import RunFolder
from vmaptune.store.history import History, is_begun
from vmaptune.store.keeper import Keeper
from vmaptune.store.ledger import read_test
from vmaptune.store.reading import HistoryArray, read_generation, read_history, read_lineage, read_run
from vmaptune.store.record import Record, Sink
from vmaptune.store.start import read_start
from vmaptune.tasks import OF_FILES, TASKS, Task
from vmaptune.toml import load_config, read_toml
from vmaptune.winner import shortest, test_metrics, write_winner


def tune(
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    task: Task | None = None,
    out: str | Path | None = None,
    start: Mapping[str, Sequence[float]] | None = None,
    resume: bool = False,
    until: int | None = None,
    conclude: bool = True,
    sinks: Sequence[Sink] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Runs a config: trains and evolves a population, and keeps everything in a run folder.

    Args:
        config: A TOML file, a tree of its values (`Axis` objects allowed), a resolved config, or None for the default.
        task: A task of your own, in place of `[task] name`; the settings of its loss stand under `task` in the config.
            With a resolved config, the task it was resolved with.
        out: The run folder; default: a new one below `runs/`.
        start: Hyperparameter sets to train: numbers by the name of each axis, a row a trial, in the order of their trials;
            kept in the run folder. Trials beyond them are the search method's. Default: all are.
        resume: Go on with the run in `out`, if there is one; it must have been begun with the same config, but for
            `[plan]`, `[checkpoint]` and `[sinks]`.
        until: Stop after so many generations, as if told to: to go on, or not, when others have come as far.
        conclude: False: leave the test split unread when the run is finished, until it is called again with True: where
            several runs are compared, and only the best of them is to be tested.
        sinks: Told of every generation, besides the history and the sinks of the config; see `Sink`. One that fails is
            switched off with a warning.
        should_stop: Asked after every dispatch; True ends the run there, checkpointed, with status "interrupted".

    Returns:
        The result; see `Result`.

    Raises:
        ConfigError: The config cannot mean anything.
        StoreError: The folder is in use, holds another run, or cannot be resumed.
        AllMembersFailed: Every member of a generation is non-finite.
        OutOfMemory: Not even the narrowest plan fits the device's memory.
    """
    started = time.perf_counter()
    prepare_backend()
    use_compilation_cache()
    with ExitStack() as stack:
        log = stack.enter_context(CompileLog())
        listeners = Listeners(sinks)
        stack.callback(listeners.close)
        config, task = _resolve(config, task)
        chosen = choose_sinks(config.sinks)
        if until is not None and until < 1:
            raise ConfigError(f"until: expected at least one generation; given: {until}")
        if len(set(texts(config.run_id))) > 1:
            raise ConfigError("the processes of this run were started with different configs")
        _warn_of_what_is_in_vain(config, task)
        if out is not None and alone():  # of several processes, the one that writes says it for all
            refuse_to_overwrite(RunFolder(out), resume=resume)
        begun = time.perf_counter()
        plan = _plan(config, task, out, resume=resume)
        seconds = {"plan": time.perf_counter() - begun, "train": 0.0, "propose": 0.0, "store": 0.0}
        encode = partial(config.space.encode_columns, optional=config.optional_axes)
        if start is not None:
            encode(start)  # refused before anything is made
        folder, history = open_run(config, task, plan, out, start=start, resume=resume, stack=stack)
        if history:
            listeners.attach(folder, history, chosen)
            stack.callback(listeners.close)  # while the history can still be told that one has failed
        # A run that goes on keeps to what its folder says, whatever is given.
        encoded = encode(read_start(folder.start)) if folder.start.is_file() else None
        checkpoints = Checkpoints(folder.checkpoints)
        stack.callback(checkpoints.close)
        run = _Run(config, task, encoded, folder, history, checkpoints, listeners, until, should_stop, log, started, seconds)
        while True:
            try:
                state, status = _train(run, plan)
                break
            except jax.errors.JaxRuntimeError as error:
                plan = _narrower(run, plan, error)
        return _finish(run, state, status, conclude=conclude)


def _warn_of_what_is_in_vain(config: RunConfig, task: Task) -> None:
    """Says what is often wrong with data, and what the run will do in vain, or not do."""
    if config.task.name not in TASKS or config.task.name in OF_FILES:
        for sentence in warnings_of(task.splits, task.features):
            warn(f"data: {sentence}")
    size, selector = config.population.size, config.selector()
    if not config.space.axes and size > 1:
        warn(f"nothing is searched: all {size} members have the same settings; put an axis where a number stands")
    learns = selector.proposer is not None and selector.proposer.adaptive
    if learns and config.stop.name == "none" and config.total_generations <= config.population.generations:
        unused = f"all {config.groups} trials begin at once, before {config.search.name} could learn from any"
        warn(f"{unused}; give search.trials, more than the {config.groups} that fit the slots")
    if (idle := idle_cores()) and not config.plan.devices and size > jax.device_count():
        started_by = "JAX's CPU backend was started before vmaptune could ask for a device a core"
        warn(f"{started_by}, so {idle} stay idle: use vmaptune first, or set JAX_NUM_CPU_DEVICES")


class _Run(NamedTuple):
    """What the parts of a run share; the history is None in processes that do not write it."""

    config: RunConfig
    task: Task
    start: np.ndarray | None
    folder: RunFolder
    history: History | None
    checkpoints: Checkpoints
    listeners: Listeners
    until: int | None
    should_stop: Callable[[], bool]
    log: CompileLog
    started: float
    seconds: dict[str, float]


def _train(run: _Run, plan: Plan) -> tuple[State, str]:
    """Trains from the newest checkpoint, or from the beginning, until the end or until asked to stop."""
    config, budget = run.config, run.config.budget.seconds
    total = config.total_generations if run.until is None else min(run.until, config.total_generations)
    generations, done, state = _newest(run, plan)
    search = Search(config, run.folder.history if done >= 0 else None)
    sinks = (run.history, *run.listeners) if run.history else ()
    keeper = Keeper(run.history, sinks, run.checkpoints, every=config.checkpoint.every, done=done)
    pace = Pace(config.plan.generations_per_dispatch, generations.capacity)
    first, stopped = done + 1, False
    over = generations.is_over(state) or 0 < budget <= search.seconds
    begun, compiled = time.perf_counter(), run.log.seconds
    try:
        while first < total and not over and not stopped:
            if generations.has_room(state):
                generations, state = _halved(run, plan, generations, state, first)
            if generations.waits:
                state = search.propose(generations, state)
            count = agreed(pace.take(total - first))
            sent, ready = time.perf_counter(), run.log.seconds
            state, facts, ran = generations(state, first, count)
            keeper.write()  # what the dispatch before brought, while this one trains
            facts, count = jax.device_get(facts), int(ran)
            seconds = time.perf_counter() - sent - (run.log.seconds - ready)
            run.seconds.setdefault("first_step", time.perf_counter() - seconds - run.started)
            pace.saw(count, seconds)
            records = records_of(facts, first, count, {"train": seconds / count})
            first += count
            if failed := search.saw(records):
                keeper.hold([record for record in records if record.generation <= failed.generation])
                keeper.write()
                if run.history:
                    run.history.end("failed")
                raise AllMembersFailed(_all_failed(run.folder, failed))
            over = generations.is_over(state) or anyone(0 < budget <= search.seconds)
            stopped = anyone(run.should_stop()) and first < total and not over
            keeper.hold(records, state, last=stopped or over or first == total)
        keeper.finish()
    finally:
        run.seconds["train"] += time.perf_counter() - begun - (run.log.seconds - compiled)
        run.seconds["propose"] += search.proposing
        run.seconds["store"] += keeper.seconds
    if over and first > done + 1 and run.history:
        why = "no trial is left" if generations.is_over(state) else "search.budget.seconds"
        run.history.event("ended", {"because": why}, first - 1)
    return state, "finished" if over or first >= config.total_generations else "interrupted"


def _generations(run: _Run, plan: Plan, slots: int) -> Generations:
    """The program for so many slots; half of them may do in a run long enough for that to be worth a compilation."""
    narrows = alone() and run.config.selector().trials > 0 and is_long(run.config, run.task)
    return Generations(run.config, run.task, fitted(plan, slots), run.start, slots=slots, narrows=narrows)


def _halved(run: _Run, plan: Plan, generations: Generations, state: State, first: int) -> tuple[Generations, State]:
    """Goes on with as few slots as the last trials need: the population halved, once or several times."""
    narrow = generations.narrowed(state)
    slots = len(narrow.population.trial)
    if run.history:
        run.history.event("narrowed", {"slots": slots}, first)
    generations = _generations(run, plan, slots)
    return generations, generations.put(narrow)


def _newest(run: _Run, plan: Plan) -> tuple[Generations, int, State]:
    """The newest generation that can be gone on from, and the program and the state after it; drops what is newer."""
    recorded = agreed(run.history.last_generation() if run.history else 0)
    seen_whole = agreed(run.history.last_checkpoint() if run.history else 0)
    size = run.config.population.size
    built: dict[int, Generations] = {}

    def program(generation: int) -> Generations:
        slots = agreed(run.history.slots(generation, size) if run.history else 0)
        built[slots] = built.get(slots) or _generations(run, plan, slots)
        return built[slots]

    done, state = run.checkpoints.restore_newest(recorded, like=lambda generation: program(generation).begin())
    if done < 0 and seen_whole >= 0:
        lost = f"{run.folder.checkpoints}: the checkpoints of {recorded + 1} generations are gone"
        raise StoreError(f"{lost}, so the run cannot go on; what it found is kept (vmaptune show {run.folder.path})")
    run.checkpoints.drop_after(done)
    if run.history:
        run.history.truncate(done)
        run.history.settle()  # for processes on other hosts, which read it
        run.history.event("resumed" if done >= 0 else "started", {"pid": os.getpid(), "after_generation": done})
    generations = program(done)
    return generations, done, generations.begin() if state is None else state


def _narrower(run: _Run, plan: Plan, error: Exception) -> Plan:
    """Half the chunk, if memory ran out; raises what was not about memory."""
    if not is_out_of_memory(error) or not run.history or not alone():
        raise error
    width = plan.chunks(run.config.population.size)[1]
    if width == 1:
        raise OutOfMemory(f"out of memory with {plan}: a smaller population.size or batch.size helps") from error
    plan = plan._replace(chunk=math.ceil(width / 2))
    warn(f"out of memory: going on from the last checkpoint with {plan}")
    run.history.event("out_of_memory", {"plan": plan._asdict()})
    run.history.move(environment_of(run.config, plan))
    jax.clear_caches()
    return plan


def _plan(config: RunConfig, task: Task, out: str | Path | None, *, resume: bool) -> Plan:
    """The plan that a run was begun with, where this machine can keep to it; else a new one."""
    folder = RunFolder(out) if out is not None and resume else None
    if folder and folder.is_run() and is_begun(folder.history):
        begun = read_run(folder)
        given = Plan(**begun["environment"]["plan"])
        here = environment_of(config, given)
        if all(begun["environment"].get(key) == here[key] for key in ("platform", "device", "devices", "asked")):
            return given
    return choose_plan(config, task).plan


def _resolve(config: RunConfig | Mapping[str, Any] | str | Path | None, task: Task | None) -> tuple[RunConfig, Task]:
    if isinstance(config, RunConfig):
        return (config, task) if task is not None else resolve(config.tree)
    if isinstance(config, Mapping):
        return resolve(config, task=task)
    if task is None:
        return load_config(config)
    return resolve(read_toml(config) if config else {}, task=task, source=str(config or "config"))


def _all_failed(folder: RunFolder, record: Record) -> str:
    diverged = record.status[record.status != Status.OK]
    why = Status(mode(diverged.tolist())).sentence if len(diverged) else "the validation metric is not finite"
    where = f"{folder.path}: generation {record.generation + 1}"
    return f"{where}: all {len(record.trial)} members failed: {why}; the history is kept in {folder.history}"


def _finish(run: _Run, state: State, status: str, *, conclude: bool) -> Result:
    """Makes the result; process 0 reads the test split once, for the champion, and writes what the run leaves behind."""
    champion = jax.device_get(state.champion)
    if champion.generation < 0:
        raise AllMembersFailed(
            f"{run.folder.path}: not one sound member was found; the history is kept in {run.folder.history}"
        )
    if run.history:
        run.history.settle()
    agreed(0)  # all rows are written
    history = read_history(run.folder.history)
    best = _best(run, champion, history)
    if run.history and status == "finished" and conclude:
        best = _conclude(run, run.history, best, champion.member)
    steps = run.config.population.segment_steps + run.config.lookahead.steps
    result = Result(
        run=run.folder.path,
        status=status,
        config=run.config,
        best=best,
        history=history,
        population=state.population,
        member_steps=len(history) * steps,
        seconds={"compile": run.log.seconds, **run.seconds, "total": time.perf_counter() - run.started},
        compilations=dict(run.log.compilations),
    )
    if run.history:
        facts = result.as_json()
        run.history.end(status, {k: facts[k] for k in ("best", "test", "member_steps", "seconds", "compilations")})
        run.listeners.finish(facts)
        run.history.settle()
    agreed(0)  # the test result is written
    test = (read_run(run.folder)["result"] or {}).get("test")
    return result if run.history else replace(result, best=replace(best, test=test))


def _best(run: _Run, champion: Champion, history: HistoryArray) -> Best:
    """The champion, with its rows in the history."""
    generation, trial = int(champion.generation), int(champion.member.trial)
    row = next(r for r in read_generation(run.folder.history, generation) if r["trial"] == trial)
    judgement = "lookahead" if run.config.lookahead.steps else "validation"
    metrics = {
        part: {k.partition(".")[2]: shortest(v) for k, v in row.items() if k.startswith(f"{source}.")}
        for part, source in (("train", "train"), ("validation", judgement))
    }
    member = champion.member
    params, model_state = whole(evaluation_params(member.opt_state, member.params), member.model_state)
    return Best(
        trial=trial,
        generation=generation,
        step=int(champion.member.step),
        hyperparameters={name: shortest(row[name]) for name in run.config.space.axes if row[name] is not None},
        train=metrics["train"],
        validation=metrics["validation"],
        test=None,
        replicates=spread(
            history,
            trial=trial,
            generation=generation,
            size=run.config.repeats.replicates,
            horizon=run.config.population.horizon,
        ),
        params=params,
        model_state=model_state,
    )


def _conclude(run: _Run, history: History, best: Best, member: Member) -> Best:
    """Reads the test split, unless that was done before, and writes the winner's files."""
    folder, metric = run.folder, run.task.metric
    subject = {"what": "best", "trial": best.trial, "generation": best.generation}
    test = read_test(history, folder.history, subject, lambda: test_metrics(run.task, member))
    lineage = read_lineage(folder.history, best.trial, best.generation)
    header = (
        f"The best member of {folder.path} (trial {best.trial}, after generation {best.generation + 1}): "
        f"validation {metric} {best.validation[metric]:.4f}, test {test[metric]:.4f}."
    )
    write_winner(folder, run.config, run.task, best.params, best.model_state, best.hyperparameters, lineage, header)
    return replace(best, test=test)
