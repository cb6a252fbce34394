"""Progress of studies: a bar or lines for each of their stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from vmaptune.cli.progress import Progress

if TYPE_CHECKING:
    from vmaptune.config import RunConfig
    from vmaptune.store.record import Sink
    from vmaptune.tasks import Task


def listener(stage: str, config: RunConfig, task: Task) -> Sequence[Sink]:
    """Says what begins, and shows how far it is."""
    size = config.population
    trials = size.size * config.total_generations // size.generations
    click.echo(f"{stage}: {trials:,} trainings of {size.horizon} steps, {size.size} at a time", err=True)
    return [Progress(config.total_generations, size.segment_steps, task.metric, task.direction)]
