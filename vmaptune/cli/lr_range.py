"""`vmaptune lr-range`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vmaptune.cli import options

if TYPE_CHECKING:
    from vmaptune.studies import LearningRateRange


@click.command("lr-range")
@options.config_argument
@options.set_option
@click.option("--low", default=1e-6, show_default=True, help="Lowest learning rate.")
@click.option("--high", default=10.0, show_default=True, help="Highest learning rate.")
@click.option("--points", default=32, show_default=True, help="Learning rates, evenly spread on a log scale.")
@click.option("--seeds", default=3, show_default=True, help="Trainings at each.")
@click.option("--steps", default=100, show_default=True, help="Training steps of each.")
@click.option("--grid", default="", metavar="NAME", help="A second axis of the config, such as weight_decay: a map of both.")
@click.option("--grid-points", default=8, show_default=True, help="Points of the second axis.")
@click.option("--ramp", is_flag=True, help="Also the classical ramp of one member, for comparison.")
@click.option("--out", type=click.Path(file_okay=False), help="The run folder; default: a new one below runs/.")
@options.quiet_option
@options.json_option
def command(
    config: str | None,
    assignments: tuple[str, ...],
    low: float,
    high: float,
    points: int,
    seeds: int,
    steps: int,
    grid: str,
    grid_points: int,
    ramp: bool,
    out: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Find the learning rates worth searching.

    Trains many learning rates side by side for a short while, several seeds of each, and prints the loss that each reaches,
    where training breaks, and an axis to put into the config. Unlike the classical ramp of one model, each rate is asked by
    itself. The run folder holds lr_range.csv and lr_range.html.

    \b
    vmaptune lr-range
    vmaptune lr-range my.toml --steps 200 --ramp
    vmaptune lr-range my.toml --grid weight_decay
    """
    from vmaptune.cli.study import run_study
    from vmaptune.studies import lr_range_test

    found = run_study(
        lr_range_test,
        quiet=quiet,
        config=config,
        assignments=assignments,
        low=low,
        high=high,
        points=points,
        seeds=seeds,
        steps=steps,
        grid_name=grid,
        grid_points=grid_points,
        ramp=ramp,
        out=out,
    )
    _print(found, as_json=as_json)


def _print(found: LearningRateRange, *, as_json: bool) -> None:
    from vmaptune.cli.output import print_json, print_table, show

    if as_json:
        print_json(found.as_json())
        return
    if found.grid:
        lines = zip(found.grid_values, found.loss, strict=True)
        rows = [[show(float(value)), *(show(float(x)) for x in row)] for value, row in lines]
        columns = [f"{found.grid} \\ lr", *(f"{rate:.2g}" for rate in found.rates)]
        print_table(f"Validation loss after {found.steps} steps, medians over {found.seeds} seeds", columns, rows)
    else:
        columns = ["learning rate", "loss", "lowest", "highest", ""]
        points = zip(found.rates, found.loss[0], found.lowest[0], found.highest[0], strict=True)
        rows = [[*map(show, map(float, point)), _mark(found, float(point[0]))] for point in points]
        print_table(f"Validation loss after {found.steps} steps, medians over {found.seeds} seeds", columns, rows)
    second = f" with {found.grid} = {found.best[1]:.3g}" if found.grid else ""
    click.echo(f"\nBest: {found.best[0]:.3g}{second}. Training holds up to {found.edge:.3g}. Folder: {found.folder}")
    if found.suggested:
        low, high = found.suggested
        click.echo(f'Suggested: learning_rate = {{ low = {low:.2g}, high = {high:.2g}, scale = "log" }}')
    else:
        click.echo("No learning rate learned anything in so few steps: try more --steps, or another range.")
    if found.held:
        click.echo("Held: " + ", ".join(f"{name} = {show(value)}" for name, value in found.held.items()))


def _mark(found: LearningRateRange, rate: float) -> str:
    marks = {found.best[0]: "best", found.edge: "edge"}
    return marks.get(rate, "")
