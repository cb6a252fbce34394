"""TensorBoard: curves, histograms over the members, and the hparams of the best, in event files of tensorboardX."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from vmaptune.settings import Natural
from vmaptune.sinks.contract import RunInfo
from vmaptune.sinks.summary import scalars, sound, spreads
from vmaptune.store.record import Record


def tensorboard(run: RunInfo, *, hparams: Natural = 64) -> TensorBoard:
    """The folder `tensorboard`, for `tensorboard --logdir runs`.

    Args:
        run: The run.
        hparams: Trials whose hyperparameters and last metrics go to the HParams page, the best first; each is a folder.
    """
    return TensorBoard(run, hparams)


class TensorBoard:
    """Writes the files anew from the first generation on; a TensorBoard that shows the old ones purges what it has.

    Args:
        run: The run.
        hparams: How many trials go to the HParams page.
    """

    def __init__(self, run: RunInfo, hparams: int) -> None:
        """Removes the event files of an earlier process, and begins with the config as text."""
        from tensorboardX import summary

        self._run, self._most, self._summary = run, hparams, summary
        self._folder = run.place("tensorboard")
        for old in (*self._folder.glob("events.out.tfevents.*"), *self._folder.glob("trial_*/events.out.tfevents.*")):
            old.unlink()
        self._events = _Events(self._folder)
        self._last: dict[int, tuple[Record, int]] = {}
        lines = [f"    {name} = {value!r}" for name, value in run.flat_config().items()]  # indented: code, in Markdown
        self._events.write(0, summary.text("config", "\n".join(lines)))

    def write(self, record: Record) -> None:
        """Writes a generation, at its number as the step, and flushes."""
        for name, value in scalars(record, self._run).items():
            self._events.write(record.generation, self._summary.scalar(name, value))
        for name, values in spreads(record, self._run).items():
            self._events.write(record.generation, self._summary.histogram(f"members/{name}", values, "auto", max_bins=64))
        self._events.flush()
        for slot in np.flatnonzero(sound(record)):
            self._last[int(record.trial[slot])] = (record, int(slot))

    def close(self) -> None:
        """Writes the hparams of the best trials so far, those that were trained longest before others."""
        longest = max((int(record.step[slot]) for record, slot in self._last.values()), default=0)

        def rank(item: tuple[int, tuple[Record, int]]) -> tuple[bool, float]:
            record, slot = item[1]
            return int(record.step[slot]) == longest, float(record.fitness[slot])

        best = sorted(self._last.items(), key=rank, reverse=True)
        for trial, (record, slot) in best[: self._most]:
            self._write_hparams(trial, record, slot)
        self._events.close()

    def _write_hparams(self, trial: int, record: Record, slot: int) -> None:
        searched = {name: float(record.hyperparameters[name][slot]) for name in self._run.hyperparameters}
        metrics = {name: float(record.metrics[name][slot]) for name in self._run.metrics}
        searched = {name: value for name, value in searched.items() if np.isfinite(value)}
        events = _Events(self._folder / f"trial_{trial}")
        for part in self._summary.hparams(searched, metrics):
            events.write(None, part)
        for name, value in metrics.items():
            events.write(record.generation, self._summary.scalar(name, value))
        events.close()


class _Events:
    """An event file, written at once by this thread: tensorboardX's own writer hands over to a thread that fails in silence."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self._event, self._writer = Event, EventsWriter(str(folder / "events"))
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(wall_time=time.time(), step=0, session_log=start))  # what was shown is purged

    def write(self, step: int | None, summary: Any) -> None:
        event = self._event(wall_time=time.time(), summary=summary)
        if step is not None:
            event.step = step
        self._writer.write_event(event)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
