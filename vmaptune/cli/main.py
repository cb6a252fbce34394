"""The group of all commands, and the one place where an error becomes a sentence and an exit code."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import click

from vmaptune import __version__
from vmaptune.errors import VmaptuneError

_COMMANDS = (
    "run",
    "resume",
    "init",
    "check",
    "list",
    "runs",
    "show",
    "report",
    "dashboard",
    "export",
    "predict",
    "ensemble",
    "test",
    "replay",
    "verify",
    "schedules",
    "lr-range",
    "compare",
    "refine",
    "bench",
)


class _Commands(click.Group):
    """Imports a command's module when it is asked for, and speaks plainly of what went wrong."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return importlib.import_module(f"vmaptune.cli.{cmd_name.replace('-', '_')}").command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        from vmaptune.errors import did_you_mean

        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}{did_you_mean(args[0], _COMMANDS)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        warnings.showwarning = _show_warning
        try:
            return super().invoke(ctx)
        except VmaptuneError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {message}", err=True)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="vmaptune")
def main() -> None:
    """Train a population of small neural networks as one compiled JAX program, and evolve it while it trains.

    \b
    vmaptune run                         train 64 networks on embedded data, evolving them
    vmaptune init my.toml                write a config to edit, every setting explained
    vmaptune run my.toml --set seed=1    run it

    Results go to stdout, progress to stderr. Exit codes: 0 done; 1 all members failed, or out of memory; 2 a config, folder
    or option that cannot be used; 130 and 143 stopped by SIGINT or SIGTERM, to go on with `vmaptune resume`.
    """
