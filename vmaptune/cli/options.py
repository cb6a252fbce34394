"""Options that several commands share, declared once."""

from __future__ import annotations

import click

config_argument = click.argument("config", required=False, type=click.Path(dir_okay=False))
set_option = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
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
