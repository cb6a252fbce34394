"""Progress on stderr while a run goes: a live bar on a terminal, a plain line a generation elsewhere."""

from __future__ import annotations

import sys
from contextlib import suppress

import click
import numpy as np

from vmaptune.store.record import Record


class Progress:
    """A sink that shows each generation.

    Args:
        generations: How many there will be.
        segment_steps: Steps of a member in one of them, those of look-ahead included.
        metric: Name of the validation metric.
        direction: "max" or "min".
    """

    def __init__(self, generations: int, segment_steps: int, metric: str, direction: str) -> None:
        """Shows that the programs are being compiled, until the first generation is over."""
        self._generations = generations
        self._steps = segment_steps
        self._metric = metric
        self._sign = 1.0 if direction == "max" else -1.0
        self._bar = _Bar(generations) if sys.stderr.isatty() else None

    def write(self, record: Record) -> None:
        """Shows best and median, failures, speed and time left."""
        trained = record.trial >= 0
        sound = record.fitness[trained & ~record.failed]
        best, median = (self._sign * np.max(sound), self._sign * np.median(sound)) if len(sound) else (np.nan, np.nan)
        speed = trained.sum() * self._steps / max(record.seconds["train"], 1e-9)
        failed = f"failed {int(record.failed.sum())}"
        facts = f"{self._metric} best {best:.4f}  median {median:.4f}  {failed}  {speed:,.0f} member-steps/s"
        if self._bar:
            self._bar.show(record.generation, facts)
            return
        width = len(str(self._generations))
        with suppress(BrokenPipeError):  # nobody reads any more; the run goes on
            click.echo(
                f"generation {record.generation + 1:>{width}}/{self._generations}  {facts}{self._left(record)}", err=True
            )

    def _left(self, record: Record) -> str:
        """Time left, if what is to come takes as long as this: records come in bursts, so their arrival tells nothing."""
        left = self._generations - 1 - record.generation
        return f"  {record.seconds['train'] * left:.0f} s left" if left else ""

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar:
            self._bar.stop()


class _Bar:
    """The live bar; rich is only imported for a terminal."""

    def __init__(self, generations: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("generation"),
            MofNCompleteColumn(),
            BarColumn(20),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
        )
        self._bars = Bars(*columns, console=Console(stderr=True, highlight=False))
        self._task = self._bars.add_task("compiling ...", total=generations)
        self._bars.start()

    def show(self, generation: int, facts: str) -> None:
        self._bars.update(self._task, completed=generation + 1, description=facts)

    def stop(self) -> None:
        self._bars.stop()
