"""A run carried into other tools: told to a sink as if it went on now, or written in a format of theirs."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from vmaptune.errors import ConfigError, StoreError, VmaptuneError, did_you_mean
from vmaptune.sinks import SINKS, choose_sinks, read_info
from vmaptune.store.folder import RunFolder, spare, write_text
from vmaptune.store.history import connect
from vmaptune.store.reading import read_events, read_run
from vmaptune.store.record import Sink
from vmaptune.store.replaying import read_records
from vmaptune.strict_json import finite_json

_FILES = {"csv": "history.csv", "parquet": "history.parquet", "tensorboard": "tensorboard"}  # of sinks, in the run folder
CODE = ("optax", "torch")
"""What the winner's schedule can be written as."""


def code(path: str | Path, library: str) -> str:
    """The winner's learning rate as code for a library, one of `CODE`.

    Raises:
        StoreError: It is no run folder, or has no winner yet.
    """
    from vmaptune.analysis.schedule_code import snippet

    return snippet(path, library)


def export(
    path: str | Path,
    to: str,
    *,
    out: str | Path | None = None,
    values: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path | None:
    """Writes a run, finished or as far as it is.

    Args:
        path: The run folder.
        to: A sink (a row of `SINKS`, or one of a user's own), or a row of `FORMATS`.
        out: Where to; default: the run folder, or for a tracker where its settings say.
        values: Settings of the sink.
        overwrite: Replace what is there.

    Returns:
        The file or folder; None if a tracker keeps it.

    Raises:
        ConfigError: There is no such format or sink, or no such setting.
        StoreError: It is no run folder, the place is taken, or it cannot be written.
    """
    if to not in FORMATS and to not in SINKS and ":" not in to:
        raise ConfigError(f"--to: there is no format {to!r}{did_you_mean(to, [*FORMATS, *SINKS])}")
    if to in FORMATS and values:
        raise ConfigError(f"--set: {to} has no settings; given: {', '.join(values)}")
    spare(out)
    folder = RunFolder(path).require_run()
    if read_run(folder)["generation"] < 0:
        raise StoreError(f"{folder.path}: has no generation yet that could be exported")
    chosen = choose_sinks({} if to in FORMATS else {to: values or {}})
    info = read_info(folder, None if out is None else Path(out))
    name = FORMATS[to][0] if to in FORMATS else _FILES.get(to)
    place = info.place(name) if name else info.out
    if name and info.place(name).exists() and not overwrite:
        raise StoreError(f"{place}: is there already; --overwrite replaces it, --out names another place")
    try:
        if chosen:
            _tell(folder, chosen[0].make(info))
        else:
            FORMATS[to][1](folder, to, info.place(name or to))
    except VmaptuneError:
        raise
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise StoreError(f"{folder.path}: could not be exported to {to}: {type(error).__name__}: {first}") from error
    return place


def _tell(folder: RunFolder, sink: Sink) -> None:
    """Tells a sink every generation that it has not heard of, and how the run ended."""
    run = read_run(folder)
    with closing(sink):
        for record in read_records(folder.history, getattr(sink, "newest", -1) + 1):
            sink.write(record)
        if run["result"] and hasattr(sink, "finish"):
            sink.finish({"status": run["status"], **run["result"]})


def _json(folder: RunFolder, _: str, place: Path) -> None:
    """One document: the run, its trials, its records and its events; null for a number that is not one."""
    with closing(connect(folder.history)) as db:
        tables = {
            "trials": [dict(row) for row in db.execute("SELECT * FROM trial ORDER BY trial")],
            "records": [dict(row) for row in db.execute("SELECT * FROM record ORDER BY generation, slot")],
        }
    document = {"run": read_run(folder), **tables, "events": read_events(folder.history)}
    write_text(place, json.dumps(finite_json(document), allow_nan=False) + "\n")


def _optuna(folder: RunFolder, _: str, place: Path) -> None:
    """An Optuna storage in SQLite, with one study: written whole or not at all."""
    from optuna.storages import RDBStorage

    from vmaptune.analysis.optuna_study import study_of

    partial = Path(f"{place}.partial")
    partial.unlink(missing_ok=True)
    # No path in the URL, where a "?" or a "#" would not be the path's.
    storage = RDBStorage("sqlite://", engine_kwargs={"creator": lambda: sqlite3.connect(partial)})
    try:
        study_of(folder.path, storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()
    partial.replace(place)


def _orbax(folder: RunFolder, _: str, place: Path) -> None:
    from vmaptune.analysis.orbax_weights import export_orbax

    if place.is_dir():  # to be replaced
        shutil.rmtree(place)
    export_orbax(folder.path, place)


def _code(folder: RunFolder, library: str, place: Path) -> None:
    write_text(place, code(folder.path, library))


FORMATS: dict[str, tuple[str, Callable[[RunFolder, str, Path], None]]] = {
    "json": ("history.json", _json),
    "optuna": ("optuna.db", _optuna),
    "orbax": ("orbax", _orbax),
    "optax": ("schedule_optax.py", _code),
    "torch": ("schedule_torch.py", _code),
}
"""What is no sink, by name: the file in the run folder, and what writes it."""
