"""`vmaptune verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vmaptune.cli import options

if TYPE_CHECKING:
    from vmaptune.analysis.verify import Deviation


@click.command("verify")
@options.run_argument
@click.option("--member", type=click.IntRange(0), help="Number of a trial; default: the winner.")
@options.json_option
def command(run: str, member: int | None, as_json: bool) -> None:
    """Train one member of a run once more, alone, and compare it with the record.

    The member goes through what its lineage went through, without the rest of the population. With `[plan] name = "strict"`
    it ends the same to the bit, on the same machine; with another plan, the same to rounding.

    \b
    vmaptune verify runs/digits-20260101-120000
    vmaptune verify runs/digits-20260101-120000 --member 17
    """
    from vmaptune.analysis.verify import verify
    from vmaptune.cli.output import print_json, print_table, show

    found = verify(run, member=member)
    if as_json:
        print_json(found.as_json())
        return
    rows = [
        ("lineage", " > ".join(f"trial {trial}" for trial in found.trials)),
        ("trained again", f"{found.generations} generations, {found.steps} steps, {found.compared} numbers compared"),
        ("largest deviation", _place(found.largest, found.largest.absolute)),
        ("largest relative", _place(found.largest_relative, found.largest_relative.relative)),
    ]
    if found.weights:
        rows.append(("winner's weights", _place(found.weights, found.weights.absolute)))
    if found.first:
        rows.append(("first of these", f"{_place(found.first, found.first.absolute)}, trial {found.first.trial}"))
    if found.elsewhere:
        rows.append(("made elsewhere", "; ".join(found.elsewhere)))
    print_table(f"Trial {found.trial} of {run}, alone", ("", ""), [(name, show(value)) for name, value in rows])
    click.echo(f"\n{found.verdict}")


def _place(deviation: Deviation, value: float) -> str:
    if not value:
        return "0"
    where = f"{deviation.name} of generation {deviation.generation + 1}"
    return f"{value:.3g} ({where}: {deviation.recorded:.9g} on record, {deviation.retrained:.9g} alone)"
