"""`tune`: the only file that knows the order of things.

    segment -> evaluate -> select (and crown) -> inherit -> record -> checkpoint, once a generation.

Everything else in the package is a function that this loop calls; a loop of your own can call the same ones.
"""

from __future__ import annotations

import os
import platform
import socket
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import mode
from typing import Any

import jax
import numpy as np

from vmaptune.config import FROM_PYTHON, RunConfig, differences, resolve
from vmaptune.errors import AllMembersFailed, StoreError, VmaptuneWarning
from vmaptune.generation import State, advance, make_programs
from vmaptune.plan import Plan, make_plan, prepare_backend
from vmaptune.population import Member, Status
from vmaptune.programs import Clock, CompileLog
from vmaptune.result import Best, Result
from vmaptune.store.checkpoints import Checkpoints
from vmaptune.store.folder import RunFolder, new_folder, write_text
from vmaptune.store.history import History, is_begun
from vmaptune.store.reading import read_generation, read_history, read_lineage, read_run
from vmaptune.store.record import Record, Sink
from vmaptune.strict_json import finite_json
from vmaptune.tasks import Task, check_task
from vmaptune.toml import load_config, read_toml, to_toml
from vmaptune.train import make_evaluate
from vmaptune.winner import shortest, write_winner


def tune(
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    task: Task | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    sinks: Sequence[Sink] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Runs a config: trains and evolves a population, and keeps everything in a run folder.

    Args:
        config: A TOML file, a tree of its values (`Axis` objects allowed), a resolved config, or None for the default.
        task: A task of your own, in place of `[task] name`; the settings of its loss stand under `task` in the config.
            With a resolved config, the task it was resolved with.
        out: The run folder; default: a new one below `runs/`.
        resume: Go on with the run in `out`, if there is one; it must have been begun with the same config.
        sinks: Told of every generation, besides the history.
        should_stop: Asked after every generation; True ends the run there, checkpointed, with status "interrupted".

    Returns:
        The result; see `Result`.

    Raises:
        ConfigError: The config cannot mean anything.
        StoreError: The folder is in use, holds another run, or cannot be resumed.
        AllMembersFailed: Every member of a generation is non-finite.
    """
    started = time.perf_counter()
    prepare_backend()
    with ExitStack() as stack:
        log = stack.enter_context(CompileLog())
        for sink in sinks:
            stack.callback(sink.close)
        config, task = _resolve(config, task)
        if not config.space.axes and config.population.size > 1:
            same = f"all {config.population.size} members have the same settings"
            warnings.warn(f"nothing is searched: {same}; put an axis where a number stands", VmaptuneWarning, stacklevel=2)
        plan = make_plan(config.population.size, devices=config.plan.devices, chunk=config.plan.chunk)
        programs = make_programs(config, task, plan)
        folder = RunFolder(out) if out is not None else new_folder("runs", _short_name(config))
        stack.enter_context(folder.locked())
        stack.enter_context(_told_in_a_sentence(folder))
        history = _begin(folder, config, task, plan, resume=resume)
        stack.push(partial(_leave, history))
        checkpoints = Checkpoints(folder.checkpoints)
        stack.callback(checkpoints.close)

        recorded = history.last_generation()
        done, state = checkpoints.restore_newest(recorded, like=programs.init())
        if done < 0 and recorded >= 2 * config.checkpoint.every:
            lost = f"{folder.checkpoints}: the checkpoints of {recorded + 1} generations are gone"
            raise StoreError(f"{lost}, so the run cannot go on; what it found is kept (vmaptune show {folder.path})")
        history.truncate(done)
        checkpoints.drop_after(done)
        history.event("resumed" if done >= 0 else "started", {"pid": os.getpid(), "after_generation": done})

        clock = Clock(log)
        status = "finished"
        for generation in range(done + 1, config.population.generations):
            last = generation == config.population.generations - 1
            state, record = advance(programs, state, generation, last=last, clock=clock)
            with clock("store"):
                for sink in (history, *sinks):
                    sink.write(record)
                stopping = not last and should_stop()
                if record.failed.all():
                    history.end("failed")
                    raise AllMembersFailed(_all_failed(folder, record))
                if last or stopping or (generation + 1) % config.checkpoint.every == 0:
                    checkpoints.save(generation, state)
            if stopping:
                status = "interrupted"
                break
        checkpoints.wait()
        return _finish(folder, config, task, state, history, status, clock, log, started)


def _resolve(config: RunConfig | Mapping[str, Any] | str | Path | None, task: Task | None) -> tuple[RunConfig, Task]:
    if isinstance(config, RunConfig):
        return (config, task) if task is not None else resolve(config.tree)
    if isinstance(config, Mapping):
        return resolve(config, task=task)
    if task is None:
        return load_config(config)
    return resolve(read_toml(config) if config else {}, task=task, source=str(config or "config"))


@contextmanager
def _told_in_a_sentence(folder: RunFolder) -> Iterator[None]:
    """Turns a full disk or a failing one into one sentence; the run can be resumed once there is room."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        go_on = f"mend that, then: vmaptune resume {folder.path}"
        raise StoreError(f"{folder.path}: could not be written: {error}; {go_on}") from error


def _leave(history: History, kind: type[BaseException] | None, *_: object) -> None:
    """Closes the history; after an exception the run is stopped, not running (a failed run has said so itself)."""
    with suppress(sqlite3.Error):
        if kind is not None and kind is not AllMembersFailed:
            history.end("stopped")
        history.close()


def _short_name(config: RunConfig) -> str:
    name = config.task.name.rpartition(":")[2]
    return "run" if name == FROM_PYTHON else "".join(c for c in name if c.isalnum() or c in "_-")


def _begin(folder: RunFolder, config: RunConfig, task: Task, plan: Plan, *, resume: bool) -> History:
    """Makes the folder's files, or checks that they belong to this config. Signs the history as this process."""
    if folder.is_run() and not resume:
        go_on = f"go on with it (vmaptune resume {folder.path})"
        raise StoreError(f"{folder.path}: holds a run already; {go_on} or choose another --out")
    begun = is_begun(folder.history)
    if begun and not folder.is_run():
        raise StoreError(f"{folder.history}: a history without its config.toml; choose another --out")
    if not begun:
        header = f"A vmaptune run; go on with it by `vmaptune resume {folder.path}`."
        write_text(folder.config, to_toml(config, task, header=header))
        columns = [f"{part}.{name}" for part in ("train", "validation") for name in check_task(task)]
        History.create(folder.history, _run_row(config, task, plan), [*columns, *config.space.axes])
    run = read_run(folder)
    if changed := differences(run["config"], finite_json(config.tree)):
        raise StoreError(f"{folder.path}: was begun with another config and cannot go on with this one: {'; '.join(changed)}")
    if moved := differences(run["environment"], _environment(plan)):
        message = f"begun elsewhere ({'; '.join(moved)}): it goes on, equal to rounding but not bit for bit"
        warnings.warn(message, VmaptuneWarning, stacklevel=3)
    history = History(folder.history)
    history.sign(os.getpid(), socket.gethostname())
    return history


def _environment(plan: Plan) -> dict[str, Any]:
    """What a run's bits depend on besides its config."""
    return {
        **{package: version(package) for package in ("vmaptune", "jax", "jaxlib", "flax", "optax", "numpy")},
        "python": platform.python_version(),
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "plan": plan._asdict(),
    }


def _run_row(config: RunConfig, task: Task, plan: Plan) -> dict[str, Any]:
    size = config.population
    return {
        "id": config.run_id,
        "seed": config.seed,
        "metric": task.metric,
        "direction": task.direction,
        "size": size.size,
        "segment_steps": size.segment_steps,
        "generations": size.generations,
        "config": finite_json(config.tree),
        "environment": _environment(plan),
    }


def _all_failed(folder: RunFolder, record: Record) -> str:
    diverged = record.status[record.status != Status.OK]
    why = Status(mode(diverged.tolist())).sentence if len(diverged) else "the validation metric is not finite"
    where = f"{folder.path}: generation {record.generation + 1}"
    return f"{where}: all {len(record.trial)} members failed: {why}; the history is kept in {folder.history}"


def _finish(
    folder: RunFolder,
    config: RunConfig,
    task: Task,
    state: State,
    history: History,
    status: str,
    clock: Clock,
    log: CompileLog,
    started: float,
) -> Result:
    """Reads the test split once, for the champion, and writes what the run leaves behind."""
    champion = jax.device_get(state.champion)
    generation, trial = int(champion.generation), int(champion.member.trial)
    row = next(r for r in read_generation(folder.history, generation) if r["trial"] == trial)
    values = {name: shortest(row[name]) for name in config.space.axes}
    metrics = {
        part: {k.partition(".")[2]: shortest(v) for k, v in row.items() if k.startswith(f"{part}.")}
        for part in ("train", "validation")
    }
    test = None
    if status == "finished":
        test = ((read_run(folder)["result"] or {}).get("test")) or _read_test(task, champion.member)
        with clock("store"):
            lineage = read_lineage(folder.history, trial, generation)
            header = (
                f"The best member of {folder.path} (trial {trial}, after generation {generation + 1}): "
                f"validation {task.metric} {metrics['validation'][task.metric]:.4f}, test {test[task.metric]:.4f}."
            )
            write_winner(folder, config, task, champion.member, values, lineage, header)
    best = Best(
        trial=trial,
        generation=generation,
        step=int(champion.member.step),
        hyperparameters=values,
        train=metrics["train"],
        validation=metrics["validation"],
        test=test,
        params=champion.member.params,
        model_state=champion.member.model_state,
    )
    size = config.population
    seconds = {"compile": log.seconds, **clock.seconds, "total": time.perf_counter() - started}
    result = Result(
        run=folder.path,
        status=status,
        config=config,
        best=best,
        history=read_history(folder.history),
        population=state.population,
        member_steps=size.size * size.segment_steps * (history.last_generation() + 1),
        seconds=seconds,
        compilations=dict(log.compilations),
    )
    facts = result.as_json()
    history.end(status, {k: facts[k] for k in ("best", "test", "member_steps")})
    return result


def _read_test(task: Task, member: Member) -> dict[str, float]:
    evaluate = make_evaluate(task, split="test", plan=Plan(devices=1, chunk=1))
    alone = jax.tree.map(lambda leaf: np.asarray(leaf)[None], member)
    return {name: shortest(value[0]) for name, value in jax.device_get(evaluate(alone)).items()}
