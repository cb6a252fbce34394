"""Runs as their folders tell them. Reads the store; never imports jax."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from vmaptune.errors import StoreError
from vmaptune.store.folder import RunFolder, find_runs
from vmaptune.store.history import connect
from vmaptune.store.reading import read_generation, read_lineage, read_run


def list_runs(root: str | Path) -> list[dict[str, Any]]:
    """One line a run below a folder, oldest first: how far it is, and its best validation metric so far.

    Raises:
        StoreError: There is no such folder.
    """
    if not Path(root).is_dir():
        raise StoreError(f"{root}: no such folder; `vmaptune run` makes one")
    return [_line(folder) for folder in find_runs(root)]


def _line(folder: RunFolder) -> dict[str, Any]:
    try:
        run = read_run(folder)
    except StoreError as error:
        return {"run": str(folder.path), "status": "unreadable", "problem": str(error)}
    best = best_record(folder, run)
    return {
        "run": str(folder.path),
        "status": run["status"],
        "task": run["config"]["task"]["name"],
        "created": run["created"],
        "generation": run["generation"] + 1,
        "generations": _planned(run),
        "population": run["size"],
        "metric": run["metric"],
        "validation": best and best[f"{judgement(run)}.{run['metric']}"],
        "test": ((run["result"] or {}).get("test") or {}).get(run["metric"]),
    }


def best_record(folder: RunFolder, run: dict[str, Any]) -> dict[str, Any] | None:
    """The record of the member that a finished run chose; of a running one, of the best so far.

    That is: finished before unfinished, then fitness, then the lower loss. Replicates are judged together only by the run.
    """
    population, chosen = run["config"]["population"], (run["result"] or {}).get("best")
    horizon = population["segment_steps"] * population["generations"]
    loss = f'"{judgement(run)}.loss"'
    with closing(connect(folder.history)) as db:
        if chosen and run["status"] == "finished":
            where, values = "trial = ? AND generation = ?", (chosen["trial"], chosen["generation"])
            return dict(db.execute(f"SELECT * FROM record WHERE {where}", values).fetchone())
        order = f"step >= ? DESC, fitness DESC, {loss} IS NULL, {loss}, generation ASC, slot ASC"
        row = db.execute(f"SELECT * FROM record WHERE fitness IS NOT NULL ORDER BY {order} LIMIT 1", (horizon,)).fetchone()
    return dict(row) if row else None


def judgement(run: dict[str, Any]) -> str:
    """What the columns begin with that members are judged by."""
    return "lookahead" if run["config"].get("fitness", {}).get("lookahead", {}).get("steps") else "validation"


def describe_run(path: str | Path) -> dict[str, Any]:
    """All that `vmaptune show` tells: the run, its best member and that member's lineage, its newest generation.

    Raises:
        StoreError: It is no run folder.
    """
    folder = RunFolder(path)
    run = read_run(folder)
    best = best_record(folder, run)
    lineage = read_lineage(folder.history, best["trial"], best["generation"]) if best else []
    return {
        "run": str(path),
        **{key: run[key] for key in ("id", "status", "created", "ended", "metric", "direction", "environment")},
        "generations": _planned(run),
        "generation": run["generation"],
        "population": run["size"],
        "best": best and _split(best),
        "test": (run["result"] or {}).get("test"),
        "lineage": [{"generation": a.generation, "trial": a.trial, "step": a.step, **_split(a.values)} for a in lineage],
        "members": [_split(row) for row in read_generation(folder.history, run["generation"])],
    }


def _planned(run: dict[str, Any]) -> int:
    """Generations that there were, or will be at most."""
    return int(run["generation"]) + 1 if run["status"] == "finished" else int(run["generations"])


def _split(row: dict[str, Any]) -> dict[str, Any]:
    """Sorts a record's columns: plain ones, then train, validation, look-ahead and hyperparameters each in a dict."""
    plain = {k: v for k, v in row.items() if "." not in k}
    parts: dict[str, dict[str, Any]] = {"train": {}, "validation": {}, "hyperparameters": {}}
    parts |= {"lookahead": {}} if any(name.startswith("lookahead.") for name in row) else {}
    for name, value in row.items():
        room, dot, rest = name.partition(".")
        if dot:
            parts[room if room in parts else "hyperparameters"][rest if room in parts else name] = value
    return plain | parts
