"""`vmaptune resume`."""

from __future__ import annotations

from pathlib import Path

import click

from vmaptune.cli import options


@click.command("resume")
@options.run_argument
@options.set_option
@options.distributed_option
@options.quiet_option
@options.json_option
def command(run: str, assignments: tuple[str, ...], distributed: bool | None, quiet: bool, as_json: bool) -> None:
    """Go on with a run that was stopped or killed.

    RUN is its folder. It ends with the same population, history and winner as if it had never stopped (same device, same
    version). A finished run only prints its result again. Only [plan], [checkpoint] and [sinks] may be set anew. A folder
    of cohorts is resumed as a whole.

    \b
    vmaptune resume runs/digits-20260101-120000
    vmaptune resume runs/digits-20260101-120000 --set plan.chunk=4
    """
    from vmaptune.cli.run import execute
    from vmaptune.store.folder import RunFolder

    cohorts = Path(run) / "cohorts.toml"
    config = cohorts if cohorts.is_file() else RunFolder(run).require_run().config
    execute(str(config), assignments, out=run, resume=True, distributed=distributed, quiet=quiet, as_json=as_json)
