"""`vmaptune runs`."""

from __future__ import annotations

import click

from vmaptune.cli import options


@click.command("runs")
@click.argument("folder", required=False, default="runs", type=click.Path(file_okay=False))
@options.json_option
def command(folder: str, as_json: bool) -> None:
    """List the runs in a folder (runs/ unless given), oldest first.

    Finds run folders up to three folders deep, those of cohorts and comparisons included. Status: running; finished;
    interrupted (told to stop) or stopped (killed), both to go on with `vmaptune resume`; failed, where all members diverged.

    \b
    vmaptune runs
    vmaptune runs experiments --json
    """
    from vmaptune.analysis.runs import list_runs
    from vmaptune.cli.output import print_json, print_table

    found = list_runs(folder)
    if as_json:
        print_json(found)
        return
    columns = ("run", "status", "task", "generation", "population", "metric", "validation", "test", "created")
    rows = [
        [run.get(c) if c != "generation" else f"{run.get(c, '?')}/{run.get('generations', '?')}" for c in columns]
        for run in found
    ]
    print_table(f"{len(found)} runs in {folder}", columns, rows)
