"""`vmaptune refine`."""

from __future__ import annotations

from pathlib import Path

import click

from vmaptune.cli import options


@click.command("refine")
@options.run_argument
@click.option("--out", default="next.toml", show_default=True, type=click.Path(dir_okay=False), help="The file; -: stdout.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@options.json_option
def command(run: str, out: str, force: bool, as_json: bool) -> None:
    """Write the next config from a run: its axes narrowed around what was good.

    Each axis takes the range of the best quarter of the trials (at least four), with a margin. Where the best trial sits on
    an end, the axis is widened there, by a decade on a log scale or half its width on a linear one, as far as the setting
    may, with a warning. Choices that do not occur among the best are left out. A coarse search's [data] are set to all data.

    \b
    vmaptune run my.toml --set data.fraction=0.2 --out runs/coarse
    vmaptune refine runs/coarse --out fine.toml
    vmaptune run fine.toml
    """
    from vmaptune.analysis.refine import refine, shown
    from vmaptune.cli.output import print_json, print_table
    from vmaptune.errors import ConfigError
    from vmaptune.plan import prepare_backend
    from vmaptune.store.folder import write_text

    if out != "-" and Path(out).exists() and not force:
        raise ConfigError(f"{out}: is there already; --force replaces it")
    if out == "-" and as_json:
        raise ConfigError("--out -: writes the config to stdout, where --json prints what was changed; give one of the two")
    prepare_backend()
    found = refine(run)
    if out == "-":
        click.echo(found.as_toml(), nl=False)
        return
    write_text(Path(out), found.as_toml())
    if as_json:
        print_json(found.as_json())
        return
    rows = [(change.name, shown(change.old), shown(change.new), change.why) for change in found.changes]
    title = f"{run}: around the best {found.good} of {found.trials} trials after {found.step} steps"
    print_table(title, ("setting", "was", "is", "why"), rows)
    said = f"{out} written; then: vmaptune run {out}" if rows else f"Nothing to change; {out} is as the run was."
    click.echo(f"\n{said}", err=True)
