"""Sinks that keep every record as a table: one row a member and generation, the columns of the history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vmaptune.sinks.contract import RunInfo
from vmaptune.sinks.summary import columns_of
from vmaptune.store.record import Record


def csv(run: RunInfo) -> Csv:
    """history.csv: a row a member and generation, written as they come."""
    return Csv(run)


def parquet(run: RunInfo) -> Parquet:
    """history.parquet: a row a member and generation, with their types; written when the run ends or stops."""
    return Parquet(run)


def _frame(record: Record, run: RunInfo) -> Any:
    """A record as a polars frame; null for a number that is not one. Empty slots have no row."""
    import polars

    integers = {"trial": record.trial, "step": record.step, "status": record.status, "parent": record.parent}
    slots = np.flatnonzero(record.trial >= 0).astype(np.int32)
    columns = {"generation": np.full(len(slots), record.generation, np.int32), "slot": slots}
    columns |= {name: column[slots] for name, column in {**integers, **columns_of(record, run)}.items()}
    return polars.DataFrame({name: np.asarray(column) for name, column in columns.items()}).fill_nan(None)


class Csv:
    """Rewrites the file from the first generation on, so that a run killed at any moment has each row once.

    Args:
        run: The run.
    """

    def __init__(self, run: RunInfo) -> None:
        """Empties the file."""
        self._run, self._file, self._headed = run, run.place("history.csv").open("wb"), False

    def write(self, record: Record) -> None:
        """Appends the rows of a generation. Numbers read back as the same float32."""
        _frame(record, self._run).write_csv(self._file, include_header=not self._headed)
        self._headed = True
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class Parquet:
    """Collects the rows: a Parquet file is written whole.

    Args:
        run: The run.
    """

    def __init__(self, run: RunInfo) -> None:
        """Holds nothing yet."""
        self._run, self._frames = run, list[Any]()

    def write(self, record: Record) -> None:
        """Takes the rows of a generation."""
        self._frames.append(_frame(record, self._run))

    def close(self) -> None:
        """Writes the file, whole or not at all."""
        import polars

        if not self._frames:
            return
        path = self._run.place("history.parquet")
        partial = Path(f"{path}.partial")
        polars.concat(self._frames).write_parquet(partial)
        partial.replace(path)
