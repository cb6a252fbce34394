"""`vmaptune show`."""

from __future__ import annotations

import click

from vmaptune.cli import options


@click.command("show")
@options.run_argument
@click.option(
    "--members", default=10, show_default=True, type=click.IntRange(0), help="How many of the newest generation to print."
)
@options.json_option
def command(run: str, members: int, as_json: bool) -> None:
    """Print a run's best member, its lineage, and the newest generation. Works while the run is going.

    \b
    vmaptune show runs/digits-20260101-120000
    vmaptune show runs/digits-20260101-120000 --json
    """
    from vmaptune.analysis.runs import describe_run
    from vmaptune.cli.output import print_json, print_table, show

    facts = describe_run(run)
    if as_json:
        print_json(facts)
        return
    done, planned = facts["generation"] + 1, facts["generations"]
    click.echo(f"{run}: {facts['status']}, generation {done} of {planned}, {facts['population']} members\n")
    best = facts["best"]
    if best is None:
        click.echo("No sound member yet.")
        return
    rows = [("trial", best["trial"]), ("generation", best["generation"] + 1), ("steps", best["step"])]
    rows += [(f"{part} {k}", v) for part in ("train", "validation") for k, v in best[part].items()]
    rows += [(f"test {k}", v) for k, v in (facts["test"] or {}).items()]
    rows += list(best["hyperparameters"].items())
    print_table("Best member", ("", ""), [(name, show(value)) for name, value in rows])
    searched = list(best["hyperparameters"])
    metric = facts["metric"]
    click.echo("")
    lineage = [
        [a["generation"] + 1, a["trial"], a["step"], a["validation"][metric], *(a["hyperparameters"][k] for k in searched)]
        for a in facts["lineage"]
    ]
    print_table("Its lineage", ("generation", "trial", "steps", metric, *searched), lineage)
    if members and facts["members"]:
        click.echo("")
        rows_ = [
            [m["trial"], m["slot"], m["step"], m["validation"][metric], *(m["hyperparameters"][k] for k in searched)]
            for m in facts["members"][:members]
        ]
        print_table(
            f"Generation {facts['generation'] + 1}, best {len(rows_)}", ("trial", "slot", "steps", metric, *searched), rows_
        )
