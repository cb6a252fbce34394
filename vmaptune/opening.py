"""The beginning of a run, or its going on: the run folder and its history, checked against the config."""

from __future__ import annotations

import os
import platform
import socket
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from vmaptune.choices import differences
from vmaptune.config import FROM_PYTHON, RunConfig
from vmaptune.data.digest import digest
from vmaptune.distributed import is_main, texts, together
from vmaptune.errors import AllMembersFailed, StoreError, warn
from vmaptune.generation import columns
from vmaptune.plan import Plan
from vmaptune.sections import essence_of
from vmaptune.store.folder import RunFolder, new_folder, write_text
from vmaptune.store.history import History, is_begun
from vmaptune.store.reading import read_digest, read_run
from vmaptune.store.start import start_csv
from vmaptune.strict_json import finite_json
from vmaptune.tasks import Task
from vmaptune.toml import to_toml


def open_run(
    config: RunConfig,
    task: Task,
    plan: Plan,
    out: str | Path | None,
    *,
    start: Mapping[str, Sequence[float]] | None,
    resume: bool,
    stack: ExitStack,
) -> tuple[RunFolder, History | None]:
    """The run folder, and in process 0 its history, locked for writing. What is wrong there is told by all processes."""

    def open_() -> tuple[RunFolder | None, History | None]:
        if not is_main():
            return None, None
        folder = RunFolder(out) if out is not None else new_folder("runs", _short_name(config))
        stack.enter_context(folder.locked())
        stack.enter_context(_told_in_a_sentence(folder))
        history = _begin(folder, config, task, plan, start=start, resume=resume)
        stack.push(partial(_leave, history))
        return folder, history

    folder, history = together(open_)
    return RunFolder(texts(str(folder.path) if folder else "")[0]), history


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


def refuse_to_overwrite(folder: RunFolder, *, resume: bool) -> None:
    """Raises `StoreError` for a folder that holds a run, unless that is to go on."""
    if folder.is_run() and not resume:
        go_on = f"go on with it (vmaptune resume {folder.path})"
        raise StoreError(f"{folder.path}: holds a run already; {go_on} or choose another --out")


def _begin(
    folder: RunFolder,
    config: RunConfig,
    task: Task,
    plan: Plan,
    *,
    start: Mapping[str, Sequence[float]] | None,
    resume: bool,
) -> History:
    """Makes the folder's files, or checks that they belong to this config. Signs the history as this process."""
    refuse_to_overwrite(folder, resume=resume)
    begun = is_begun(folder.history)
    if begun and not folder.is_run():
        raise StoreError(f"{folder.history}: a history without its config.toml; choose another --out")
    if not begun:
        header = f"A vmaptune run; go on with it by `vmaptune resume {folder.path}`."
        write_text(folder.config, to_toml(config, task, header=header))
        if start is not None:
            write_text(folder.start, start_csv(start))
        measured = columns(config.recipe(task), lookahead=config.lookahead.steps > 0)
        History.create(folder.history, _run_row(config, task, plan), [*measured, *config.space.axes])
        with closing(History(folder.history)) as new:
            new.event("data", {"digest": digest(task.splits)})
    run = read_run(folder)
    essence = finite_json(config.essence)
    if not essence.keys() <= run["config"].keys():
        made = f"begun with vmaptune {run['environment']['vmaptune']} of an earlier day, which knew fewer settings"
        raise StoreError(f"{folder.path}: {made}: it cannot go on with this one (vmaptune show still reads it)")
    if changed := differences(essence_of(run["config"]), essence):
        raise StoreError(f"{folder.path}: was begun with another config and cannot go on with this one: {'; '.join(changed)}")
    environment = environment_of(config, plan)
    if moved := differences(run["environment"], environment | {"asked": run["environment"].get("asked")}):
        warn(f"begun elsewhere ({'; '.join(moved)}): it goes on, equal to rounding but not bit for bit")
    if read_digest(folder.history) not in (None, digest(task.splits)):
        # Data that were prepared by other versions of a library may be equal to rounding only.
        if not moved:
            raise StoreError(f"{folder.path}: was begun with other data, and cannot go on with these; choose another --out")
        warn(f"{folder.path}: the data are not what they were when the run was begun")
    history = History(folder.history)
    history.move(environment)
    history.sign(os.getpid(), socket.gethostname())
    return history


def environment_of(config: RunConfig, plan: Plan) -> dict[str, Any]:
    """What a run's bits depend on besides its essence; `asked` is the part of [plan] that the plan was chosen by."""
    return {
        **{package: version(package) for package in ("vmaptune", "jax", "jaxlib", "flax", "optax", "numpy")},
        "python": platform.python_version(),
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "plan": plan._asdict(),
        "asked": {key: value for key, value in asdict(config.plan).items() if key != "generations_per_dispatch"},
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
        "generations": config.total_generations,
        "config": finite_json(config.tree),
        "environment": environment_of(config, plan),
    }
