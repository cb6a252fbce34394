"""Reading a run: its row, its records, and the lineage of a trial. Opens the history read-only, also while it grows."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vmaptune.store.folder import RunFolder, is_alive
from vmaptune.store.history import connect

TEST_ANNOUNCED, TEST_READ = "test_announced", "test_read"  # events: the test split is about to be read, and was


class HistoryArray(np.ndarray):
    """Every record of a run: a structured array, one row a member and generation, in that order."""

    def to_pandas(self) -> Any:
        """The same as a `pandas.DataFrame`."""
        import pandas

        return pandas.DataFrame({name: np.asarray(self[name]) for name in self.dtype.names or ()})


class Ancestor(NamedTuple):
    """One generation of a lineage: the record of the ancestor that trained in it."""

    generation: int
    trial: int
    slot: int
    step: int
    values: dict[str, float | None]


def read_run(folder: RunFolder) -> dict[str, Any]:
    """The run's row, with its JSON columns decoded and the status told as it is now.

    A run whose process died without a word is "stopped", not "running".
    """
    with closing(connect(folder.require_run().history)) as db:
        row = dict(db.execute("SELECT * FROM run").fetchone())
        row["generation"] = db.execute("SELECT coalesce(max(generation), -1) FROM record").fetchone()[0]
    for key in ("config", "environment", "result"):
        row[key] = json.loads(row[key]) if row[key] else None
    if row["status"] == "running" and row["host"] == socket.gethostname() and not is_alive(row["pid"]):
        row["status"] = "stopped"
    return row


def read_history(path: Path) -> HistoryArray:
    """All records as a structured array; NaN where the history has none."""
    with closing(connect(path)) as db:
        cursor = db.execute("SELECT * FROM record ORDER BY generation, slot")
        names = [column[0] for column in cursor.description]
        types = {row["name"]: row["type"] for row in db.execute("PRAGMA table_info(record)")}
        dtype = [(name, np.int64 if types[name] == "INTEGER" else np.float64) for name in names]
        rows = [tuple(np.nan if v is None else v for v in row) for row in cursor]
    return np.array(rows, dtype=dtype).view(HistoryArray)


def read_generation(path: Path, generation: int) -> list[dict[str, Any]]:
    """The records of one generation, best first; failed members last."""
    with closing(connect(path)) as db:
        cursor = db.execute(
            "SELECT * FROM record WHERE generation = ? ORDER BY fitness IS NULL, fitness DESC, slot", (generation,)
        )
        return [dict(row) for row in cursor]


def read_events(path: Path) -> list[dict[str, Any]]:
    """All events in order, their details decoded."""
    with closing(connect(path)) as db:
        return [dict(row) | {"detail": json.loads(row["detail"])} for row in db.execute("SELECT * FROM event ORDER BY id")]


def read_lineage(path: Path, trial: int, generation: int) -> list[Ancestor]:
    """Who trained the weights that a trial had after a generation, from their birth on.

    Follows parents back through the trials: the member itself since it began, before that the parent it was copied from,
    and so on to the trial that was born with fresh weights.
    """
    lineage: list[Ancestor] = []
    with closing(connect(path)) as db:
        current: int | None = trial
        last = generation
        while current is not None:
            row = db.execute("SELECT parent, born FROM trial WHERE trial = ?", (current,)).fetchone()
            query = "SELECT * FROM record WHERE trial = ? AND generation <= ? ORDER BY generation DESC"
            for record in db.execute(query, (current, last)):
                values = {k: record[k] for k in record.keys() if "." in k}  # noqa: SIM118 (a sqlite3.Row iterates values)
                lineage.append(Ancestor(record["generation"], current, record["slot"], record["step"], values))
            current, last = row["parent"], row["born"] - 1
    return lineage[::-1]


def read_digest(path: Path) -> str | None:
    """What the data are called that a run was begun with, see `vmaptune.data.digest`; None if that is not on record."""
    return next((event["detail"]["digest"] for event in read_events(path) if event["kind"] == "data"), None)


def test_reads(path: Path) -> list[dict[str, Any]]:
    """Every reading of the test split, in order.

    Args:
        path: The history.

    Returns:
        For each: `time`; `what` it was for ("best", "ensemble", "soup"); the `trial`; `metrics`, None where the process died
        before it could note them. A run of before there was a ledger that has a test result counts as read once.
    """
    found: list[dict[str, Any]] = []
    pending = False
    for event in ledger_events(path):
        if pending and event["kind"] == TEST_READ:
            found.pop()  # it was announced
        pending = event["kind"] == TEST_ANNOUNCED
        found.append({"time": event["time"], "metrics": None, **event["detail"]})
    with closing(connect(path)) as db:
        row = db.execute("SELECT created, ended, result FROM run").fetchone()
    result = json.loads(row["result"]) if row["result"] else {}
    if found or not result.get("test"):
        return found
    best = {key: result.get("best", {}).get(key) for key in ("trial", "generation")}
    return [{"time": row["ended"] or row["created"], "metrics": result["test"], "what": "best", **best}]


def ledger_events(path: Path) -> list[dict[str, Any]]:
    """The events that are notes of the test split."""
    return [event for event in read_events(path) if event["kind"] in (TEST_ANNOUNCED, TEST_READ)]
