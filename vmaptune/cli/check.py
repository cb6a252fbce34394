"""`vmaptune check`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from vmaptune.cli import options

if TYPE_CHECKING:
    from vmaptune.config import RunConfig


@click.command("check")
@options.config_argument
@options.set_option
@click.option("--plan", "timed", is_flag=True, help="Time the plans that come into question here, and print what was found.")
@options.json_option
def command(config: str | None, assignments: tuple[str, ...], timed: bool, as_json: bool) -> None:
    """Resolve a config and say how large its run will be. Trains nothing.

    Prints the whole config, defaults included, as TOML that can be run; the counts stand above it as comments. With --plan,
    prints how the population would be laid on this machine instead, and what each candidate was measured to cost; the
    measurement is kept, and later runs go by it.

    \b
    vmaptune check my.toml
    vmaptune check my.toml --plan
    vmaptune check --set population.size=1024 --json
    """
    from vmaptune.analysis.footprint import footprint
    from vmaptune.cache import use_compilation_cache
    from vmaptune.choices import table_of
    from vmaptune.cli.cohorts import check_cohorts
    from vmaptune.cli.output import print_json, print_table
    from vmaptune.cohorts import load_cohorts
    from vmaptune.config import resolve
    from vmaptune.plan import prepare_backend
    from vmaptune.sections import sink_tables
    from vmaptune.sinks import choose_sinks
    from vmaptune.toml import to_toml

    prepare_backend()
    use_compilation_cache()
    source = str(config or "default config")
    tree, cohorts = load_cohorts(config, assignments)
    choose_sinks(sink_tables(table_of(tree, "sinks")))
    if len(cohorts) > 1:
        check_cohorts(tree, cohorts, source, timed=timed, as_json=as_json)
        return
    resolved, task = resolve(cohorts[0].tree, source=source)
    size = footprint(resolved, task, timed=timed)
    if as_json:
        print_json({"id": resolved.run_id, "config": resolved.tree, **size})
        return
    if timed:
        plan = size["plan"]
        rows = [
            (c["plan"], c["microseconds"], c["bytes"] and _bytes(c["bytes"]), "chosen" if i == 0 else "")
            for i, c in enumerate(plan["candidates"])
        ]
        spare = plan["slots"] - resolved.population.size
        dead = f"; {spare} slots stay empty" if spare else ""
        click.echo(f"{plan['devices']} x {plan['device']}, {_bytes(plan['bytes_limit'])} of memory each; {_how(plan)}{dead}\n")
        print_table("Plans", ("plan", "us a member-step", "memory a device", ""), rows)
        return
    memory = {part: _bytes(size[f"{part}_bytes"]) for part in ("population", "data")}
    for line in (
        f"{len(size['axes'])} axes: {', '.join(size['axes']) or 'none'}",
        f"{size['parameters_per_member']:,} parameters a member; population {memory['population']}, data {memory['data']}",
        f"at most {size['member_steps']:,} member-steps: {size['trials']:,} trials of {size['horizon']:,} steps, "
        f"{resolved.population.size:,} at a time{_more(resolved)}",
        f"examples: {', '.join(f'{part} {n:,}' for part, n in size['examples'].items())}",
        f"plan ({size['plan']['source']}): {size['plan']['devices']} x {size['plan']['device']}, "
        f"{size['plan']['chunk']} members side by side on each, {size['plan']['lowering']} convolutions",
    ):
        click.echo(f"# {line}")
    click.echo("\n" + to_toml(resolved, task), nl=False)


def _more(config: RunConfig) -> str:
    """What else decides how long a run is."""
    ahead, stop, budget = config.lookahead.steps, config.stop.name, config.budget
    facts = [f"{ahead} steps of look-ahead a generation"] * bool(ahead) + [f"stopped early by {stop}"] * (stop != "none")
    facts += [f"within {budget.steps:,} member-steps"] * bool(budget.steps)
    facts += [f"within {budget.seconds:g} seconds"] * bool(budget.seconds)
    return "".join(f"; {fact}" for fact in facts)


def _how(plan: Mapping[str, Any]) -> str:
    """Where a plan comes from, in words."""
    known = {"timed": "timed just now", "timed before": "timed on this machine before"}
    return known.get(plan["source"], "by rule of thumb: there is nothing to choose from")


def _bytes(n: float) -> str:
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    power = min(int(math.log(max(n, 1), 1024)), len(units) - 1)
    return f"{n / 1024**power:,.{min(power, 1)}f} {units[power]}"
