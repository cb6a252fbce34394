"""`vmaptune show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vmaptune.cli import options

if TYPE_CHECKING:
    from vmaptune.analysis.lineage import Genealogy


@click.command("show")
@options.run_argument
@click.option(
    "--members", default=10, show_default=True, type=click.IntRange(0), help="How many of the newest generation to print."
)
@click.option(
    "--lineage", "draw", is_flag=True, help="Draw who descends from whom instead, and write lineage.html into the run folder."
)
@options.json_option
def command(run: str, members: int, draw: bool, as_json: bool) -> None:
    """Print a run's best member, its lineage, and the newest generation. Works while the run is going.

    RUN is its folder. Members are listed by the metric that they are selected by, best first, those that diverged last. The
    lineage is the chain of trials that the winner's weights were copied through.

    \b
    vmaptune show runs/digits-20260101-120000
    vmaptune show runs/digits-20260101-120000 --json
    vmaptune show runs/digits-20260101-120000 --lineage
    """
    if draw:
        _show_lineage(run, as_json=as_json)
        return
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


def _show_lineage(run: str, *, as_json: bool) -> None:
    from vmaptune.analysis.lineage import read_genealogy, write_figure
    from vmaptune.cli.output import print_json

    genealogy = read_genealogy(run)
    if as_json:
        print_json(genealogy.as_json() | {"figure": str(write_figure(genealogy))})
        return
    _print_ancestors(genealogy)
    _print_bars(genealogy)
    click.echo(f"\nFigure: {write_figure(genealogy)}")


def _print_ancestors(genealogy: Genealogy) -> None:
    """The winner's ancestors as a tree, with the score that each began and ended with."""
    from rich.console import Console
    from rich.markup import escape
    from rich.tree import Tree

    tree: Tree | None = None
    for ancestor in genealogy.ancestors:
        label = escape(_ancestor(ancestor, genealogy.metric))
        tree = node = Tree(label) if tree is None else tree
        if ancestor["trial"] != genealogy.ancestors[0]["trial"]:
            node.add(label)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    console.print("The winner's lineage", style="bold")
    console.print(tree)


def _ancestor(ancestor: dict[str, Any], metric: str) -> str:
    from vmaptune.cli.output import show

    first, last = ancestor["first_generation"] + 1, ancestor["last_generation"] + 1
    when = f"generation {first}" if first == last else f"generations {first} to {last}"
    score = " to ".join(dict.fromkeys([show(ancestor["first_score"]), show(ancestor["last_score"])]))
    origin = "born with fresh weights" if ancestor["parent"] is None else f"copy of {ancestor['parent']}"
    settings = ", ".join(f"{name} {show(value)}" for name, value in ancestor["hyperparameters"].items() if value is not None)
    return f"trial {ancestor['trial']}, {origin}, {when}: {metric} {score}; {settings}"


def _print_bars(genealogy: Genealogy) -> None:
    """How many descendants the founders have, generation by generation."""
    from vmaptune.analysis.lineage import OTHERS, bars
    from vmaptune.cli.output import print_table

    drawn, letters = bars(genealogy)
    click.echo("")
    print_table("Descendants of each founder", ("generation", "founders", ""), [[g + 1, alive, bar] for g, alive, bar in drawn])
    known = [f"{letter} trial {founder}" for letter, founder in letters.items()]
    dots = [f"{OTHERS} others"] * any(OTHERS in bar for _, _, bar in drawn)
    legend = ", ".join(known + dots) + " (A is the winner's)" * ("A" in letters)
    click.echo(click.wrap_text(legend, width=110))
