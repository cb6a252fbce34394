"""`vmaptune compare`."""

from __future__ import annotations

import re
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from vmaptune.cli import options

if TYPE_CHECKING:
    from vmaptune.studies import Comparison
    from vmaptune.studies.paired import Paired

_NEXT_SETTING = re.compile(r",(?=\s*\w+(?:\.\w+)+\s*=)")  # a comma inside a value stands before no dotted name


@click.command("compare")
@click.argument("configs", nargs=-1, metavar="[CONFIG]...", type=click.Path(dir_okay=False))
@click.option(
    "--arm",
    "arms",
    multiple=True,
    metavar="NAME:KEY=VALUE[,KEY=VALUE]...",
    help="An arm made of the one CONFIG (or the embedded one) by settings as for --set; NAME: alone leaves it as it is. "
    "May be repeated.",
)
@options.set_option
@click.option("--seeds", default=10, show_default=True, help="Runs of each arm, with seeds 0, 1, ...: the same for all.")
@click.option(
    "--budget",
    "budgets",
    multiple=True,
    metavar="steps=N|seconds=X",
    help="Where every run ends: steps of all members together, or seconds of training; default: each arm's own length.",
)
@click.option("--out", type=click.Path(file_okay=False), help="Folder of all runs; a stopped one is resumed.")
@options.quiet_option
@options.json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print a CSV table instead: a line a run.")
def command(
    configs: tuple[str, ...],
    arms: tuple[str, ...],
    assignments: tuple[str, ...],
    seeds: int,
    budgets: tuple[str, ...],
    out: str | None,
    quiet: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Compare configs over seeds, at equal budget.

    Every CONFIG is an arm, named after its file; with --arm, the arms are variations of one. Each is run once a seed, and they
    are compared seed by seed: the validation metric of the best member so far against member-steps and seconds, test and
    validation scores in the end, mean ranks, and Wilcoxon's signed-rank test of each pair, corrected by Holm for their
    number. Six seeds are the least from which that test can tell anything.

    The folder holds a run for each arm and seed (<arm>/seed-0, ...), compare.json, compare.csv and compare.html. With the same
    --out, runs that have ended are only read: add seeds or arms, or go on after a stop.

    \b
    vmaptune compare pbt.toml random.toml --budget steps=500000
    vmaptune compare --arm pbt:search.method=truncation --arm random:search.method=random --seeds 6
    vmaptune compare my.toml --arm as-it-is: --arm wide:task.hidden=[128,128],batch.size=64
    """
    from vmaptune.cli.study import run_study
    from vmaptune.errors import ConfigError

    if as_json and as_csv:
        raise ConfigError("--csv: prints a table where --json prints an object; give one of the two")
    from vmaptune.studies import compare

    if arms and len(configs) > 1:
        raise ConfigError(f"--arm: makes arms out of one config; given: {', '.join(configs)}")
    found = run_study(
        compare,
        quiet=quiet,
        arms=_arms(arms) if arms else configs,
        config=configs[0] if configs else None,
        assignments=assignments,
        seeds=seeds,
        budget=_budget(budgets),
        out=out,
    )
    _print(found, as_json=as_json, as_csv=as_csv)


def _arms(texts: tuple[str, ...]) -> dict[str, list[str]]:
    from vmaptune.errors import ConfigError

    arms: dict[str, list[str]] = {}
    for text in texts:
        name, colon, rest = text.partition(":")
        if not colon or "=" in name:
            raise ConfigError(f"--arm: expected NAME:KEY=VALUE, such as random:search.method=random; given: {text!r}")
        if name in arms:
            raise ConfigError(f"--arm: two arms are called {name!r}; give each a name of its own")
        arms[name] = [part.strip() for part in _NEXT_SETTING.split(rest)] if rest.strip() else []
    return arms


def _budget(texts: tuple[str, ...]) -> dict[str, float] | None:
    from vmaptune.errors import ConfigError

    budget = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            budget[name.strip()] = float(number)
        except ValueError:
            raise ConfigError(f"--budget: expected steps=N or seconds=X, such as steps=500000; given: {text!r}") from None
    return budget or None


def _print(found: Comparison, *, as_json: bool, as_csv: bool) -> None:
    from vmaptune.cli.output import print_json, print_table

    if as_json:
        print_json(found.as_json())
        return
    if as_csv:
        click.echo(found.as_csv(), nl=False)
        return
    rows: list[list[Any]] = [
        [
            arm.name,
            _interval(arm.test_median),
            arm.test_rank,
            _interval(arm.validation_median),
            arm.validation_rank,
            f"{median(arm.member_steps.tolist()):,.0f}",
            median(arm.seconds.tolist()),
        ]
        for arm in found.arms
    ]
    columns = ("arm", f"test {found.metric}", "mean rank", f"validation {found.metric}", "mean rank", "member-steps", "seconds")
    print_table(f"{found.metric} ({found.direction}), medians over {found.seeds} seeds with 95 % intervals", columns, rows)
    click.echo("")
    pairs = zip(found.test, found.validation, strict=True)
    rows = [[f"{test.one} - {test.other}", *_pair(test), *_pair(validation)] for test, validation in pairs]
    each = ("wins-ties-losses", "p", "p (Holm)")
    heads = ("pair", f"test {found.metric}", *each, f"validation {found.metric}", *each)
    print_table("Differences, seed by seed; p of the signed-rank test", heads, rows)
    click.echo("")
    for note in found.notes:
        click.echo(note)
    click.echo(f"Folder: {found.folder}")


def _interval(interval: tuple[float, float, float]) -> str:
    value, low, high = interval
    return f"{value:.4g} ({low:.4g} to {high:.4g})"


def _pair(pair: Paired) -> list[Any]:
    value, low, high = (number + 0.0 for number in pair.difference)  # no -0
    return [
        f"{value:+.2g} ({low:+.2g} to {high:+.2g})",
        f"{pair.wins}-{pair.ties}-{pair.losses}",
        pair.p,
        pair.p_holm,
    ]
