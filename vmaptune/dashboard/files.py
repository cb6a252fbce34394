"""What a run's page offers for download: files of the run by short names, and nothing else."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from vmaptune.store.folder import RunFolder
from vmaptune.store.history import connect

HISTORY = "history.db"
_FILES = (
    "config.toml",
    HISTORY,
    "best/hyperparameters.toml",
    "best/schedule.csv",
    "best/weights.safetensors",
)


def files_of(folder: RunFolder) -> dict[str, Path]:
    """The files that there are now, by the name that a page asks for them with."""
    return {name: folder.path / name for name in _FILES if (folder.path / name).is_file()}


def copy_history(folder: RunFolder, to: Path) -> None:
    """Copies a history as it stands at one moment, also while it is written.

    Raises:
        StoreError: It cannot be read.
    """
    with closing(connect(folder.history)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")  # one file, with nothing beside it
