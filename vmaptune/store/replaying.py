"""A history read back as the records it was written from: an old run can be told to any sink, as if it went on now."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from vmaptune.store.history import connect
from vmaptune.store.record import Record

_FIXED = ("generation", "slot", "trial", "step", "status", "parent", "fitness")
_MEASURED = ("train.", "validation.", "lookahead.", "plateau.scale")


def measured_and_searched(path: Path) -> tuple[list[str], list[str]]:
    """The columns that a history has for metrics and for searched hyperparameters, in its order."""
    with closing(connect(path)) as db:
        return _columns(db)


def _columns(db: sqlite3.Connection) -> tuple[list[str], list[str]]:
    names = [row["name"] for row in db.execute("PRAGMA table_info(record)")][len(_FIXED) :]
    metrics = [name for name in names if name.startswith(_MEASURED)]
    return metrics, [name for name in names if name not in metrics]


def read_records(path: Path, first: int = 0, last: int | None = None) -> Iterator[Record]:
    """The records of a run's generations, in order: equal to those that its sinks were told.

    In a slot that was empty nothing was measured: its trial is -1, its parent -2, and its numbers are 0 and NaN.

    Args:
        path: The history.
        first: The first generation to read.
        last: The last one; None: the newest.
    """
    with closing(connect(path)) as db:
        metrics, hyperparameters = _columns(db)
        size = db.execute("SELECT size FROM run").fetchone()[0]
        newest = db.execute("SELECT coalesce(max(generation), -1) FROM record").fetchone()[0]
        for generation in range(first, (newest if last is None else min(last, newest)) + 1):
            yield _record(db, generation, _slots(db, generation, size), metrics, hyperparameters)


def _slots(db: sqlite3.Connection, generation: int, size: int) -> int:
    """How many slots there were; fewer than at first, where the last trials needed no more."""
    query = "SELECT detail FROM event WHERE kind = 'narrowed' AND generation <= ? ORDER BY id DESC LIMIT 1"
    row = db.execute(query, (generation,)).fetchone()
    return int(json.loads(row["detail"])["slots"]) if row else int(size)


def _record(db: sqlite3.Connection, generation: int, slots: int, metrics: list[str], hyperparameters: list[str]) -> Record:
    columns = {name: np.full(slots, np.nan, np.float32) for name in ("fitness", *metrics, *hyperparameters)}
    columns |= {name: np.zeros(slots, np.int32) for name in ("step", "status")}
    columns |= {"trial": np.full(slots, -1, np.int32), "parent": np.full(slots, -2, np.int32)}
    rows = db.execute("SELECT * FROM record WHERE generation = ? ORDER BY slot", (generation,)).fetchall()
    where = np.array([row["slot"] for row in rows], np.int64)
    for name, column in columns.items():
        column[where] = [np.nan if row[name] is None else row[name] for row in rows]
    following = columns["trial"].copy()
    ended = "SELECT trial FROM trial WHERE ended = ? AND reason != 'finished'"
    over = [row["trial"] for row in db.execute(ended, (generation,))]
    following[np.isin(following, over)] = -1
    for row in db.execute("SELECT trial, slot FROM trial WHERE born = ?", (generation + 1,)):
        following[row["slot"]] = row["trial"]
    event = "SELECT detail FROM event WHERE kind = 'generation' AND generation = ? ORDER BY id DESC LIMIT 1"
    told = db.execute(event, (generation,)).fetchone()
    return Record(
        generation=generation,
        **{name: columns[name] for name in ("trial", "step", "status", "fitness", "parent")},
        metrics={name: columns[name] for name in metrics},
        hyperparameters={name: columns[name] for name in hyperparameters},
        next_trial=following,
        seconds=json.loads(told["detail"])["seconds"] if told else {},
    )
