"""Progress on stderr while a run goes: a live line on a terminal, a plain line a generation elsewhere."""

from __future__ import annotations

import sys
import time

import click
import numpy as np

from vmaptune.store.record import Record


class Progress:
    """A sink that shows each generation.

    Args:
        generations: How many there will be.
        segment_steps: Steps of a member in one of them.
        metric: Name of the validation metric.
        direction: "max" or "min".
    """

    def __init__(self, generations: int, segment_steps: int, metric: str, direction: str) -> None:
        """Shows nothing until the first generation is over."""
        from rich.console import Console

        self._generations = generations
        self._steps = segment_steps
        self._metric = metric
        self._sign = 1 if direction == "max" else -1
        self._console = Console(stderr=True, highlight=False)
        self._status = self._console.status("compiling ...") if sys.stderr.isatty() else None
        if self._status:
            self._status.start()
        self._begun: float | None = None
        self._first = 0

    def write(self, record: Record) -> None:
        """Shows best and median, failures, speed and time left."""
        moment = time.monotonic()
        sound = record.fitness[~record.failed] * self._sign
        best, median = (self._sign * np.max(self._sign * sound), np.median(sound)) if len(sound) else (np.nan, np.nan)
        speed = len(record.trial) * self._steps / max(record.seconds["train"], 1e-9)
        line = (
            f"generation {record.generation + 1:>{len(str(self._generations))}}/{self._generations}  {self._metric} "
            f"best {best:.4f}  median {median:.4f}  failed {int(record.failed.sum())}  {speed:,.0f} member-steps/s"
        )
        if self._begun is None:
            self._begun, self._first = moment, record.generation
        else:
            each = (moment - self._begun) / (record.generation - self._first)
            line += f"  {each * (self._generations - 1 - record.generation):.0f} s left"
        if self._status:
            self._status.update(line)
        else:
            click.echo(line, err=True)

    def close(self) -> None:
        """Takes the live line away."""
        if self._status:
            self._status.stop()
