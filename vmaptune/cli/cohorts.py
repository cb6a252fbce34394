"""What `vmaptune run` and `vmaptune check` do where choices on static settings open cohorts."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from vmaptune.cli.run import Signals
    from vmaptune.cohorts import Cohort, CohortResult
    from vmaptune.config import RunConfig
    from vmaptune.store.record import Sink
    from vmaptune.tasks import Task


def run_cohorts(
    tree: Mapping[str, Any], source: str, signals: Signals, *, out: str | None, resume: bool, quiet: bool, as_json: bool
) -> None:
    """Runs or resumes all cohorts, shows progress, prints the result, and exits as a shell expects."""
    from vmaptune.cohorts import tune_cohorts
    from vmaptune.distributed import is_main
    from vmaptune.errors import ConfigError

    if resume and out is None:
        raise ConfigError("--resume: with cohorts, give the folder that they were begun in: --out")
    listen = None if quiet or not is_main() else _listen
    result = tune_cohorts(tree, out=out, resume=resume, listen=listen, should_stop=signals.caught, source=source)
    if is_main():
        _print(result, as_json)
    if result.status == "interrupted":
        if is_main():
            click.echo(f"Stopped. Go on with: vmaptune resume {result.run}", err=True)
        signals.number = signals.number or signal.SIGTERM  # another process was told to stop, and so all have
        signals.stop_if_caught()


def _listen(cohort: str, config: RunConfig, task: Task) -> Sequence[Sink]:
    """Says which cohort goes on, and shows how far it is."""
    from vmaptune.cli.progress import Progress

    click.echo(f"cohort {cohort}", err=True)
    return [Progress(config.total_generations, config.population.segment_steps, task.metric, task.direction)]


def _print(result: CohortResult, as_json: bool) -> None:
    from vmaptune.cli.output import print_json, print_table, show

    facts = result.as_json()
    if as_json:
        print_json(facts)
        return
    lines = [
        [
            run.cohort.name,
            "left" if run.left_after and run.status == "interrupted" else run.status,
            run.generations,
            run.member_steps,
            run.validation.get(result.metric),
            "winner" if run.cohort.name == result.winner else "",
        ]
        for run in result.cohorts
    ]
    columns = ("cohort", "status", "generations", "member-steps", result.metric, "")
    print_table(f"{len(lines)} cohorts, budget {result.budget.budget}", columns, lines)
    click.echo("")
    rows: list[tuple[str, Any]] = []
    if best := facts["best"]:
        rows += [("winner", result.winner)]
        rows += [("best member", f"trial {best['trial']}, after generation {best['generation'] + 1}, {best['step']} steps")]
        rows += list(best["hyperparameters"].items())
        rows += [(f"validation {name}", value) for name, value in best["validation"].items()]
        rows += [(f"test {name}", value) for name, value in (facts["test"] or {}).items()]
    rows += [("trained", f"{result.member_steps:,} member-steps"), ("seconds", result.seconds), ("folder", facts["run"])]
    print_table(f"{result.status}: {facts['run']}", ("", ""), [(name, show(value)) for name, value in rows])


def check_cohorts(tree: Mapping[str, Any], cohorts: Sequence[Cohort], source: str, *, timed: bool, as_json: bool) -> None:
    """Resolves every cohort, and says how large each is and when halving leaves some."""
    from vmaptune.analysis.footprint import footprint
    from vmaptune.cli.output import print_json, print_table
    from vmaptune.cohorts import budget_of
    from vmaptune.config import resolve

    sizes: list[dict[str, Any]] = []
    generations = 0
    for cohort in cohorts:
        config, task = resolve(cohort.tree, source=f"{source}: cohort {cohort.name}")
        generations = max(generations, config.total_generations)
        size = footprint(config, task, timed=timed)
        named = {"name": cohort.name, "assignment": cohort.assignment, "id": config.run_id, "config": config.tree}
        sizes.append(named | {"generations": config.total_generations, **size})
    budget = budget_of(tree)
    rungs = budget.rungs(len(cohorts), generations)
    if as_json:
        print_json({"budget": vars(budget), "rungs": {str(k): v for k, v in rungs.items()}, "cohorts": sizes})
        return
    columns = ("cohort", "axes", "parameters a member", "member-steps to its end", "plan")
    rows = [
        (
            size["name"],
            len(size["axes"]),
            size["parameters_per_member"],
            size["member_steps"],
            f"{size['plan']['devices']} x {size['plan']['chunk']} members ({size['plan']['source']})",
        )
        for size in sizes
    ]
    print_table(f"{len(cohorts)} cohorts, one compilation each", columns, rows)
    total, whole = budget.total(len(cohorts), generations), len(cohorts) * generations
    steps = [f"after generation {done} the best {count} go on" for done, count in rungs.items()] or ["all train to the end"]
    click.echo(f"\nbudget {budget.budget}: {', '.join(steps)}; {total} generations instead of {whole}")
