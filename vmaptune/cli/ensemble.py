"""`vmaptune ensemble`."""

from __future__ import annotations

import click

from vmaptune.cli import options


@click.command("ensemble")
@options.run_argument
@click.option("--size", default=25, show_default=True, type=click.IntRange(1), help="Picks; validation says how many are kept.")
@click.option(
    "--method",
    default="greedy",
    show_default=True,
    type=click.Choice(["greedy", "soup"]),
    help="greedy: members that answer together. soup: one network, the mean of relatives' weights.",
)
@click.option("--again", is_flag=True, help="Read the test split, also if it was read for another ensemble of this method.")
@options.json_option
def command(run: str, size: int, method: str, again: bool, as_json: bool) -> None:
    """Build an ensemble of a run's members, chosen on validation.

    It is kept in RUN/ensemble, in the place of an earlier one. It is no worse than the winner on validation, by construction,
    and flattered by that. The test split, which says what it is worth, is read once for it, and that is put on record.

    \b
    vmaptune ensemble runs/digits-20260101-120000
    vmaptune ensemble runs/digits-20260101-120000 --method soup
    vmaptune predict runs/digits-20260101-120000 new.npz --ensemble 5
    """
    from vmaptune.analysis.ensemble import ensemble
    from vmaptune.cli.output import print_json, print_table, show

    found = ensemble(run, size=size, method=method, again=again)  # type: ignore[arg-type]
    if as_json:
        print_json(found.as_json())
        return
    parts = {"validation": found.validation, **({"test": found.test} if found.test else {})}
    rows = [
        (f"{part} {name}", show(value), show(parts[part]["ensemble"].get(name)))
        for part in parts
        for name, value in parts[part]["single"].items()
    ]
    click.echo(f"{run}: {method}, of {found.candidates} members\n")
    print_table("Metrics", ("", "winner", method), rows)
    members = ", ".join(f"trial {trial}" + f" x {n}" * (n > 1) for trial, n in found.members.items())
    click.echo(f"\nmembers: {members}")
    if found.test is None:
        click.echo("The test split was not read for it: it was for another one (--again), or not yet for the winner.")
    times = "once" if found.test_reads == 1 else f"{found.test_reads} times"
    click.echo(f"test read {times}; kept in {found.run / 'ensemble'}")
