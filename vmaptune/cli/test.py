"""`vmaptune test`."""

from __future__ import annotations

import click

from vmaptune.cli import options

_LOST = "not noted: the process died"


@click.command("test")
@options.run_argument
@click.option("--again", is_flag=True, help="Read the test split once more; that is put on record, and shown everywhere.")
@options.json_option
def command(run: str, again: bool, as_json: bool) -> None:
    """Print the winner's result on the locked test split, and how often that was read.

    A run reads it once, for its winner, when it ends. It is not read here, unless the run is finished and was told to leave
    it unread, or --again is given. A test split that is looked at again and again becomes another validation split: every
    reading is on record and counted.

    \b
    vmaptune test runs/digits-20260101-120000
    vmaptune test runs/digits-20260101-120000 --again
    """
    from vmaptune.analysis.testing import locked_test, look_again
    from vmaptune.cli.output import print_json, print_table, show
    from vmaptune.errors import StoreError

    found = locked_test(run)
    if found.status != "finished":
        go_on = "" if found.status == "running" else f": vmaptune resume {run}"
        raise StoreError(f"{run}: the run is {found.status}; the test split is read when it has finished{go_on}")
    if found.test is None:
        _conclude(run)
    elif again:
        look_again(run)
    found = locked_test(run)
    if as_json:
        print_json(found.as_json())
        return
    click.echo(f"{run}: test read {_times(len(found.reads))}\n")
    rows = [(name, show(found.validation.get(name)), show(value)) for name, value in (found.test or {}).items()]
    print_table("The winner", ("", "validation", "test"), rows)
    if len(found.reads) > 1:
        click.echo("")
        seen = [(read["time"], read["what"], show((read["metrics"] or {}).get(found.metric, _LOST))) for read in found.reads]
        print_table("Readings of the test split", ("when", "of", found.metric), seen)


def _conclude(run: str) -> None:
    """Ends a run that was told to leave the test split unread, as if it had not been."""
    from vmaptune.loop import tune
    from vmaptune.store.folder import RunFolder

    tune(RunFolder(run).config, out=run, resume=True)


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"
