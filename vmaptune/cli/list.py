"""`vmaptune list`."""

from __future__ import annotations

import click

from vmaptune.cli import options

_TABLES = ("optimizers", "schedules", "tasks", "selectors", "stoppers", "sinks")


@click.command("list")
@click.argument("table", required=False, type=click.Choice(_TABLES))
@options.json_option
def command(table: str | None, as_json: bool) -> None:
    """Print the names a config may use, their settings, and where they come from.

    All of them, or those of TABLE. "may be an axis" marks the settings that can differ from member to member, and be searched
    without another compilation; choices of the others open cohorts.

    \b
    vmaptune list
    vmaptune list optimizers
    vmaptune list schedules --json
    """
    from vmaptune.analysis.catalogue import catalogue
    from vmaptune.cli.output import print_json
    from vmaptune.plan import prepare_backend

    prepare_backend()
    tables = {name: catalogue(name) for name in ([table] if table else _TABLES)}
    if as_json:
        print_json(tables)
        return
    for i, (name, rows) in enumerate(tables.items()):
        click.echo(("\n" if i else "") + name)
        for row in rows:
            click.echo(f"\n  {row['name']}: {row['meaning']}")
            for s in row["settings"]:
                default = "required" if s["default"] is None else f"default {s['default']}"
                click.echo(
                    f"      {s['name']}: {s['type']}, {default}{', may be an axis' if s['axis'] else ''}. {s['meaning']}"
                )
            for source in row["source"]:
                click.echo(f"      [{source}]")
