"""`vmaptune predict`."""

from __future__ import annotations

import click

from vmaptune.cli import options


@click.command("predict")
@options.run_argument
@click.argument("data", type=click.Path())
@click.option("--ensemble", metavar="K", type=click.IntRange(1), help="The first K picks of the run's ensemble.")
@click.option("--out", type=click.Path(dir_okay=False), help="A CSV file to write; default: print it.")
@options.json_option
def command(run: str, data: str, ensemble: int | None, out: str | None, as_json: bool) -> None:
    """Answer for new data by a run's winner: a CSV with a row an example.

    DATA is a table (.csv, .tsv, .parquet) with the columns of the training table, whose target may be missing; an image or a
    folder of images; arrays (.npz with x, .npy); a series, every whole window of which is gone on from; or a text.
    Columns: the prediction, in the target's own units, and the probability of each class. The training data are not needed.

    \b
    vmaptune predict runs/table-20260101-120000 new.csv --out answers.csv
    vmaptune predict runs/table-20260101-120000 new.csv --ensemble 5
    vmaptune predict runs/images-20260101-120000 photos/
    """
    import csv
    import io
    from pathlib import Path

    from vmaptune.analysis.predictor import answers_of, load
    from vmaptune.cli.output import print_json
    from vmaptune.store.folder import spare, write_text

    spare(out, data)
    columns = answers_of(load(run, ensemble=ensemble or 0), data)
    if as_json:
        print_json({"run": run, "rows": len(next(iter(columns.values()))), "columns": columns})
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    if out is None:
        click.echo(text.getvalue(), nl=False)
    else:
        write_text(Path(out), text.getvalue())
        click.echo(f"{len(next(iter(columns.values()))):,} rows: {out}")
