"""Writes what training brings, while it goes on: rows first, then the checkpoint.

So a checkpoint never knows more than the history does, and a resumed run drops newer rows and makes them again, the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from vmaptune.store.checkpoints import Checkpoints
from vmaptune.store.history import History
from vmaptune.store.record import Record, Sink


class Keeper:
    """Holds what a dispatch brought until there is time to write it: while the next one trains.

    Args:
        history: The run's history; None in a process that does not write it.
        sinks: Who hears of each generation, the history first.
        checkpoints: The run's checkpoints.
        every: Generations between two checkpoints, at least.
        done: The newest generation that is on record.

    Attributes:
        seconds: Wall time of this host work; most of it passes while a device trains.
    """

    def __init__(
        self, history: History | None, sinks: Sequence[Sink], checkpoints: Checkpoints, *, every: int, done: int
    ) -> None:
        """Holds nothing yet."""
        self._history, self._sinks, self._checkpoints = history, sinks, checkpoints
        self._every, self._saved, self._writing = every, done, -1
        self._records: Sequence[Record] = ()
        self._snapshot: Mapping[str, np.ndarray] | None = None
        self.seconds = 0.0

    def hold(self, records: Sequence[Record], state: Any = None, *, last: bool = False) -> None:
        """Takes a dispatch's generations; copies the state after them if a checkpoint of it is due.

        Args:
            records: In order.
            state: The state after the last of them, whose buffers may be used again afterwards; None: nothing to go on from.
            last: A checkpoint is due in any case: the run ends here, for now.
        """
        with self._timed():
            newest = records[-1].generation
            self._records = records
            if state is not None and (last or newest - self._saved >= self._every):
                self._snapshot, self._saved = self._checkpoints.snapshot(state), newest

    def write(self) -> None:
        """Writes what is held, if anything."""
        records, self._records = self._records, ()
        snapshot, self._snapshot = self._snapshot, None
        with self._timed():
            for record in records:
                for sink in self._sinks:
                    sink.write(record)
            if snapshot is not None:
                self._checkpoints.save(records[-1].generation, snapshot)  # in the background, after the one before
                self._confirm()
                self._writing = records[-1].generation

    def finish(self) -> None:
        """Writes what is held, and waits until all of it is on disk."""
        self.write()
        with self._timed():
            self._checkpoints.wait()
            self._confirm()

    def _confirm(self) -> None:
        """Notes in the history that the checkpoint before is whole: from now on, its absence is a loss."""
        if self._writing >= 0 and self._history:
            self._history.event("checkpoint", generation=self._writing)
            self._writing = -1

    @contextmanager
    def _timed(self) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - begun
