"""`vmaptune replay`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vmaptune.cli import options

if TYPE_CHECKING:
    from vmaptune.analysis.replay import Replay


@click.command("replay")
@options.run_argument
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(1), help="How many are trained from scratch.")
@options.quiet_option
@options.json_option
def command(run: str, seeds: int, quiet: bool, as_json: bool) -> None:
    """Train the winner's realised schedule from scratch, on fresh seeds.

    Tells how much of the winner's score was its schedule, and how much inherited weights, luck and having been chosen. The
    control, on the same seeds, has the winner's last settings from the first step. The test split is read once, for all of
    them together.

    \b
    vmaptune replay runs/digits-20260101-120000
    vmaptune replay runs/digits-20260101-120000 --seeds 20 --json
    """
    from vmaptune.analysis.replay import replay

    def told(done: int, total: int) -> None:
        if not quiet and 10 * done // total > 10 * (done - 1) // total:  # ten lines at most
            click.echo(f"generation {done}/{total}", err=True)

    _print(replay(run, seeds=seeds, told=told), as_json=as_json)


def _print(found: Replay, *, as_json: bool) -> None:
    from vmaptune.cli.output import print_json, print_table, show

    if as_json:
        print_json(found.as_json())
        return
    metric, parts = found.metric, ("validation", "test")
    lines = [["the winner", *(cell for part in parts for cell in (show(found.winner.get(part, {}).get(metric)), ""))]]
    for name, arm in (("its schedule, from scratch", found.schedule), ("its last settings, from scratch", found.last)):
        summaries = [arm.summary(metric, part) for part in parts]
        lines.append(
            [f"{name}, {summaries[0].n} of {found.seeds} seeds", *(show(x) for s in summaries for x in (s.mean, s.std))]
        )
    columns = ["", f"validation {metric}", "std", f"test {metric}", "std"]
    title = f"Trial {found.trial} of {found.run}: {found.steps} steps, handed on {found.copies} times"
    print_table(title, columns, lines)
    validation, test = found.inherited("validation"), found.inherited("test")
    real = "" if test is None else f", on test {_rounded(test)}"
    click.echo(
        f"\nInherited weights, luck and selection: on validation {_rounded(validation)}{real} (positive: the winner is better)."
    )
    click.echo(f"{found.as_good} of {found.schedule.summary(metric).n} replays do as well as the winner on validation.")
    if found.copies == 0:
        click.echo(
            "It was never copied: its settings are the same throughout, so there is nothing to tell schedule from settings."
        )
        return
    gained = found.scheduled
    click.echo(f"Its schedule against its last settings alone, by seed: {show(gained.mean)} (std {show(gained.std)}).")


def _rounded(difference: float | None) -> str:
    """A difference of float32 numbers, without what is their rounding."""
    return "unknown" if difference is None else f"{round(difference, 6) + 0.0:.4g}"
