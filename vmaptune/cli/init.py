"""`vmaptune init`."""

from __future__ import annotations

from pathlib import Path

import click

from vmaptune.cli import options


@click.command("init")
@click.argument("path", required=False, default="vmaptune.toml", type=click.Path(dir_okay=False))
@options.set_option
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def command(path: str, assignments: tuple[str, ...], force: bool) -> None:
    """Write a config with every setting, its default and what it means.

    PATH is vmaptune.toml unless given; - writes to stdout.

    \b
    vmaptune init my.toml
    vmaptune init sgd.toml --set optimizer.name=sgd
    """
    from vmaptune.errors import ConfigError
    from vmaptune.plan import prepare_backend
    from vmaptune.store.folder import write_text
    from vmaptune.toml import load_config, to_toml

    if path != "-" and Path(path).exists() and not force:
        raise ConfigError(f"{path}: is there already; --force replaces it")
    prepare_backend()
    header = (
        "A vmaptune config. Wherever a comment says 'or an axis', the number may be searched: "
        '{ low = 1e-4, high = 1e-1, scale = "log" }, { low = 1, high = 8, integer = true } or { choices = [0.9, 0.95] }.'
    )
    text = to_toml(*load_config(assignments=assignments), header=header)
    if path == "-":
        click.echo(text, nl=False)
    else:
        write_text(Path(path), text)
        click.echo(f"{path} written; edit it, then: vmaptune run {path}", err=True)
