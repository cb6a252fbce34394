"""The history of a run: one SQLite file that anything can read while the run goes.

Tables: `run` (one row), `trial` (one row a trial, with its parent: the lineage), `record` (one row a member and generation,
a column a metric and searched hyperparameter), `event` (what happened when, details in JSON). The schema's version is
SQLite's `user_version`; a newer one than ours is refused, an older one will be migrated in place.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from vmaptune.errors import StoreError
from vmaptune.store.record import Record

SCHEMA_VERSION = 1
APPLICATION_ID = 0x564D4150  # "VMAP": how SQLite files say whose they are

_SCHEMA = """
CREATE TABLE run (
    id TEXT NOT NULL, status TEXT NOT NULL, created TEXT NOT NULL, ended TEXT, pid INTEGER, host TEXT,
    seed INTEGER NOT NULL, metric TEXT NOT NULL, direction TEXT NOT NULL,
    size INTEGER NOT NULL, segment_steps INTEGER NOT NULL, generations INTEGER NOT NULL,
    config TEXT NOT NULL, environment TEXT NOT NULL, result TEXT
);
CREATE TABLE trial (
    trial INTEGER PRIMARY KEY, slot INTEGER NOT NULL, parent INTEGER REFERENCES trial (trial), cause TEXT NOT NULL,
    born INTEGER NOT NULL, ended INTEGER, reason TEXT
);
CREATE TABLE event (
    id INTEGER PRIMARY KEY, time TEXT NOT NULL, generation INTEGER, kind TEXT NOT NULL, detail TEXT NOT NULL
);
"""
_RECORD_COLUMNS = ("generation", "slot", "trial", "step", "status", "parent", "fitness")


def now() -> str:
    """The time, in UTC, as ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def is_begun(path: Path) -> bool:
    """True if a run's first row was written: the file and all its tables are made in one transaction.

    Raises:
        StoreError: The file is not SQLite's.
    """
    if not path.is_file():
        return False
    with closing(sqlite3.connect(path)) as db:
        try:
            return db.execute("PRAGMA user_version").fetchone()[0] != 0
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{path}: cannot be read as a history: {error}") from None


def connect(path: Path, *, write: bool = False) -> sqlite3.Connection:
    """Opens a history for reading, or for writing.

    Raises:
        StoreError: It is not there, is no history, or is of a schema newer than this package's.
    """
    if not path.is_file():
        raise StoreError(f"{path}: no such history; is {path.parent} a run folder?")
    try:
        connection = sqlite3.connect(path, timeout=30) if write else _read_only(path)
        connection.row_factory = sqlite3.Row
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path}: cannot be read as a history: {error}") from None
    if version == 0 or application != APPLICATION_ID:
        connection.close()
        raise StoreError(f"{path}: not a vmaptune history, or one whose run was killed before it began")
    if version > SCHEMA_VERSION:
        connection.close()
        raise StoreError(
            f"{path}: written by a newer vmaptune (schema {version}, this one reads {SCHEMA_VERSION}); upgrade vmaptune"
        )
    return connection


def _read_only(path: Path) -> sqlite3.Connection:
    """Opens for reading, also where nothing may be written: a finished run in a read-only archive."""
    uri = path.resolve().as_uri()
    connection = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=30)
    try:
        connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        if path.with_name(path.name + "-wal").exists():
            raise
        return sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True)
    return connection


class History:
    """Writes the history of one run. One writer at a time: the holder of the run folder's lock.

    Args:
        path: The SQLite file, made by `create`.
    """

    def __init__(self, path: Path) -> None:
        """Opens for writing."""
        self._db = connect(path, write=True)
        self._db.execute("PRAGMA synchronous = NORMAL")
        trial = "json_extract(config, '$.population.segment_steps') * json_extract(config, '$.population.generations')"
        stop = "coalesce(json_extract(config, '$.search.stop.name'), 'none') != 'none'"
        self._horizon, self._stops = self._db.execute(f"SELECT {trial}, {stop} FROM run").fetchone()
        self._columns = [row["name"] for row in self._db.execute("PRAGMA table_info(record)")][len(_RECORD_COLUMNS) :]

    @staticmethod
    def create(path: Path, run: Mapping[str, Any], columns: Iterable[str]) -> None:
        """Makes the tables and the one row of `run`, in one transaction: all or nothing.

        Args:
            path: Where.
            run: Columns of the `run` table; `config` and `environment` are encoded as JSON.
            columns: Names of metrics and searched hyperparameters, a column of `record` each.
        """
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        own = ", ".join(f"{quoted(name)} REAL" for name in columns)
        fixed = "generation INTEGER, slot INTEGER, trial INTEGER, step INTEGER, status INTEGER, parent INTEGER, fitness REAL"
        db.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
        db.execute(f"CREATE TABLE record ({fixed}{', ' + own if own else ''}, PRIMARY KEY (generation, slot))")
        row = {"status": "running", "created": now(), **run}
        row |= {key: json.dumps(row[key]) for key in ("config", "environment")}
        db.execute(f"INSERT INTO run ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
        db.close()

    def write(self, record: Record) -> None:
        """Writes a generation's rows in one transaction: its records, the trials it ended and the trials it began."""
        g = record.generation
        data = {**record.metrics, **record.hyperparameters}
        fixed = (record.trial, record.step, record.status, record.parent, record.fitness)
        columns = [_values(column) for column in (*fixed, *(data[name] for name in self._columns))]
        failed = record.failed
        slots = "?, ?, " + ", ".join("?" * len(columns))
        with self._db:
            if g == 0:
                first = [(int(t), s, None, "initial", 0) for s, t in enumerate(record.trial) if t >= 0]
                self._db.executemany("INSERT INTO trial (trial, slot, parent, cause, born) VALUES (?, ?, ?, ?, ?)", first)
            self._db.executemany(
                f"INSERT INTO record VALUES ({slots})",
                [(g, s, *row) for s, row in enumerate(zip(*columns, strict=True)) if record.trial[s] >= 0],
            )
            for s in np.flatnonzero((record.next_trial != record.trial) & (record.trial >= 0)):
                p = int(record.parent[s])
                whole, copied = record.step[s] >= self._horizon, p >= 0
                alone = "stopped" if self._stops else "diverged"  # with its replicates
                reason = "diverged" if failed[s] else "completed" if whole else "replaced" if copied else alone
                self._db.execute("UPDATE trial SET ended = ?, reason = ? WHERE trial = ?", (g, reason, int(record.trial[s])))
                if reason == "stopped":
                    detail = {"trial": int(record.trial[s]), "slot": int(s), "step": int(record.step[s])}
                    self._event("stopped", detail | {"fitness": float(record.fitness[s])}, g)
                if record.next_trial[s] < 0:
                    continue
                parent, cause = (None, "rebirth") if p < 0 else (int(record.trial[p]), "exploit")
                born = (int(record.next_trial[s]), int(s), parent, cause, g + 1)
                self._db.execute("INSERT INTO trial (trial, slot, parent, cause, born) VALUES (?, ?, ?, ?, ?)", born)
            for s in np.flatnonzero(failed):
                self._event("diverged", {"trial": int(record.trial[s]), "slot": int(s), "status": int(record.status[s])}, g)
            members = int((record.trial >= 0).sum())
            self._event("generation", {"members": members, "failed": int(failed.sum()), "seconds": dict(record.seconds)}, g)

    def truncate(self, generation: int) -> None:
        """Drops all that is newer than a generation, so that the run can go on after it (-1: from the very beginning)."""
        with self._db:
            self._db.execute("DELETE FROM record WHERE generation > ?", (generation,))
            self._db.execute("DELETE FROM event WHERE generation > ?", (generation,))
            self._db.execute("DELETE FROM trial WHERE born > ?", (generation + 1 if generation >= 0 else -1,))
            self._db.execute("UPDATE trial SET ended = NULL, reason = NULL WHERE ended > ?", (generation,))
            self._db.execute("UPDATE trial SET ended = NULL, reason = NULL WHERE reason = 'finished'")

    def event(self, kind: str, detail: Mapping[str, Any] | None = None, generation: int | None = None) -> None:
        """Notes that something happened."""
        with self._db:
            self._event(kind, detail or {}, generation)

    def _event(self, kind: str, detail: Mapping[str, Any], generation: int | None) -> None:
        row = (now(), generation, kind, json.dumps(detail))
        self._db.execute("INSERT INTO event (time, generation, kind, detail) VALUES (?, ?, ?, ?)", row)

    def sign(self, pid: int, host: str) -> None:
        """Notes which process writes, and that the run is going."""
        with self._db:
            self._db.execute("UPDATE run SET status = 'running', ended = NULL, pid = ?, host = ?", (pid, host))

    def end(self, status: str, result: Mapping[str, Any] | None = None) -> None:
        """Notes how the run ended; a finished run's live trials end with it."""
        with self._db:
            self._db.execute("UPDATE run SET status = ?, ended = ?", (status, now()))
            if result is not None:
                self._db.execute("UPDATE run SET result = ?", (json.dumps(result),))
            if status == "finished":
                last = "(SELECT max(generation) FROM record)"
                self._db.execute(f"UPDATE trial SET ended = {last}, reason = 'finished' WHERE ended IS NULL")

    def slots(self, generation: int, size: int) -> int:
        """How many slots there were after a generation: `size`, unless the run went on with fewer."""
        query = "SELECT detail FROM event WHERE kind = 'narrowed' AND generation <= ? ORDER BY id DESC LIMIT 1"
        row = self._db.execute(query, (generation,)).fetchone()
        return int(json.loads(row["detail"])["slots"]) if row else size

    def last_checkpoint(self) -> int:
        """The newest generation whose checkpoint was seen whole, or -1."""
        newest = self._db.execute("SELECT max(generation) FROM event WHERE kind = 'checkpoint'").fetchone()[0]
        return -1 if newest is None else int(newest)

    def move(self, environment: Mapping[str, Any]) -> None:
        """Notes where the run goes on from now."""
        with self._db:
            self._db.execute("UPDATE run SET environment = ?", (json.dumps(environment),))

    def settle(self) -> None:
        """Moves everything into the one file, for readers on other hosts, which do not see what SQLite keeps beside it."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def last_generation(self) -> int:
        """The newest generation on record, or -1."""
        newest = self._db.execute("SELECT max(generation) FROM record").fetchone()[0]
        return -1 if newest is None else int(newest)

    def close(self) -> None:
        """Closes the file."""
        self._db.close()


def quoted(name: str) -> str:
    """A column's name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def _values(column: np.ndarray) -> list[Any]:
    """Python numbers, with None for NaN: SQLite would make it NULL in silence."""
    values = column.tolist()
    if np.issubdtype(column.dtype, np.floating):
        return [None if v != v else v for v in values]
    return values
