"""`vmaptune schedules`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vmaptune.cli import options

if TYPE_CHECKING:
    from vmaptune.studies import ScheduleStudy


@click.command("schedules")
@options.config_argument
@options.set_option
@click.option("--families", default="all", show_default=True, metavar="A,B|all", help="Which to compare; see `vmaptune list`.")
@click.option("--shapes", default=64, show_default=True, help="Shapes drawn in each family.")
@click.option("--lrs", default=5, show_default=True, help="Points of the learning rate's axis.")
@click.option("--weight-decays", default=1, show_default=True, help="Points of the weight decay's axis; 1: its middle.")
@click.option("--seeds", default=3, show_default=True, help="Trainings of each candidate while searching.")
@click.option("--refine", default=4, show_default=True, help="Candidates of each family around which is searched on.")
@click.option("--confirm", default=32, show_default=True, help="Fresh seeds of each family's best few; half are reported.")
@click.option("--steps", type=int, help="Of each training; default: segment_steps x generations of the config.")
@click.option("--score", default="loss", show_default=True, help="Validation metric to compare by.")
@click.option("--out", type=click.Path(file_okay=False), help="Folder of the study; a stopped one is resumed.")
@options.quiet_option
@options.json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print a CSV table instead.")
def command(
    config: str | None,
    assignments: tuple[str, ...],
    families: str,
    shapes: int,
    lrs: int,
    weight_decays: int,
    seeds: int,
    refine: int,
    confirm: int,
    steps: int | None,
    score: str,
    out: str | None,
    quiet: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Compare families of learning-rate schedules.

    Draws shapes of each family, crosses them with learning rates (and weight decays) and seeds, trains all of them as one
    population, searches on around the best, and confirms the best few of each family with fresh seeds. Prints, for each
    family, its best median score with a 95 % interval, how far it is from the best family, from the best constant and the
    best cosine, whether it can be told from the best at all, and how wide its valley of learning rates is.

    The folder holds ordinary runs (its own, refine-1/ to refine-3/, confirm/), families.csv, families.html, and for each
    family a config that `vmaptune run` takes and the learning rate at every step.

    \b
    vmaptune schedules
    vmaptune schedules my.toml --families cosine,wsd,rex --shapes 32 --weight-decays 4 --out runs/shapes
    """
    from vmaptune.cli.study import run_study
    from vmaptune.studies import evaluate_schedules

    study = run_study(
        evaluate_schedules,
        quiet=quiet,
        config=config,
        assignments=assignments,
        families=families,
        shapes=shapes,
        learning_rates=lrs,
        weight_decays=weight_decays,
        seeds=seeds,
        refine=refine,
        confirm=confirm,
        steps=steps,
        score=score,
        out=out,
    )
    _print(study, as_json=as_json, as_csv=as_csv)


def _print(study: ScheduleStudy, *, as_json: bool, as_csv: bool) -> None:
    from vmaptune.cli.output import print_json, print_table, show

    if as_json:
        print_json(study.as_json())
        return
    if as_csv:
        click.echo(study.as_csv(), nl=False)
        return
    rows = [
        (
            f.family,
            f"{f.score.value:.4g} ({f.score.low:.4g} to {f.score.high:.4g})",
            "best" if f is study.families[0] else "tied" if f.tied else f"+{f.regret.value:.2g}",
            _against(f.over_constant),
            _against(f.over_cosine),
            f.basin_decades,
            f.diverged or None,
            ", ".join(f"{name.rpartition('.')[2]} {show(value)}" for name, value in f.hyperparameters.items()),
        )
        for f in study.families
    ]
    columns = ("family", study.metric, "regret", "to constant", "to cosine", "basin, decades", "diverged", "best")
    print_table(f"Validation {study.metric}, medians over {study.families[0].seeds} fresh seeds", columns, rows)
    rate = study.trainings / study.seconds
    counts = f"{study.trainings:,} trainings, {study.member_steps:,} member-steps"
    click.echo(f"\n{counts}, {study.seconds:.1f} s: {rate:,.0f} trainings/s. Folder: {study.folder}")
    if ends := sorted({name for f in study.families if f.tied for name in f.at_end}):
        click.echo(f"At an end of its axis among the best: {', '.join(ends)}; widen it.")
    if study.held:
        click.echo("Held: " + ", ".join(f"{name} = {show(value)}" for name, value in study.held.items()))


def _against(difference: tuple[float, float, float]) -> str:
    """A difference of medians; in brackets where its interval holds 0, so that seeds alone may explain it."""
    value, low, high = difference
    return f"({value:+.2g})" if low <= 0 <= high else f"{value:+.2g}"
