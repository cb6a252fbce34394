"""`vmaptune run`, and what `vmaptune resume` shares with it."""

from __future__ import annotations

import json
import signal
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from vmaptune.cli import options

if TYPE_CHECKING:
    from vmaptune.cohorts import Cohort
    from vmaptune.result import Result

_STARTED = time.perf_counter()


@click.command("run")
@options.config_argument
@click.option(
    "--data",
    type=click.Path(),
    help="Data of your own in place of CONFIG: a table (.csv, .tsv, .parquet), a folder of images, a .txt or an .npz. The "
    "config is inferred, and what was inferred is said.",
)
@click.option("--target", metavar="COLUMN", help="With --data: the column of a table to predict.")
@options.set_option
@click.option(
    "--sink",
    "sinks",
    multiple=True,
    metavar="NAME",
    help="Also write results to tensorboard, mlflow, wandb, csv, parquet, or FILE.py:CLASS of your own; "
    "settings: [sinks.NAME] in the config. May be repeated.",
)
@click.option("--out", type=click.Path(file_okay=False), help="The run folder; default: a new one below runs/.")
@options.seed_option
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run in --out, or the newest unfinished run of this config below runs/; if there is none, begin one.",
)
@options.distributed_option
@options.quiet_option
@options.json_option
def command(
    config: str | None,
    data: str | None,
    target: str | None,
    assignments: tuple[str, ...],
    sinks: tuple[str, ...],
    out: str | None,
    seed: int | None,
    resume: bool,
    distributed: bool | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train and evolve a population.

    CONFIG is a TOML file (`vmaptune init` writes one); without it, the embedded default: 64 small networks on handwritten
    digits. A run can be stopped at any moment and resumed. Choices on a static setting, such as
    optimizer.name = { choices = ["sgd", "adamw"] }, open cohorts: a run for each, of which the better go on.

    \b
    vmaptune run
    vmaptune run my.toml --out runs/first --seed 1
    vmaptune run --data my.csv --target price
    vmaptune run my.toml --sink tensorboard --sink mlflow
    vmaptune run --set search.method=random --set population.size=128 --json
    """
    execute(
        config,
        (*assignments, *(f"sinks.{json.dumps(name)}={{}}" for name in sinks)),
        data=data,
        target=target,
        out=out,
        seed=seed,
        resume=resume,
        distributed=distributed,
        quiet=quiet,
        as_json=as_json,
    )


def execute(
    config: str | None,
    assignments: tuple[str, ...] = (),
    *,
    data: str | None = None,
    target: str | None = None,
    out: str | None,
    seed: int | None = None,
    resume: bool,
    distributed: bool | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Runs or resumes, shows progress, prints the result, and exits as a shell expects."""
    with Signals() as signals:
        begun = time.perf_counter()
        from vmaptune.cli.cohorts import run_cohorts
        from vmaptune.cli.progress import Progress
        from vmaptune.config import resolve
        from vmaptune.distributed import alone, is_main, start, together
        from vmaptune.loop import tune
        from vmaptune.plan import prepare_backend
        from vmaptune.store.folder import find_run

        start(distributed)
        prepare_backend()
        imported = time.perf_counter() - begun
        source = f"--data {data}" if data else str(config or "default config")
        tree, cohorts, said = together(lambda: _loaded(config, assignments, seed, data, target))
        if not quiet and is_main():
            click.echo("".join(f"{sentence}\n" for sentence in said), err=True, nl=False)
        if len(cohorts) > 1:
            run_cohorts(tree, source, signals, out=out, resume=resume, quiet=quiet, as_json=as_json)
            return
        resolved, task = together(lambda: resolve(cohorts[0].tree, source=source))
        loaded = time.perf_counter() - begun - imported
        if resume and out is None and (found := find_run("runs", resolved.run_id)):
            out = str(found.path)
        if alone():  # several processes agree on it after their first dispatch
            signals.stop_if_caught()
        steps = resolved.population.segment_steps + resolved.lookahead.steps
        shown = Progress(resolved.total_generations, steps, task.metric, task.direction)
        sinks = [] if quiet or not is_main() else [shown]
        result = tune(resolved, task=task, out=out, resume=resume, sinks=sinks, should_stop=signals.caught)
        seconds = {"import": imported, "data": loaded, **result.seconds, "total": time.perf_counter() - _STARTED}
        if "first_step" in seconds:
            seconds["first_step"] += begun - _STARTED + imported + loaded  # from the start of the process
        facts = result.as_json() | {"seconds": {name: round(value, 3) for name, value in seconds.items()}}
        if is_main():
            _print_result(result, facts, as_json)
            if data and not quiet:
                click.echo(f"The config is in {result.run}/config.toml; edit it and go on with: vmaptune run CONFIG", err=True)
        if result.status == "interrupted":
            if is_main():
                click.echo(f"Stopped after a whole generation. Go on with: vmaptune resume {result.run}", err=True)
            signals.number = signals.number or signal.SIGTERM  # another process was told to stop, and so all have
            signals.stop_if_caught()


def _loaded(
    config: str | None, assignments: tuple[str, ...], seed: int | None, data: str | None, target: str | None
) -> tuple[dict[str, Any], list[Cohort], list[str]]:
    """The config, the cohorts that it opens, and what was inferred if it is one for data of the user's."""
    from vmaptune.cohorts import cohorts_of, load_cohorts
    from vmaptune.errors import ConfigError

    if data is None:
        if target is not None:
            raise ConfigError(f"--target: means nothing without --data; given: {target!r}")
        return *load_cohorts(config, assignments, seed=seed), []
    if config is not None:
        raise ConfigError(f"--data: infers a config, so none can be given; given: {config} and {data}")
    from vmaptune.suggest import suggested

    tree, said = suggested(data, target or "", assignments)
    tree = tree | ({} if seed is None else {"seed": seed})
    return tree, cohorts_of(tree), said


class Signals:
    """While entered, SIGINT and SIGTERM ask the run to stop after its generation; a second SIGINT stops it at once."""

    number: int | None = None

    def __enter__(self) -> Signals:
        self._previous = {number: signal.signal(number, self._catch) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if kind is KeyboardInterrupt:
            click.echo("Stopped at once; what was checkpointed is kept.", err=True)
            raise SystemExit(128 + signal.SIGINT)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        click.echo(f"\n{signal.Signals(number).name}: finishing this generation ...", err=True)

    def caught(self) -> bool:
        """True once a signal has come."""
        return self.number is not None

    def stop_if_caught(self) -> None:
        """Exits as a process does that the signal ended."""
        if self.number is not None:
            raise SystemExit(128 + self.number)


def _print_result(result: Result, facts: dict[str, Any], as_json: bool) -> None:
    from vmaptune.cli.output import print_json, print_table, show

    if as_json:
        print_json(facts)
        return
    best, size = facts["best"], result.config.population
    rows: list[tuple[str, Any]] = [
        ("best member", f"trial {best['trial']}, after generation {best['generation'] + 1}, {best['step']} steps")
    ]
    rows += [(name, value) for name, value in best["hyperparameters"].items()]
    if spread := best["replicates"]:
        rows.append(("replicates", f"{spread['n']}, fitness {spread['mean']:.4g} (sd {spread['std'] or 0:.2g})"))
        rows.append(("tied with", f"{spread['tied']} of {spread['settings']} other settings"))
    rows += [(f"validation {name}", value) for name, value in best["validation"].items()]
    rows += [(f"test {name}", value) for name, value in (facts["test"] or {}).items()]
    seconds = facts["seconds"]
    ahead = result.config.lookahead.steps
    trials = f"{int(result.history['trial'].max()) + 1} trials in {size.size} slots"
    layout = f"{trials}, {facts['generations']} generations of {size.segment_steps}{f' + {ahead}' if ahead else ''} steps"
    rows.append(("trained", f"{facts['member_steps']:,} member-steps ({layout})"))
    rows.append(("seconds", ", ".join(f"{name} {show(value)}" for name, value in seconds.items())))
    rows.append(("run folder", facts["run"]))
    print_table(f"{result.status}: {facts['run']}", ("", ""), [(name, show(value)) for name, value in rows])
