"""The learning-rate range test, side by side: many learning rates trained for a short while, instead of one model ramped.

A ramp confounds a learning rate with all lower ones before it; a population asks each rate by itself, and several seeds of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vmaptune.choices import Tree
from vmaptune.config import resolve
from vmaptune.errors import ConfigError
from vmaptune.population import init_population
from vmaptune.recipe import LEARNING_RATE
from vmaptune.store.folder import RunFolder, new_folder, write_text
from vmaptune.studies.design import grid
from vmaptune.studies.running import Listener, base_config, held, searched_axis, train
from vmaptune.tasks import Task
from vmaptune.train import make_segment

_GAIN = 0.1  # of the whole gain: below it a learning rate is too small to be worth searching


@dataclass(frozen=True)
class LearningRateRange:
    """What `lr_range_test` found.

    Attributes:
        folder: The run folder.
        rates: f64[K], ascending.
        grid: The second hyperparameter, by dotted name; "" if there is none.
        grid_values: f64[M]; [nan] if there is none.
        loss: f64[M, K], median validation loss over seeds; infinite where most diverged.
        lowest: f64[M, K], of the luckiest seed.
        highest: f64[M, K], of the unluckiest.
        steps: Of each training.
        seeds: Trainings at each point.
        best: Learning rate (and value of the second hyperparameter) of the lowest loss.
        edge: The highest learning rate before training breaks: before the loss climbs half way back to that of the lowest
            rate, or is infinite. For the best value of the second hyperparameter.
        suggested: An axis worth searching: from where the loss has gained 10 % of all it can, up to the edge.
        ramp: Learning rate and training loss, step by step, of one member ramped, if asked for.
        held: What the config searches besides, and was held at.
        seconds: Wall time.
    """

    folder: Path
    rates: np.ndarray
    grid: str
    grid_values: np.ndarray
    loss: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    steps: int
    seeds: int
    best: tuple[float, float]
    edge: float
    suggested: tuple[float, float] | None
    ramp: list[tuple[float, float]]
    held: dict[str, float]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        arrays = {k: v.tolist() for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        return vars(self) | arrays | {"folder": str(self.folder), "seconds": round(self.seconds, 3)}


def lr_range_test(
    task: Task | None = None,
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    assignments: Sequence[str] = (),
    low: float = 1e-6,
    high: float = 10.0,
    points: int = 32,
    seeds: int = 3,
    steps: int = 100,
    grid_name: str = "",
    grid_points: int = 8,
    ramp: bool = False,
    out: str | Path | None = None,
    listen: Listener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> LearningRateRange | None:
    """Trains a population of learning rates for a short while, at a constant rate each.

    Args:
        task: A task of your own, in place of the config's.
        config: TOML file or tree; default: the embedded one. Other axes than the learning rate are held at their middle.
        assignments: `key=value`, as for `--set`.
        low: Lowest learning rate.
        high: Highest.
        points: K, spread evenly on a log scale, both ends included.
        seeds: Trainings at each.
        steps: Of each.
        grid_name: A second hyperparameter, an axis of the config, such as "weight_decay": a map of both.
        grid_points: Of its axis, both ends included.
        ramp: Also the classical test, for comparison: one member (median over seeds) whose rate rises from low to high.
        out: The run folder; default: a new one below `runs/`.
        listen: `(stage, config, task) -> sinks`.
        should_stop: Asked after every dispatch.

    Returns:
        What was found; None if it was asked to stop.

    Raises:
        ConfigError: What was asked for cannot mean anything.

    References:
        Smith, Cyclical Learning Rates for Training Neural Networks, https://arxiv.org/abs/1506.01186
    """
    begun = time.perf_counter()
    if min(points - 1, seeds, steps, grid_points) < 1 or not 0 < low < high:
        raise ConfigError(
            "lr-range: expected 0 < low < high, two points or more, and at least one seed, step and grid point; "
            f"given: low {low:g}, high {high:g}, points {points}, seeds {seeds}, steps {steps}, grid points {grid_points}"
        )
    tree = base_config(config, task, assignments)
    tree = _without_schedule(tree)
    tree["optimizer"] = dict(tree.get("optimizer", {})) | {"learning_rate": {"low": low, "high": high, "scale": "log"}}
    second = grid_name if "." in grid_name or not grid_name else f"optimizer.{grid_name}"
    tree, middles = held(tree, [LEARNING_RATE, second], task)
    probe, _ = resolve(tree, task=task)
    rates = grid(probe.space.axes[LEARNING_RATE], points)
    values = grid(searched_axis(probe, second), grid_points) if second else [np.nan]
    rows = [(rate, value) for value in values for rate in rates for _ in range(seeds)]
    design = {LEARNING_RATE: [rate for rate, _ in rows]} | ({second: [value for _, value in rows]} if second else {})
    folder = Path(out) if out is not None else new_folder("runs", "lr-range").path
    common: dict[str, Any] = {"task": task, "score": "loss", "order": "shared", "listen": listen, "should_stop": should_stop}
    trained = train(tree, design, steps=steps, out=folder, stage="range", replicates=seeds, **common)
    if trained is None:
        return None
    scores = trained.scores.reshape(len(values), len(rates), seeds)
    loss = np.median(scores, axis=2)
    row, column = np.unravel_index(int(np.argmin(loss)), loss.shape)
    edge = _edge(np.array(rates), loss[row])
    ramped = _ramp(tree, low, high, steps=steps, seeds=seeds, task=task) if ramp else []
    found = LearningRateRange(
        folder=folder,
        rates=np.array(rates),
        grid=second,
        grid_values=np.array(values),
        loss=loss,
        lowest=scores.min(axis=2),
        highest=scores.max(axis=2),
        steps=steps,
        seeds=seeds,
        best=(float(rates[column]), float(values[row])),
        edge=edge,
        suggested=_suggested(np.array(rates), loss[row], edge),
        ramp=ramped,
        held=middles,
        seconds=time.perf_counter() - begun,
    )
    _write(found)
    return found


def _without_schedule(tree: Tree) -> Tree:
    """The tree with a constant learning rate; schedules of other hyperparameters stay."""
    table = dict(tree.get("schedule", {}))
    kept = {k: v for k, v in table.items() if isinstance(v, Mapping) and "name" in v and k != "learning_rate"}
    return tree | {"schedule": {"name": "constant"} | kept}


def _edge(rates: np.ndarray, loss: np.ndarray) -> float:
    """The highest rate before the loss has climbed half way back to that of the lowest rate."""
    best = int(np.argmin(loss))
    limit = (loss[best] + loss[0]) / 2 if best > 0 else 2 * loss[best]
    broken = [i for i in range(best + 1, len(rates)) if not loss[i] < limit]
    return float(rates[broken[0] - 1] if broken else rates[-1])


def _suggested(rates: np.ndarray, loss: np.ndarray, edge: float) -> tuple[float, float] | None:
    best = int(np.argmin(loss))
    if not np.isfinite(loss[best]) or loss[best] >= loss[0]:
        return None  # nothing learned: there is nothing to suggest
    gained = (loss[0] - loss) / (loss[0] - loss[best])
    idle = [i for i in range(best) if not gained[i] >= _GAIN]
    return float(rates[idle[-1] + 1] if idle else rates[0]), edge


def _ramp(tree: Tree, low: float, high: float, *, steps: int, seeds: int, task: Task | None) -> list[tuple[float, float]]:
    """The classical test: a member's rate rises exponentially from low to high; the median of its training loss, by step."""
    ramped = tree | {
        "optimizer": dict(tree["optimizer"]) | {"learning_rate": low},
        "schedule": tree["schedule"] | {"name": "exponential", "end": high / low},
        "population": {"size": seeds, "segment_steps": 1, "generations": steps},
    }
    config, task = resolve(ramped, task=task)
    recipe = config.recipe(task)
    population = init_population(task, recipe.space, recipe.opened, size=seeds, seed=config.seed)
    segment = make_segment(
        task,
        recipe.space,
        recipe.optimizer,
        recipe.schedules,
        steps=1,
        horizon=steps,
        batch_size=config.batch.size,
        order="independent",
        seed=config.seed,
    )
    losses = []
    for step in range(steps):
        population, metrics = segment(population, step)
        losses.append(float(np.median(np.nan_to_num(metrics["loss"], nan=np.inf))))
    return [(low * (high / low) ** (step / steps), loss) for step, loss in enumerate(losses)]


def _write(found: LearningRateRange) -> None:
    from vmaptune.studies.figures import range_figure

    lines = ["learning_rate,grid,loss,lowest,highest"]
    for j, value in enumerate(found.grid_values):
        for i, rate in enumerate(found.rates):
            numbers = (rate, value, found.loss[j, i], found.lowest[j, i], found.highest[j, i])
            lines.append(",".join(repr(float(number)) for number in numbers))
    folder = RunFolder(found.folder)
    write_text(folder.path / "lr_range.csv", "\n".join(lines) + "\n")
    write_text(folder.path / "lr_range.html", range_figure(found))
