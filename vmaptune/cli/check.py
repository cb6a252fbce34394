"""`vmaptune check`."""

from __future__ import annotations

import math

import click

from vmaptune.cli import options


@click.command("check")
@options.config_argument
@options.set_option
@options.json_option
def command(config: str | None, assignments: tuple[str, ...], as_json: bool) -> None:
    """Resolve a config and say how large its run will be. Trains nothing.

    Prints the whole config, defaults included, as TOML that can be run; the counts stand above it as comments.

    \b
    vmaptune check my.toml
    vmaptune check --set population.size=1024 --json
    """
    from vmaptune.analysis.footprint import footprint
    from vmaptune.cli.output import print_json
    from vmaptune.plan import prepare_backend
    from vmaptune.toml import load_config, to_toml

    prepare_backend()
    resolved, task = load_config(config, assignments)
    size = footprint(resolved, task)
    if as_json:
        print_json({"id": resolved.run_id, "config": resolved.tree, **size})
        return
    memory = {part: _bytes(size[f"{part}_bytes"]) for part in ("population", "data")}
    for line in (
        f"{len(size['axes'])} axes: {', '.join(size['axes']) or 'none'}",
        f"{size['parameters_per_member']:,} parameters a member; population {memory['population']}, data {memory['data']}",
        f"{size['member_steps']:,} member-steps: {resolved.population.size} members x {size['horizon']} steps",
        f"examples: {', '.join(f'{part} {n:,}' for part, n in size['examples'].items())}",
        f"plan: {size['plan']['devices']} x {size['plan']['device']}, {size['plan']['chunk']} members side by side on each",
    ):
        click.echo(f"# {line}")
    click.echo("\n" + to_toml(resolved, task), nl=False)


def _bytes(n: float) -> str:
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    power = min(int(math.log(max(n, 1), 1024)), len(units) - 1)
    return f"{n / 1024**power:,.{min(power, 1)}f} {units[power]}"
