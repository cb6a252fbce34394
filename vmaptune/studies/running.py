"""What studies share: the config they begin with, a design trained as an ordinary run, and its scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.choices import Tree
from vmaptune.config import RunConfig, resolve
from vmaptune.errors import ConfigError
from vmaptune.loop import tune
from vmaptune.result import Result
from vmaptune.space import Axis, Space
from vmaptune.store.record import Sink
from vmaptune.tasks import Task
from vmaptune.toml import default_tree, override, read_toml

_SLOTS = 1024  # trained at once: enough to fill a device, and little enough memory
_CHECKPOINT_ROUNDS = 8

Listener = Callable[[str, RunConfig, Task], Sequence[Sink]]


class Trained(NamedTuple):
    """A design that was trained.

    Attributes:
        scores: f64[T] in the order of the design: lower is better, infinite where a trial diverged.
        result: The run.
    """

    scores: np.ndarray
    result: Result


def base_config(config: Mapping[str, Any] | str | Path | None, task: Task | None, assignments: Sequence[str] = ()) -> Tree:
    """The config that a study begins with: the user's, or the embedded one made small, for 300 steps and without dropout.

    Of the embedded one, a task of the user's own takes the optimizer and the number of steps.
    """
    if isinstance(config, Mapping):
        return override(dict(config), assignments)
    if config is not None:
        return override(read_toml(config), assignments)
    default = default_tree()
    tree: Tree = {"optimizer": default["optimizer"], "population": {"segment_steps": 300, "generations": 1}}
    if task is None:
        tree |= {"task": default["task"] | {"hidden": [64], "dropout": 0.0}, "batch": {"size": 64}}
    return override(tree, assignments)


def held(tree: Tree, searched: Sequence[str], task: Task | None) -> tuple[Tree, dict[str, float]]:
    """The tree with all axes but those searched held at their middle, and what they are held at, by dotted name."""
    config, _ = resolve(tree, task=task)
    middles = {name: _middle(axis) for name, axis in config.space.axes.items() if name not in searched}
    fixed = dict(tree)
    for name, value in middles.items():
        section, _, key = name.partition(".")
        if "." in key:
            raise ConfigError(f"{name}: is an axis; a study wants a number there")
        fixed[section] = dict(fixed[section]) | {key: value}
    return fixed, middles


def _middle(axis: Axis) -> float:
    return float(Space({"x": axis}).decode(jnp.array([0.5], jnp.float32))["x"])


def searched_axis(config: RunConfig, name: str) -> Axis:
    """An axis that a study cannot do without."""
    axis = config.space.axes.get(name)
    if axis is None or axis.choices:
        raise ConfigError(f"{name}: a study wants an axis here, such as {{ low = 1e-4, high = 1e-1, scale = 'log' }}")
    return axis


def train(
    tree: Tree,
    design: Mapping[str, Sequence[float]],
    *,
    task: Task | None,
    steps: int,
    score: str,
    out: Path,
    order: str,
    listen: Listener | None,
    stage: str,
    replicates: int,
    should_stop: Callable[[], bool],
) -> Trained | None:
    """Trains a design as an ordinary run of so many trials, or goes on with it; None if it was told to stop.

    Args:
        tree: Config; its population and search are set here.
        design: Columns by the name of each axis, a row a trial.
        task: The task, if it is no row of the config.
        steps: Of each trial.
        score: Validation metric, made so that lower is better.
        out: The run folder.
        order: Of the batches: "shared" or "independent".
        listen: Makes the sinks of a stage.
        stage: What the stage is called.
        replicates: Seeds that each row of the design is repeated with, one after another: the same for all.
        should_stop: Asked after every dispatch.
    """
    trials = len(next(iter(design.values())))
    rounds = math.ceil(trials / _SLOTS)
    devices = jax.device_count()
    size = devices * math.ceil(trials / rounds / devices)  # so that devices share the slots evenly
    design = {name: [*column, *[column[-1]] * (rounds * size - trials)] for name, column in design.items()}  # rounds are whole
    tree = tree | {
        "population": {"size": size, "segment_steps": steps, "generations": 1, "seeds": replicates},
        "search": {"method": "random", "trials": rounds * size},
        "batch": dict(tree.get("batch", {})) | {"order": order},
        "checkpoint": {"every": _CHECKPOINT_ROUNDS},
    }
    config, task = resolve(tree, task=task)
    sinks = listen(stage, config, task) if listen else ()
    result = tune(config, task=task, start=design, out=out, resume=True, sinks=sinks, should_stop=should_stop)
    return None if result.status == "interrupted" else Trained(scores_of(result, task, score)[:trials], result)


def scores_of(result: Result, task: Task, metric: str) -> np.ndarray:
    """f64[T]: a validation metric by trial, turned so that lower is better; infinite where a trial diverged."""
    history = result.history
    column = f"validation.{metric}"
    if column not in (history.dtype.names or ()):
        known = [name.partition(".")[2] for name in history.dtype.names or () if name.startswith("validation.")]
        raise ConfigError(f"score: no validation metric {metric!r}; known: {', '.join(known)}")
    sign = -1.0 if metric == task.metric and task.direction == "max" else 1.0
    last = history["step"] >= result.config.population.horizon
    scores = np.full(int(history["trial"].max()) + 1, np.inf)
    values = np.where(np.isfinite(history["fitness"]) & np.isfinite(history[column]), sign * history[column], np.inf)
    scores[history["trial"][last]] = values[last]
    return scores
