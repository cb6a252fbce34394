"""The runs below a folder, one line each, read again only when their history has changed."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from vmaptune.analysis.runs import best_record, judgement
from vmaptune.errors import StoreError
from vmaptune.store.folder import RunFolder, find_runs, is_alive
from vmaptune.store.history import connect
from vmaptune.store.reading import read_run

_FRESH = 0.5  # seconds for which a list of folders is good: pages that ask at once share it
_POINTS = 60  # of a sparkline, at most
_RECENT = 5  # generations that the throughput is taken over


class Runs:
    """The runs below a folder; may be asked from several threads.

    Args:
        root: The folder. What lies outside of it is never read, also where a link leads there.
    """

    def __init__(self, root: str | Path) -> None:
        """Reads nothing yet."""
        self.root = Path(root).resolve()
        self._lock = threading.Lock()
        self._looked = -_FRESH
        self._folders: dict[str, RunFolder] = {}
        self._lines: dict[str, tuple[object, dict[str, Any]]] = {}

    def find(self, name: str) -> RunFolder:
        """The run of that name: its path below the root. Names that no run has lead nowhere, whatever they spell.

        Raises:
            StoreError: There is none.
        """
        folder = self._look().get(name)
        if folder is None or not self.holds(folder.history):
            raise StoreError("no such run in this folder")
        return folder

    def holds(self, path: Path) -> bool:
        """True if a file, all links followed, lies below the root."""
        return path.resolve().is_relative_to(self.root)

    def lines(self) -> list[dict[str, Any]]:
        """What the list shows of each run, newest first; of one that cannot be read, why."""
        lines = [self.line(name, folder) for name, folder in self._look().items()]
        return sorted(lines, key=lambda line: line.get("created") or "", reverse=True)

    def line(self, name: str, folder: RunFolder) -> dict[str, Any]:
        """What the list shows of one run."""
        signature = signature_of(folder)
        known = self._lines.get(name)
        if known is None or known[0] != signature:
            known = self._lines[name] = (signature, self._read(name, folder))
        line, (pid, host) = dict(known[1]), known[1].get("process", (None, None))
        if line["status"] == "running" and host == socket.gethostname() and not is_alive(pid):
            line["status"] = "stopped"  # it died without a word, so its files say nothing
        line.pop("process", None)
        return line

    def _read(self, name: str, folder: RunFolder) -> dict[str, Any]:
        if not self.holds(folder.history):
            return {"run": name, "status": "unreadable", "problem": "a link out of this folder, which is not followed"}
        try:
            return {"run": name, **_facts(folder)}
        except Exception as error:  # whatever is wrong with one folder, the others are listed
            return {"run": name, "status": "unreadable", "problem": _without(self.root, str(error) or type(error).__name__)}

    def _look(self) -> dict[str, RunFolder]:
        with self._lock:
            if time.monotonic() - self._looked >= _FRESH:
                try:
                    found = find_runs(self.root)
                except OSError:  # a folder vanished while it was looked at: next time
                    return self._folders
                self._folders = {folder.path.relative_to(self.root).as_posix(): folder for folder in found}
                self._looked = time.monotonic()
            return self._folders


def signature_of(folder: RunFolder) -> object:
    """What changes whenever a history does: time and size of the file, and of what SQLite writes first."""
    return tuple(_stamp(folder.history.with_name(f"history.db{suffix}")) for suffix in ("", "-wal"))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size) if status.st_size else None  # SQLite leaves an empty -wal behind a reader


def _facts(folder: RunFolder) -> dict[str, Any]:
    run = read_run(folder)
    best = best_record(folder, run)
    with closing(connect(folder.history)) as db:
        query = "SELECT max(fitness) FROM record WHERE fitness IS NOT NULL GROUP BY generation ORDER BY generation"
        spark = [row[0] for row in db.execute(query)]
        query = "SELECT detail FROM event WHERE kind = 'generation' ORDER BY id DESC LIMIT ?"
        recent = [json.loads(row[0]) for row in db.execute(query, (_RECENT,))]
        last_event = db.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0]
    seconds = sum(event["seconds"].get("train", 0.0) for event in recent)
    steps = sum(event["members"] for event in recent) * run["segment_steps"]
    return {
        "status": run["status"],
        "task": run["config"]["task"]["name"],
        "created": run["created"],
        "ended": run["ended"],
        "generation": run["generation"] + 1,
        "generations": run["generation"] + 1 if run["status"] == "finished" else run["generations"],
        "population": run["size"],
        "metric": run["metric"],
        "direction": run["direction"],
        "validation": best and best[f"{judgement(run)}.{run['metric']}"],
        "test": ((run["result"] or {}).get("test") or {}).get(run["metric"]),
        "throughput": steps / seconds if seconds > 0 else None,
        "spark": _thinned(spark),
        "version": f"{run['created']} {run['status']} {run['generation']} {last_event}",
        "process": (run["pid"], run["host"]),
    }


def _thinned(values: list[float]) -> list[float]:
    """Some of many values, evenly spread, the first and the last among them."""
    if len(values) <= _POINTS:
        return values
    return [values[i * (len(values) - 1) // (_POINTS - 1)] for i in range(_POINTS)]


def _without(root: Path, sentence: str) -> str:
    """A sentence with paths as they are below the root."""
    return sentence.replace(f"{root}/", "")
