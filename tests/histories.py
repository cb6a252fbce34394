"""Histories whose truth is known: run folders made up of arrays, without any training."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np

from vmaptune.store.history import History
from vmaptune.store.record import Record


def axis_tree(axes):
    """A config tree with an axis at each dotted name."""
    tree: dict = {}
    for name, table in axes.items():
        *rooms, last = name.split(".")
        at = tree
        for room in rooms:
            at = at.setdefault(room, {})
        at[last] = table
    return tree


def write_run(
    folder,
    metrics,
    *,
    axes=None,
    values=None,
    parents=None,
    failed=None,
    metric="loss",
    direction="min",
    config=None,
    result=None,
    status="finished",
    steps=2,
    planned=None,
):
    """Writes a run folder.

    Args:
        folder: Where.
        metrics: f[G, N] by the name of each column, such as `validation.loss`.
        axes: The TOML table of each axis by dotted name.
        values: f[G, N] by axis.
        parents: i[G, N], the slot that each slot's next member is copied from (own: it stays; -1: born anew).
        failed: bool[G, N], who has diverged.
        metric: What members are judged by.
        direction: "max" or "min".
        config: More of the config tree.
        result: Of the run.
        status: How it ended.
        steps: Of a generation.
        planned: Generations.
    """
    axes, values = axes or {}, values or {}
    generations, n = next(iter(metrics.values())).shape
    planned = planned or generations
    population = {"size": n, "segment_steps": steps, "generations": planned}
    tree = {"task": {"name": "made-up"}, "search": {"method": "truncation"}, "fitness": {}, **axis_tree(axes), **(config or {})}
    facts = {"id": "made-up", "seed": 0, "metric": metric, "direction": direction, **population}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text('task.name = "made-up"\n')
    environment = {"vmaptune": "0.1.0", "device": "cpu"}
    History.create(
        folder / "history.db",
        facts | {"config": {**tree, "population": population}, "environment": environment},
        [*metrics, *axes],
    )
    sign = 1.0 if direction == "max" else -1.0
    trial, step, fresh = np.arange(n, dtype=np.int32), np.zeros(n, np.int32), n
    with closing(History(folder / "history.db")) as history:
        for g in range(generations):
            step = step + steps
            bad = np.zeros(n, bool) if failed is None else np.asarray(failed[g])
            fitness = np.where(bad, np.nan, sign * metrics[f"validation.{metric}"][g]).astype(np.float32)
            parent = (
                np.arange(n, dtype=np.int32) if parents is None or g == generations - 1 else np.asarray(parents[g], np.int32)
            )
            moved = parent != np.arange(n)
            following = trial.copy()
            following[moved] = fresh + np.arange(moved.sum(), dtype=np.int32)
            measured = {name: np.asarray(column[g], np.float32) for name, column in metrics.items()}
            genes = {name: np.asarray(values[name][g], np.float32) for name in axes}
            history.write(
                Record(g, trial, step, bad.astype(np.int32), fitness, measured, genes, parent, following, {"train": 0.5})
            )
            step = np.where(moved, np.where(parent >= 0, step[parent], 0), step).astype(np.int32)
            fresh += int(moved.sum())
            trial = following
        if status != "running":
            history.end(status, result)
    return folder
