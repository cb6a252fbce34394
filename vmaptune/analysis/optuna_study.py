"""A run as an Optuna study: its trials, for Optuna's own analysis, plots and dashboard."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vmaptune.analysis.axes import AxisFacts
from vmaptune.analysis.facts import RunFacts, read_facts
from vmaptune.errors import StoreError

if TYPE_CHECKING:
    import optuna


def study_of(path: str | Path, storage: Any = None, name: str | None = None) -> optuna.Study:
    """Makes an Optuna study of a run; also while it grows, as far as it is.

    A trial is what the history calls one: from its birth, fresh or as a copy of another, until it is replaced, stopped or
    done, with one set of hyperparameters. Its value is the validation metric that it had last. `replaced` and `stopped`
    trials are PRUNED, `diverged` ones FAIL, those that trained to the end COMPLETE, and those still training RUNNING.
    Intermediate values are the metric after each of its generations, by training steps; a copy goes on counting from its
    parent's. User attributes: trial, slot, cause, born, reason; parent, if it is a copy.

    Args:
        path: The run folder.
        storage: Where to: an Optuna storage or its URL, such as "sqlite:///study.db"; None: in memory.
        name: The study's; default: the run folder's.

    Raises:
        StoreError: It is no run folder, or the storage holds a study of that name or cannot be used.
    """
    import optuna
    from optuna.exceptions import DuplicatedStudyError, StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    facts = read_facts(path)
    name = name or facts.name
    direction = "maximize" if facts.run["direction"] == "max" else "minimize"
    with quiet():
        try:
            study = optuna.create_study(storage=storage, study_name=name, direction=direction)
        except DuplicatedStudyError:
            raise StoreError(f"{storage}: holds a study called {name!r} already; give another name") from None
        except (StorageInternalError, SQLAlchemyError, ValueError, OSError) as error:
            raise StoreError(f"{storage}: cannot be used as an Optuna storage: {error}") from None
        study.set_metric_names([f"{facts.judged} {facts.metric}"])
        study.set_user_attr("run", str(path))
        study.set_user_attr("vmaptune", facts.run["environment"].get("vmaptune"))
        if facts.test:
            study.set_user_attr("test", dict(facts.test))
        study.add_trials(trials_of(facts))
    return study


def trials_of(facts: RunFacts, chosen: Iterable[int] | None = None) -> list[optuna.trial.FrozenTrial]:
    """The trials of a run as Optuna has them, see `study_of`, by number.

    Args:
        facts: The run.
        chosen: Which: positions in `facts.trials`; default: all that have a record.
    """
    from optuna.trial import FrozenTrial, TrialState

    distributions = {name: distribution_of(axis) for name, axis in facts.axes.items()}
    columns = {name: facts.columns[name].tolist() for name in facts.axes}
    trial, steps, score = facts.columns["trial"], facts.columns["step"].tolist(), facts.score.tolist()
    order = np.argsort(trial, kind="stable")
    first, last = (np.searchsorted(trial[order], facts.trials["trial"], side=side) for side in ("left", "right"))
    times = _times(facts)
    known = {name: column.tolist() for name, column in facts.trials.items()}
    found: list[FrozenTrial] = []
    for i in range(len(first)) if chosen is None else chosen:
        rows = order[first[i] : last[i]].tolist()
        if not rows:
            continue
        row = rows[-1]
        value = score[row] if score[row] == score[row] else None
        state = TrialState[_state(known["reason"][i], sound=value is not None)]
        params = {n: _plain(axis, columns[n][row]) for n, axis in facts.axes.items() if columns[n][row] == columns[n][row]}
        attributes = {name: known[name][i] for name in ("trial", "slot", "cause", "born", "reason")}
        found.append(
            FrozenTrial(
                number=len(found),
                trial_id=-1,
                state=state,
                value=None if state in (TrialState.FAIL, TrialState.RUNNING) else value,
                datetime_start=times(known["born"][i] - 1),
                datetime_complete=None if state == TrialState.RUNNING else times(int(facts.generation[row])),
                params=params,
                distributions={name: distributions[name] for name in params},
                user_attrs=attributes | ({"parent": known["parent"][i]} if known["parent"][i] >= 0 else {}),
                system_attrs={},
                intermediate_values={steps[r]: score[r] for r in rows if score[r] == score[r]},
            )
        )
    return found


def distribution_of(axis: AxisFacts) -> Any:
    """What Optuna calls the axis: float or int, perhaps log; categorical for choices."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.choices:
        return CategoricalDistribution(axis.labels or axis.choices)
    if axis.integer:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna without its log lines and its remarks on what is experimental."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _state(reason: str, *, sound: bool) -> str:
    if reason == "diverged" or (reason and not sound):
        return "FAIL"
    return {"": "RUNNING", "completed": "COMPLETE", "finished": "COMPLETE"}.get(reason, "PRUNED")


def _plain(axis: AxisFacts, value: float) -> Any:
    """A value as the distribution has it: the history keeps float32 numbers."""
    if axis.choices:
        nearest = min(range(len(axis.choices)), key=lambda i: abs(axis.choices[i] - value))
        return (axis.labels or axis.choices)[nearest]
    value = min(max(value, axis.low), axis.high)
    return round(value) if axis.integer else value


def _times(facts: RunFacts) -> Any:
    """When a generation was over, as Optuna has times: local, without a zone. Before the first: when the run was made."""
    known = {e["generation"]: e["time"] for e in facts.events if e["kind"] == "generation"}

    def local(generation: int) -> datetime:
        text = known.get(generation, facts.run["created"])
        return datetime.fromisoformat(text).astimezone().replace(tzinfo=None)

    return {g: local(g) for g in (-1, *facts.generations.tolist())}.__getitem__
