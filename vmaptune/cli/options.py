"""Options that several commands share, declared once."""

from __future__ import annotations

import click


def _settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For the shell: the settings in the CONFIG given, or else in the embedded default, that begin like this."""
    import tomllib
    from importlib import resources
    from pathlib import Path

    given = next((word for word in ctx.args if word.endswith(".toml")), None)  # --set without its value ends click's parsing
    try:
        text = (
            Path(given).read_text("utf-8") if given else resources.files("vmaptune").joinpath("default.toml").read_text("utf-8")
        )
        tree = tomllib.loads(text)
    except (OSError, ValueError):
        return []

    def names(table: dict[str, object], prefix: str) -> list[str]:
        below = [names(v, f"{prefix}{k}.") if isinstance(v, dict) else [f"{prefix}{k}"] for k, v in table.items()]
        axis = {"low", "high", "choices"} & set(table)
        return [prefix[:-1]] if axis else [name for found in below for name in found]

    return [name for name in names(tree, "") if name.startswith(incomplete)]


config_argument = click.argument("config", required=False, type=click.Path(dir_okay=False))
set_option = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=_settings,
    help="Set one setting, such as optimizer.b1=0.95; any TOML value. May be repeated.",
)
seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), help="Seed of everything random; overrides the config's."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
quiet_option = click.option("--quiet", "-q", is_flag=True, help="No progress on stderr.")
run_argument = click.argument("run", type=click.Path(file_okay=False))
distributed_option = click.option(
    "--distributed/--alone",
    default=None,
    help="Join the other processes of this run, or do not; default: join if Slurm, Open MPI, a TPU pod or "
    "JAX_NUM_PROCESSES says that there are several.",
)
