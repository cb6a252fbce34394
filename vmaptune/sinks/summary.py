"""A generation in a few numbers: what trackers draw a curve of."""

from __future__ import annotations

import numpy as np

from vmaptune.sinks.contract import RunInfo
from vmaptune.store.record import Record


def columns_of(record: Record, run: RunInfo) -> dict[str, np.ndarray]:
    """Fitness, metrics and searched hyperparameters of all slots, f32[N] by name, in the history's order."""
    metrics = {name: record.metrics[name] for name in run.metrics}
    return {"fitness": record.fitness} | metrics | {name: record.hyperparameters[name] for name in run.hyperparameters}


def sound(record: Record) -> np.ndarray:
    """bool[N]: slots that hold a member which is fit to be compared."""
    return np.asarray((record.trial >= 0) & ~record.failed)


def scalars(record: Record, run: RunInfo) -> dict[str, float]:
    """The curves of a run at one generation.

    Of fitness, each metric and each searched hyperparameter: `<name>/best` is the value of the fittest member, of several the
    one in the lowest slot; `/median`, `/q10` and `/q90` are quantiles over all sound members, linearly interpolated. A knob
    that only some members have is taken over those. `generation/...` counts members, the failed ones, and member-steps a
    second. What is not finite is left out.
    """
    trained, good = record.trial >= 0, sound(record)
    facts = {"generation/members": float(trained.sum()), "generation/failed": float(record.failed.sum())}
    if seconds := record.seconds.get("train"):
        facts["generation/member_steps_per_second"] = float(trained.sum()) * run.steps / seconds
    if not good.any():
        return facts
    fittest = int(np.argmax(np.where(good, record.fitness, -np.inf)))
    for name, column in columns_of(record, run).items():
        values = column[good & np.isfinite(column)].astype(np.float64)
        if np.isfinite(column[fittest]):
            facts[f"{name}/best"] = float(column[fittest])
        if len(values):
            low, median, high = np.quantile(values, [0.1, 0.5, 0.9])
            facts |= {f"{name}/median": float(median), f"{name}/q10": float(low), f"{name}/q90": float(high)}
    return facts


def spreads(record: Record, run: RunInfo) -> dict[str, np.ndarray]:
    """Fitness and each searched hyperparameter of the sound members, by name: what trackers draw a histogram of."""
    good, columns = sound(record), columns_of(record, run)
    found = {name: columns[name][good & np.isfinite(columns[name])] for name in ("fitness", *run.hyperparameters)}
    return {name: values for name, values in found.items() if len(values)}
