"""A run folder: its name, its files, and the lock of the one process that writes it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from vmaptune.errors import StoreError
from vmaptune.store.history import connect

_OF_A_RUN = {
    *("config.toml", "history.db", "history.db-wal", "history.db-shm", "run.lock", "start.csv"),
    *("best", "checkpoints", "ensemble"),
}


class RunFolder:
    """The paths of a run.

    Args:
        path: The folder; need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        """Touches nothing."""
        self.path = Path(path)

    @property
    def config(self) -> Path:
        """config.toml."""
        return self.path / "config.toml"

    @property
    def history(self) -> Path:
        """history.db."""
        return self.path / "history.db"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def start(self) -> Path:
        """start.csv, in a run that was told which trials to train."""
        return self.path / "start.csv"

    @property
    def best(self) -> Path:
        """The folder of the winner."""
        return self.path / "best"

    def is_run(self) -> bool:
        """True if a run was begun here."""
        return self.config.is_file()

    def require_run(self) -> RunFolder:
        """Returns itself; raises `StoreError` if no run was begun here."""
        if not self.is_run():
            problem = "no such folder" if not self.path.is_dir() else "not a run folder (it has no config.toml)"
            below = len(find_runs(self.path))
            known = f" {self.path}` lists the {below} below it" if below else "` lists the runs there are"
            raise StoreError(f"{self.path}: {problem}; `vmaptune runs{known}")
        return self

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the lock, so that no other process writes here. The system lets go of a dead holder's.

        Raises:
            StoreError: Another process holds it; the sentence names the process.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / "run.lock")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(f"{self.path}: in use by {self._holder()}; wait for it to end, or choose another --out") from None
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written: {error.strerror}") from None
        try:
            yield
        finally:
            lock.release()

    def _holder(self) -> str:
        try:
            with closing(connect(self.history)) as db:
                row = db.execute("SELECT status, pid, host FROM run").fetchone()
        except StoreError:
            return "another process"
        signed = row["status"] == "running" and (row["host"] != socket.gethostname() or is_alive(row["pid"]))
        return f"process {row['pid']} on {row['host']}" if signed else "another process"


def is_alive(pid: int | None) -> bool:
    """True if a process of this machine has that number."""
    try:
        os.kill(pid or 0, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return bool(pid)


def new_folder(root: str | Path, name: str) -> RunFolder:
    """Names a new run folder below `root`: `<name>-<date>-<time>`, numbered if that is taken. Makes it."""
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        path = Path(root) / f"{stem}{suffix}"
        try:
            path.mkdir(parents=True)
            return RunFolder(path)
        except FileExistsError:
            continue
        except OSError as error:
            raise StoreError(f"{path}: cannot be made: {error.strerror}") from None
    raise StoreError(f"{Path(root) / stem}: a thousand runs of this second; choose a folder with --out")


def find_runs(root: str | Path) -> list[RunFolder]:
    """The run folders below `root` (or `root` itself), oldest first; those of cohorts and comparisons lie deeper."""
    found = [
        RunFolder(path.parent) for depth in ("", "*/", "*/*/", "*/*/*/") for path in Path(root).glob(f"{depth}config.toml")
    ]
    return sorted(found, key=lambda run: run.config.stat().st_mtime)


def spare(out: str | Path | None, *read: str) -> None:
    """Refuses a place to write to that would replace what a run is made of, or what is read for it.

    Args:
        out: The place; None: nothing was asked for.
        read: Files that the command reads.

    Raises:
        StoreError: It would.
    """
    if out is None:
        return
    there = Path(out).resolve()
    if there in [Path(file).resolve() for file in read]:
        raise StoreError(f"--out: {out} is read by this command; name another file")
    for folder in (there, *there.parents):
        inside = there.relative_to(folder).parts
        if (folder / "history.db").is_file() and (not inside or inside[0] in _OF_A_RUN):
            raise StoreError(f"--out: {out} is a part of the run in {folder}; name another place")


def write_text(path: Path, text: str) -> None:
    """Writes a small file whole or not at all.

    Raises:
        StoreError: The system does not let it be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from None


def find_run(root: str | Path, run_id: str) -> RunFolder | None:
    """The newest unfinished run of a config below `root`, if there is one."""
    for folder in reversed(find_runs(root)):
        try:
            with closing(connect(folder.history)) as db:
                row = db.execute("SELECT id, status FROM run").fetchone()
        except StoreError:
            continue
        if row["id"] == run_id and row["status"] != "finished":
            return folder
    return None
