"""The ledger of the test split: every reading of it stands in the run's history, announced before it is made.

A process that is killed between the reading and the note of it leaves the announcement, and that counts: nobody looks twice
in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vmaptune.store.history import History
from vmaptune.store.reading import TEST_ANNOUNCED, TEST_READ, ledger_events, test_reads


def recorded_test(path: Path, subject: Mapping[str, Any]) -> dict[str, float] | None:
    """What was measured when the test split was last read for a subject; None if it never was.

    Args:
        path: The history.
        subject: What it was read for: see `read_test`.
    """
    found = [read for read in test_reads(path) if read["metrics"] and all(read.get(k) == v for k, v in subject.items())]
    return {name: float(value) for name, value in found[-1]["metrics"].items()} if found else None


def read_test(
    history: History,
    path: Path,
    subject: Mapping[str, Any],
    measure: Callable[[], Mapping[str, float]],
    *,
    again: bool = False,
) -> dict[str, float]:
    """Test metrics of a subject: those on record, else measured now, on record before and after.

    Args:
        history: Of the run, open for writing.
        path: Its file.
        subject: What the split is read for: `what` ("best", "ensemble", "soup") and the trials, as JSON values.
        measure: Reads the split.
        again: Measure also where there is a record.
    """
    if not again and (known := recorded_test(path, subject)):
        return known
    if not ledger_events(path):  # of a run of before there was a ledger, what it read must not be forgotten
        for read in test_reads(path):
            history.event(TEST_READ, read)
    history.event(TEST_ANNOUNCED, subject)
    metrics = {name: float(value) for name, value in measure().items()}
    history.event(TEST_READ, {**subject, "metrics": {k: v if abs(v) < float("inf") else str(v) for k, v in metrics.items()}})
    return metrics
