"""`vmaptune export`."""

from __future__ import annotations

import click

from vmaptune.cli import options


@click.command("export")
@options.run_argument
@click.option(
    "--to",
    required=True,
    metavar="FORMAT",
    help="csv, parquet, json, tensorboard, mlflow, wandb, optuna; orbax: the winner's weights; optax or torch: its schedule "
    "as code; or FILE.py:CLASS, a sink of your own.",
)
@click.option("--out", type=click.Path(), help="The file or folder; default: one in the run folder. Code is printed.")
@options.set_option
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@options.json_option
def command(run: str, to: str, out: str | None, assignments: tuple[str, ...], overwrite: bool, as_json: bool) -> None:
    """Carry a run into other tools. Works while the run is going, as far as it is.

    --set gives a setting of the tool, such as uri of mlflow (`vmaptune list sinks`). What MLflow and Weights & Biases hold
    of the run already is not told again.

    \b
    vmaptune export runs/digits-20260101-120000 --to parquet --out digits.parquet
    vmaptune export runs/digits-20260101-120000 --to mlflow --set uri=sqlite:///mlflow.db
    vmaptune export runs/digits-20260101-120000 --to optuna && optuna-dashboard runs/digits-20260101-120000/optuna.db
    vmaptune export runs/digits-20260101-120000 --to torch
    """
    from vmaptune.analysis.exporting import CODE, code, export
    from vmaptune.cli.output import print_json

    values = {}
    if assignments:
        from vmaptune.toml import override

        values = override({}, assignments)
    if to in CODE and out is None:
        text = code(run, to)
        print_json({"run": run, "to": to, "code": text}) if as_json else click.echo(text, nl=False)
        return
    place = export(run, to, out=out, values=values, overwrite=overwrite)
    if as_json:
        print_json({"run": run, "to": to, "path": place and str(place)})
    else:
        click.echo(f"{run}: exported to {place or to}")
