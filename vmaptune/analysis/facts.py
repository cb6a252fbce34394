"""All that the history of a run tells, as arrays: what the report, the dashboard and the verdicts are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vmaptune.analysis.axes import METRIC_ROOMS, AxisFacts, axes_of
from vmaptune.analysis.runs import best_record, judgement
from vmaptune.store.folder import RunFolder
from vmaptune.store.history import connect
from vmaptune.store.reading import read_run, test_reads


@dataclass(frozen=True, eq=False)
class RunFacts:
    """A run as it stands.

    Rows are records: one a member and generation, by generation and slot. Trials are in the order of their numbers.

    Attributes:
        path: The run folder.
        run: The row of the `run` table, decoded: status, created, metric, direction, size, config, environment, result, ...
        columns: R numbers by the name of each column; NaN where there is none. Whole-number columns are i64.
        trials: T values a column of the `trial` table: trial, slot, parent, born, ended (-1: none), cause, reason ("": none).
        axes: The searched axes by name.
        events: Every event, its details decoded.
        best: The record of the member that the run chose, or would choose now; None if there is no sound one.
        lineage: i64[L], the rows of the generations that trained the best member's weights, the first one first.
        test_reads: Every look at the test split, see `vmaptune.store.reading.test_reads`.
    """

    path: Path
    run: Mapping[str, Any]
    columns: Mapping[str, np.ndarray]
    trials: Mapping[str, np.ndarray]
    axes: Mapping[str, AxisFacts]
    events: list[dict[str, Any]]
    best: Mapping[str, Any] | None
    lineage: np.ndarray
    test_reads: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """What the run is called: its folder."""
        return self.path.resolve().name

    @property
    def config(self) -> Mapping[str, Any]:
        """The whole config, every default filled in."""
        return self.run["config"]

    @property
    def metric(self) -> str:
        """What members are judged by."""
        return str(self.run["metric"])

    @property
    def sign(self) -> float:
        """1.0 if more of the metric is better, else -1.0: metric = sign x fitness, but for replicates."""
        return 1.0 if self.run["direction"] == "max" else -1.0

    @property
    def judged(self) -> str:
        """What the columns begin with that members are judged by: "validation", or "lookahead"."""
        return judgement(dict(self.run))

    @property
    def score(self) -> np.ndarray:
        """f64[R], the metric that members are judged by, in its own units; NaN for failed members."""
        return np.where(np.isfinite(self.fitness), self.columns[f"{self.judged}.{self.metric}"], np.nan)

    @property
    def fitness(self) -> np.ndarray:
        """f64[R], higher is better; NaN for failed members."""
        return self.columns["fitness"]

    @property
    def generation(self) -> np.ndarray:
        """i64[R], from 0."""
        return self.columns["generation"]

    @cached_property
    def generations(self) -> np.ndarray:
        """i64[G], the generations on record, ascending."""
        return np.unique(self.generation)

    @property
    def planned(self) -> int:
        """Generations that there were, or will be at most."""
        return int(self.run["generation"]) + 1 if self.run["status"] == "finished" else int(self.run["generations"])

    @property
    def segment_steps(self) -> int:
        """Steps of a member in a generation, look-ahead included."""
        ahead = self.config.get("fitness", {}).get("lookahead", {}).get("steps", 0)
        return int(self.run["segment_steps"]) + int(ahead)

    @property
    def horizon(self) -> int:
        """Steps of a full trial."""
        return int(self.config["population"]["segment_steps"]) * int(self.config["population"]["generations"])

    @property
    def metrics(self) -> dict[str, list[str]]:
        """Names of the metrics by room: train, validation, lookahead."""
        rooms: dict[str, list[str]] = {}
        for column in self.columns:
            room, dot, name = column.partition(".")
            if dot and room in METRIC_ROOMS:
                rooms.setdefault(room, []).append(name)
        return rooms

    @property
    def test(self) -> Mapping[str, float] | None:
        """Test metrics of the winner; None until they were read."""
        return (self.run["result"] or {}).get("test")

    @cached_property
    def last_row(self) -> np.ndarray:
        """i64[T], the row of each trial's last record that is sound, else of its last one; -1: it has none."""
        found = np.full(len(self.trials["trial"]), -1)
        for rows in (np.arange(len(self.fitness)), np.flatnonzero(np.isfinite(self.fitness))):
            found[np.searchsorted(self.trials["trial"], self.columns["trial"][rows])] = rows  # the later one stays
        return found

    @cached_property
    def rank(self) -> np.ndarray:
        """f64[R], the share of its generation's members that each one beats: 1 the best, 0 the worst; NaN if it failed."""
        rank = np.full(len(self.fitness), np.nan)
        for rows in self.by_generation():
            sound = rows[np.isfinite(self.fitness[rows])]
            order = np.sort(self.fitness[sound])
            rank[sound] = np.searchsorted(order, self.fitness[sound], side="left") / max(len(sound) - 1, 1)
        return np.minimum(rank, 1.0)

    @cached_property
    def quality(self) -> np.ndarray:
        """f64[T], how good each trial was: 1 the best, 0 the worst; NaN if it has no sound record.

        Where members are copied, a trial is judged by its mean rank among its contemporaries: its score owes much to the
        weights it began with, and the last thing that happens to most trials is to rank low and be replaced. Elsewhere it
        is the rank of its last score among those of all trials.
        """
        quality = np.full(len(self.last_row), np.nan)
        sound = np.flatnonzero(np.isfinite(self.fitness))
        whose = np.searchsorted(self.trials["trial"], self.columns["trial"][sound])
        there = np.unique(whose)
        if (self.trials["parent"] >= 0).any():
            count = np.bincount(whose, minlength=len(quality))
            quality[there] = (np.bincount(whose, self.rank[sound], minlength=len(quality)) / np.maximum(count, 1))[there]
            return quality
        last = self.fitness[self.last_row[there]]
        quality[there] = np.searchsorted(np.sort(last), last) / max(len(last) - 1, 1)
        return quality

    def by_generation(self) -> list[np.ndarray]:
        """The rows of each generation on record."""
        starts = np.searchsorted(self.generation, self.generations)
        return np.split(np.arange(len(self.generation)), starts[1:])


def read_facts(path: str | Path) -> RunFacts:
    """Reads a run, also while it grows: what is returned is the history at one moment.

    Raises:
        StoreError: It is no run folder, or its history cannot be read.
    """
    folder = RunFolder(path)
    run = read_run(folder)
    best = best_record(folder, run)
    with closing(connect(folder.history)) as db:
        db.execute("BEGIN")  # one moment for all that is read below
        types = {row["name"]: row["type"] for row in db.execute("PRAGMA table_info(record)")}
        db.row_factory = None
        newest = (run["generation"],)
        rows = db.execute("SELECT * FROM record WHERE generation <= ? ORDER BY generation, slot", newest).fetchall()
        born = db.execute("SELECT * FROM trial WHERE born <= ? ORDER BY trial", newest)
        names, born_rows = [column[0] for column in born.description], born.fetchall()
        told = db.execute("SELECT time, generation, kind, detail FROM event ORDER BY id").fetchall()
    table = np.array(rows, np.float64).reshape(len(rows), len(types)).T  # NULL becomes NaN
    columns = {n: c.astype(np.int64) if t == "INTEGER" else c for (n, t), c in zip(types.items(), table, strict=True)}
    parts = zip(*born_rows, strict=True) if born_rows else [()] * len(names)
    trials = {name: _column(values, text=name in ("cause", "reason")) for name, values in zip(names, parts, strict=True)}
    events = [{"time": t, "generation": g, "kind": kind, "detail": json.loads(detail)} for t, g, kind, detail in told]
    if best is not None and best["generation"] > run["generation"]:
        best = None  # it was found after the row of the run was read
    lineage = _lineage(columns, trials, best) if best else np.zeros(0, np.int64)
    axes = axes_of(run["config"], columns)
    return RunFacts(folder.path, run, columns, trials, axes, events, best, lineage, test_reads(folder.history))


def _column(values: tuple[Any, ...], *, text: bool) -> np.ndarray:
    """Texts with "" for none, or whole numbers with -1 for none."""
    if text:
        return np.array([value or "" for value in values], np.str_)
    return np.array([-1 if value is None else value for value in values], np.int64)


def _lineage(columns: Mapping[str, np.ndarray], trials: Mapping[str, np.ndarray], best: Mapping[str, Any]) -> np.ndarray:
    """Rows that trained the best member's weights, as `vmaptune.store.reading.read_lineage` has them."""
    trial, generation = columns["trial"], columns["generation"]
    order = np.lexsort((generation, trial))
    sorted_ = trial[order]
    found: list[np.ndarray] = []
    current, last = int(best["trial"]), int(best["generation"])
    while current >= 0:
        mine = order[np.searchsorted(sorted_, current) : np.searchsorted(sorted_, current, side="right")]
        found.append(mine[generation[mine] <= last])
        at = int(np.searchsorted(trials["trial"], current))
        current, last = int(trials["parent"][at]), int(trials["born"][at]) - 1
    return np.concatenate(found[::-1])
