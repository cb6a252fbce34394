"""`vmaptune report`."""

from __future__ import annotations

import click

from vmaptune.cli import options


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(file_okay=False))
@click.option("--out", type=click.Path(dir_okay=False), help="The HTML file; default: report.html in the folder of RUN.")
@click.option("--png", is_flag=True, help="Also write the figures for papers, as PNG files in figures/ beside the report.")
@click.option("--open", "open_", is_flag=True, help="Open it in the browser.")
@options.json_option
def command(runs: tuple[str, ...], out: str | None, png: bool, open_: bool, as_json: bool) -> None:
    """Write a run's report: one HTML file, readable offline.

    How scores went by generation, the winner's learning curves with a verdict on over- and underfitting and what to try next,
    the schedule that won, every member's path, the lineage, which hyperparameters mattered, and how fast it was. It can be made
    while the run goes. Several RUNs, or a folder of cohorts or of a comparison, give a comparison.

    \b
    vmaptune report runs/digits-20260101-120000 --open
    vmaptune report runs/digits-20260101-120000 --png --json
    vmaptune report runs/first runs/second --out comparison.html
    """
    from vmaptune.cli.output import print_json
    from vmaptune.report.writing import write_report

    written = write_report(runs, out=out, png=png)
    if as_json:
        print_json(written.as_json())
    else:
        for verdict in written.verdicts:
            click.echo(f"{verdict.sentence}." + (f" What to try: {verdict.advice}." if verdict.advice else ""))
        for file in written.files:
            click.echo(f"Written: {file}")
    if open_:
        click.launch(str(written.files[0]))
