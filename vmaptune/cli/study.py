"""Progress of studies: a bar or lines for each of their stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from vmaptune.cli.progress import Progress

if TYPE_CHECKING:
    from vmaptune.config import RunConfig
    from vmaptune.store.record import Sink
    from vmaptune.tasks import Task


T = TypeVar("T")


def run_study(study: Callable[..., T | None], *, quiet: bool, **options: object) -> T:
    """Runs a study with its progress shown; a signal stops it where it can be gone on with, and ends the process."""
    from vmaptune.cli.run import Signals
    from vmaptune.plan import prepare_backend

    with Signals() as signals:
        prepare_backend()
        found = study(**options, listen=None if quiet else listener, should_stop=signals.caught)
        if found is None:
            click.echo("Stopped. Go on with the same command and the same --out.", err=True)
            signals.stop_if_caught()
            raise SystemExit(1)
    return found


def listener(stage: str, config: RunConfig, task: Task) -> Sequence[Sink]:
    """Says what begins, and shows how far it is."""
    size = config.population
    trials = max(config.selector().trials, config.groups) * config.repeats.replicates
    click.echo(f"{stage}: {trials:,} trainings of {size.horizon} steps, {size.size} at a time", err=True)
    return [Progress(config.total_generations, size.segment_steps + config.lookahead.steps, task.metric, task.direction)]
