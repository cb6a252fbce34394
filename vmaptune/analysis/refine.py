"""From a coarse search to a finer one: axes narrowed around what was good, and widened where the best was cut off.

Each axis is judged by itself, on the scale on which it is searched: 0 at its low end, 1 at its high end. Its new range is
that of the best quarter of the trials, with a margin, and no narrower than a quarter of the old one; where the best trial
sits on an end, the axis goes on beyond it, as far as the setting may.
"""

from __future__ import annotations

import copy
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin

import numpy as np

from vmaptune.choices import MixedChoice, Tree
from vmaptune.config import FROM_PYTHON, RunConfig, resolve
from vmaptune.errors import ConfigError, warn
from vmaptune.optimizers import OPTIMIZERS
from vmaptune.recipe import schedule_prefix, settings_read
from vmaptune.schedules import SCHEDULES, bare
from vmaptune.schedules.mixture import FAMILY, warmup_settings
from vmaptune.settings import Setting, settings
from vmaptune.space import Axis
from vmaptune.store.folder import RunFolder
from vmaptune.store.reading import HistoryArray, read_history
from vmaptune.tasks import Task
from vmaptune.toml import read_toml, to_toml

_GOOD = 0.25  # share of the trials that are taken for good
_FEWEST = 4  # of them, and of trials to judge by
_MARGIN = 0.05  # of the old axis, at both ends
_NARROWEST = 0.25  # of the old axis
_AT_END = 0.02  # of the axis: so near to an end, the best is cut off by it
_DIGITS = 3  # of a new bound


class Change(NamedTuple):
    """One setting of the next config that differs, as TOML values."""

    name: str
    old: Any
    new: Any
    why: str


@dataclass(frozen=True)
class Refinement:
    """The next config.

    Attributes:
        run: The folder of the run that it comes from.
        config: The next config.
        task: Its task.
        changes: What is different, axes in the order of the space.
        trials: Different settings that were compared.
        good: How many of them the new axes are drawn around.
        step: Steps that all of them had been trained, at least.
    """

    run: Path
    config: RunConfig
    task: Task
    changes: list[Change]
    trials: int
    good: int
    step: int

    def as_toml(self) -> str:
        """A complete config that says at its top what was changed, and why."""
        lines = [f"Refined from {self.run}, by the best {self.good} of {self.trials} trials after {self.step} steps."]
        lines += [f"{c.name}: {shown(c.old)} -> {shown(c.new)} ({c.why})" for c in self.changes]
        lines += [] if self.changes else ["Nothing was changed: what is good is spread over all axes."]
        wrapped = [part for line in lines for part in textwrap.wrap(line, 110, subsequent_indent="  ")]
        return "".join(f"# {line}\n" for line in wrapped) + "\n" + to_toml(self.config, self.task)

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        counts = {"trials": self.trials, "good": self.good, "step": self.step}
        return {"run": str(self.run), **counts, "changes": [change._asdict() for change in self.changes]}


class Judged(NamedTuple):
    """Settings that were tried, best first.

    Attributes:
        values: f64[T] by the name of each axis; NaN where it does not matter to a trial.
        step: Steps that all had been trained, at least.
    """

    values: dict[str, np.ndarray]
    step: int

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))


def refine(run: str | Path, *, task: Task | None = None) -> Refinement:
    """Makes the next config from a run, finished or not.

    Trials are compared as they were when they ended: those that reached their horizon, or, if fewer than four did, those
    that came as far as the fourth-furthest. Replicates of the same settings count once, by their median. A choice is kept if
    it occurs among the good; of a coarse stage's data (`[data]`), all are taken. Warns of each axis that is widened.

    A member that population-based training copied has changed its settings on the way; its last ones are taken.

    Args:
        run: The run folder.
        task: The run's task, if it was passed from Python.

    Raises:
        ConfigError: Nothing was searched, or too few trials are sound.
        StoreError: It is no run folder.
    """
    folder = RunFolder(run).require_run()
    tree = read_toml(folder.config)
    if task is None and tree.get("task", {}).get("name") == FROM_PYTHON:
        raise ConfigError(f"{run}: its task was passed from Python; pass it here too: refine(run, task=...)")
    config, old_task = resolve(tree, task=task, source=str(folder.config))
    if not config.space.axes:
        raise ConfigError(f"{run}: nothing was searched, so there is nothing to refine; put an axis where a number stands")
    judged = judge(read_history(folder.history), list(config.space.axes), horizon=config.population.horizon)
    if len(judged) < _FEWEST:
        raise ConfigError(f"{run}: too few sound trials to refine by: expected {_FEWEST} or more; found: {len(judged)}")
    good = max(_FEWEST, math.ceil(_GOOD * len(judged)))
    new = copy.deepcopy(config.tree)
    changes: list[Change] = []
    mixtures: dict[str, MixedChoice] = {}
    for name, axis in config.space.axes.items():
        values = judged.values[name][:good]
        mixture = _mixture(config, name)
        if mixture is None:
            change = _axis_change(name, axis, values, _setting(name, config, old_task))
        else:
            change = _choice_change(name, list(mixture.names), [mixture.names[int(v)] for v in values])
        if change:
            changes.append(change)
            if mixture is None:
                _put(new, name, change.new)
            else:
                mixtures[name] = mixture
    for change in changes:
        if change.name in mixtures:  # last, because the tables of families may move
            _put_families(new, change.name, change.new, mixtures[change.name])
    for key, whole in (("fraction", 1.0), ("classes", [])):
        if (old := new.get("data", {}).get(key, whole)) != whole:
            changes.append(Change(f"data.{key}", old, whole, "all of the data, after a coarse stage with less"))
            new["data"][key] = whole
    refined, new_task = resolve(new, task=task)
    return Refinement(Path(run), refined, new_task, changes, len(judged), good, judged.step)


def judge(history: HistoryArray, axes: list[str], *, horizon: int) -> Judged:
    """The settings of a run that can be compared, best first.

    Args:
        history: Of the run.
        axes: Names of what was searched.
        horizon: Steps of a full trial.
    """
    filled = history[history["trial"] >= 0]
    newest = np.unique(filled["trial"][::-1], return_index=True)[1]  # each trial's last row, in the order of rows reversed
    last = filled[::-1][newest]
    sound = np.isfinite(last["fitness"])
    step = int(np.sort(last["step"][sound])[-_FEWEST:].min(initial=horizon))
    last = last[(last["step"] >= step) | ~sound]  # a failed replicate counts, however far it came
    score = np.where(np.isfinite(last["fitness"]), last["fitness"], -np.inf)
    table = np.stack([np.nan_to_num(last[name], nan=np.inf) for name in axes], axis=1)
    unique, group = np.unique(table, axis=0, return_inverse=True)
    fitness = np.array([np.median(score[group.ravel() == i]) for i in range(len(unique))])
    best_first = np.argsort(-fitness, kind="stable")[: np.isfinite(fitness).sum()]
    unique = np.where(np.isinf(unique), np.nan, unique)[best_first]
    return Judged({name: unique[:, d] for d, name in enumerate(axes)}, step)


def shown(value: Any) -> str:
    """An axis or a value as people write it in a sentence."""
    if isinstance(value, Mapping):
        return shown(value["choices"]) if "choices" in value else f"{value['low']:g} to {value['high']:g}"
    return f"{value:g}" if isinstance(value, float) else ", ".join(map(shown, value)) if isinstance(value, list) else str(value)


def _axis_change(name: str, axis: Axis, good: np.ndarray, setting: Setting) -> Change | None:
    """The axis around good values, best first, or None if it stays; warns if it is widened."""
    known = good[~np.isnan(good)]
    if len(known) < 2:
        return None
    if axis.choices:
        return _choice_change(name, list(axis.choices), [min(axis.choices, key=lambda c: abs(c - v)) for v in known])
    low, high = axis.low, axis.high
    new_low, new_high = bounds(axis, known, setting)
    if (new_low, new_high) == (low, high):
        return None
    new: Tree = axis.as_toml() | {"low": new_low, "high": new_high}
    ends = [end for end, beyond in (("low", new_low < low), ("high", new_high > high)) if beyond]
    for end in ends:
        given, wider = (low, new_low) if end == "low" else (high, new_high)
        warn(f"{name}: the best trial sits on the {end} end, {given:g}, so the axis goes on to {wider:g}")
    narrowed = new_low > low or new_high < high
    why = " and ".join([*(["narrowed around the best"] if narrowed else []), *(f"widened at its {end} end" for end in ends)])
    return Change(name, axis.as_toml(), new, why)


def bounds(axis: Axis, good: np.ndarray, setting: Setting) -> tuple[float, float]:
    """The next low and high of an interval.

    Args:
        axis: The interval as it was searched.
        good: f64[k], values on it, best first.
        setting: What stands there: its range is never left.
    """

    def scaled(value: Any) -> Any:
        return np.log(value) if axis.scale == "log" else np.asarray(value, np.float64)

    start, width = float(scaled(axis.low)), float(scaled(axis.high) - scaled(axis.low))
    place = np.clip((scaled(good) - start) / width, 0, 1)
    low, high = max(0.0, place.min() - _MARGIN), min(1.0, place.max() + _MARGIN)
    if high - low < _NARROWEST:
        low = float(np.clip((low + high - _NARROWEST) / 2, 0, 1 - _NARROWEST))
        high = low + _NARROWEST
    beyond = math.log(10) / width if axis.scale == "log" else 0.5
    low, high = (-beyond if place[0] <= _AT_END else low), (1 + beyond if place[0] >= 1 - _AT_END else high)

    def value(at: float) -> float:
        return math.exp(start + at * width) if axis.scale == "log" else start + at * width

    def end(at: float, old: float, sign: int) -> float:
        """A new end, rounded outwards; no further out than the old one, or, if it is to be, than the setting may be."""
        if at in (0.0, 1.0):
            return old
        wide = at < 0 or at > 1
        new = _rounded(value(at), sign, integer=axis.integer)
        if not wide:
            return min(new, old) if sign > 0 else max(new, old)
        limit, allowed = _limit(setting, sign, axis)
        if sign * new < sign * limit or (allowed and new == limit):
            return new
        return limit if allowed else old if axis.integer else (old + limit) / 2

    new = end(low, axis.low, -1), end(high, axis.high, 1)
    try:
        Axis(*new, axis.scale, axis.integer)
    except ConfigError:  # no room between its ends, or beyond what float32 can tell
        return axis.low, axis.high
    return new


def _rounded(value: float, sign: int, *, integer: bool) -> float:
    """Rounded outwards, to few digits or to a whole number."""
    if value == 0:
        return 0.0
    unit = 1.0 if integer else 10.0 ** (math.floor(math.log10(abs(value))) - _DIGITS + 1)
    steps = value / unit
    outwards = math.floor(steps) if sign < 0 else math.ceil(steps)
    whole = round(steps) if math.isclose(steps, round(steps), rel_tol=1e-6) else outwards  # float32
    return float(f"{whole * unit:.12g}")


def _limit(setting: Setting, sign: int, axis: Axis) -> tuple[float, bool]:
    """How far a setting may go downwards (sign -1) or upwards (1), and whether it may be just that."""
    metas = get_args(setting.annotation)[1:] if get_origin(setting.annotation) is Annotated else ()
    for key, allowed in (("le" if sign > 0 else "ge", True), ("lt" if sign > 0 else "gt", False)):
        for meta in metas:
            if (limit := getattr(meta, key, None)) is not None:
                zero = axis.scale == "log" and limit <= 0
                return float(limit), allowed and not zero
    return sign * math.inf, False


def _choice_change(name: str, choices: list[Any], good: list[Any]) -> Change | None:
    kept = [choice for choice in choices if choice in good]
    if len(kept) == len(choices):
        return None
    why = "only these" if len(kept) > 1 else "only this"
    old, new = (choices, kept if len(kept) > 1 else kept[0])
    if isinstance(choices[0], str):
        return Change(name, old, new, f"{why} occurred among the best")
    return Change(name, {"choices": old}, {"choices": new} if len(kept) > 1 else new, f"{why} occurred among the best")


def _mixture(config: RunConfig, name: str) -> MixedChoice | None:
    """The families that an axis chooses from; None if it is another axis."""
    for target, choice in config.schedules.items():
        if isinstance(choice, MixedChoice) and name == f"{schedule_prefix(target)}.{FAMILY}":
            return choice
    return None


def _setting(name: str, config: RunConfig, task: Task) -> Setting:
    """What an axis stands for."""
    known = settings_read(task, OPTIMIZERS[config.optimizer.name], config.parameter_groups)
    for target, choice in config.schedules.items():
        knobs = settings(SCHEDULES[choice.name]) if not isinstance(choice, MixedChoice) else warmup_settings()
        if isinstance(choice, MixedChoice):
            knobs = knobs | {f"{f}.{k}": s for f in choice.names for k, s in settings(bare(SCHEDULES[f])).items()}
        known |= {f"{schedule_prefix(target)}.{k}": s for k, s in knobs.items()}
    return known[name] if name in known else known[name.rpartition(".")[0]].number


def _put(tree: Tree, name: str, value: Any) -> None:
    """Sets a value at a dotted name, or in a list at a number."""
    *path, last = name.split(".")
    node: Any = tree
    for part in path:
        node = node[part]
    node[int(last) if isinstance(node, list) else last] = value


def _put_families(tree: Tree, name: str, value: list[str] | str, mixture: MixedChoice) -> None:
    """Leaves families out of a schedule; a single one stands by its name, with its own settings beside it."""
    node: Any = tree
    for part in name.split(".")[:-1]:
        node = node[part]
    own = node[value] if isinstance(value, str) else {}
    for family in mixture.names:
        if isinstance(value, str) or family not in value:
            del node[family]
    node |= {"name": value, **own}
