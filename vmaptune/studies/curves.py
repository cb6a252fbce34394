"""What a run had found by when: its champion's validation metric against member-steps and against seconds of training."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vmaptune.store.folder import RunFolder
from vmaptune.store.reading import HistoryArray, read_events, read_history, read_run


class Curve(NamedTuple):
    """One run as its folder tells it.

    Attributes:
        member_steps: f64[G], training steps of all members until the end of each generation, look-ahead included.
        seconds: f64[G], of training until then; compilation is not counted.
        best: f64[G], the champion's validation metric then; NaN while there is none.
        validation: The last champion's validation metric; NaN if there is none.
        test: Its test metric; NaN if the run failed.
        failed: True if all members of a generation were non-finite.
    """

    member_steps: np.ndarray
    seconds: np.ndarray
    best: np.ndarray
    validation: float
    test: float
    failed: bool


def read_curve(folder: RunFolder) -> Curve:
    """Reads a run that has ended."""
    run, history = read_run(folder), read_history(folder.history)
    config, metric = run["config"], run["metric"]
    generations, counts = np.unique(history["generation"][history["trial"] >= 0], return_counts=True)
    population, search = config["population"], config["search"]
    ahead = config.get("fitness", {}).get("lookahead", {}).get("steps", 0)
    events = {e["generation"]: e["detail"] for e in read_events(folder.history) if e["kind"] == "generation"}
    best = champions(
        history,
        metric,
        horizon=population["segment_steps"] * population["generations"],
        replicates=search.get("replicates", 1),
        aggregate=search.get("aggregate", "median"),
    )
    result: dict[str, Any] = run["result"] or {}
    chosen = (result.get("best") or {}).get("validation") or {}
    return Curve(
        member_steps=np.cumsum(counts) * float(population["segment_steps"] + ahead),
        seconds=np.cumsum([events[g]["seconds"]["train"] for g in generations.tolist()]),
        best=best,
        validation=float(chosen.get(metric, best[-1])),
        test=float((result.get("test") or {}).get(metric, np.nan)),
        failed=run["status"] == "failed",
    )


def champions(
    history: HistoryArray, metric: str, *, horizon: int, replicates: int = 1, aggregate: str = "median"
) -> np.ndarray:
    """The champion's validation metric after each generation: what one would have if the run were stopped there.

    A finished member is chosen before an unfinished one, as the run itself does (see `vmaptune.champion`); so the curve
    never gets worse, but for the moment at which the first one finishes. With look-ahead, it is the annealed copy that is
    judged and chosen. Of replicates, all together are judged, and the one nearest to what they are judged by is chosen.

    Args:
        history: Of a run.
        metric: Name of a validation metric.
        horizon: Steps at which a trial has finished.
        replicates: Members with the same settings, in neighbouring slots.
        aggregate: "median" or "mean": what they are judged by.

    Returns:
        f64[G]; NaN while there is none.
    """
    filled = history[history["trial"] >= 0]
    judged = "lookahead" if f"lookahead.{metric}" in (history.dtype.names or ()) else "validation"
    merit, tie = filled["fitness"], np.nan_to_num(filled[f"{judged}.loss"], nan=np.inf)
    if replicates > 1:
        each = np.where(np.isfinite(merit), merit, -np.inf).reshape(-1, replicates)
        merit = np.repeat(np.median(each, axis=1) if aggregate == "median" else each.mean(axis=1), replicates)
        tie = np.abs(filled["fitness"] - np.where(np.isfinite(merit), merit, 0.0))
    sound = np.flatnonzero(np.isfinite(filled["fitness"]) & np.isfinite(merit))
    rows = filled[sound]
    order = np.lexsort((rows["slot"], rows["generation"], tie[sound], -merit[sound], rows["step"] < horizon))
    place = np.full(len(filled), len(filled))
    place[sound[order]] = np.arange(len(order))
    generations, generation = np.unique(filled["generation"], return_inverse=True)
    first = np.full(len(generations), len(filled))
    np.minimum.at(first, generation, place)
    values = np.append(rows[f"{judged}.{metric}"][order], np.nan)
    return values[np.minimum(np.minimum.accumulate(first), len(order))]


def on_grid(at: np.ndarray, values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """A step function at the points of a grid: the last value until then, NaN before the first.

    Args:
        at: f64[G], ascending: where each value begins to hold.
        values: f64[G].
        grid: f64[P].
    """
    return np.append(np.nan, values)[np.searchsorted(at, grid, side="right")]
