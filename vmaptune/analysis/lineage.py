"""Who descends from whom: the genealogy of a run, from its history alone. Reads the store; never imports jax."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vmaptune.analysis.runs import best_record
from vmaptune.errors import StoreError
from vmaptune.store.folder import RunFolder, write_text
from vmaptune.store.history import connect
from vmaptune.store.reading import read_history, read_lineage, read_run

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
OTHERS = "."


@dataclass(frozen=True)
class Genealogy:
    """A run's trials and their descent.

    Attributes:
        run: The run folder.
        metric: What members are selected by.
        parents: The trial that each trial was copied from; None: born with fresh weights.
        trial: i64[G, N], the trial in each slot and generation; -1 where the slot is empty.
        fitness: f64[G, N], higher is better; NaN for failed members and empty slots.
        ancestors: The winner's ancestors, the founder first, each with what it went through.
    """

    run: Path
    metric: str
    parents: Mapping[int, int | None]
    trial: np.ndarray
    fitness: np.ndarray
    ancestors: list[dict[str, Any]]

    @property
    def founder(self) -> np.ndarray:
        """i64[G, N], the trial born with fresh weights that each member descends from; -1 where the slot is empty."""
        return with_founders(self.trial, founders(self.parents))

    def alive(self) -> list[dict[int, int]]:
        """How many descendants each founder has in each generation, the most numerous first."""
        return [dict(Counter(row[row >= 0].tolist()).most_common()) for row in self.founder]

    def copies(self) -> list[tuple[int, int, int]]:
        """(generation, slot of the parent, slot of the copy): hand-overs from a generation to the next."""
        found = []
        for g in range(1, len(self.trial)):
            before = {int(t): s for s, t in enumerate(self.trial[g - 1]) if t >= 0}
            for s, t in enumerate(self.trial[g].tolist()):
                if t >= 0 and t not in before and (parent := self.parents[t]) in before:
                    found.append((g - 1, before[parent], s))
        return found

    def as_json(self) -> dict[str, Any]:
        """The winner's ancestors, and each founder's living descendants by generation."""
        generations = [
            {"generation": g, "members": sum(counts.values()), "founders": {str(k): v for k, v in counts.items()}}
            for g, counts in enumerate(self.alive())
        ]
        return {"run": str(self.run), "metric": self.metric, "ancestors": self.ancestors, "generations": generations}


def winner_of(folder: RunFolder, run: Mapping[str, Any]) -> tuple[int, int] | None:
    """Trial and generation of the best member."""
    best = best_record(folder, dict(run))
    return (int(best["trial"]), int(best["generation"])) if best else None


def founders(parents: Mapping[int, int | None]) -> dict[int, int]:
    """The founder of each trial: itself if it was born with fresh weights, else its parent's.

    Args:
        parents: By trial; a parent's number is lower than its children's.
    """
    found: dict[int, int] = {}
    for trial in sorted(parents):
        parent = parents[trial]
        found[trial] = trial if parent is None else found[parent]
    return found


def with_founders(trial: np.ndarray, founder: Mapping[int, int]) -> np.ndarray:
    """Trials replaced by their founders; -1 stays."""
    table = np.full(max(founder, default=0) + 2, -1, np.int64)  # its last entry is that of -1
    table[list(founder)] = list(founder.values())
    return table[trial]


def read_genealogy(path: str | Path) -> Genealogy:
    """Reads a run's genealogy; also while it grows.

    Raises:
        StoreError: It is no run folder, or has no sound member yet.
    """
    folder = RunFolder(path)
    run = read_run(folder)
    best = winner_of(folder, run)
    if best is None:
        raise StoreError(f"{path}: no sound member yet, so there is no lineage to draw")
    history = read_history(folder.history)
    history = history[history["generation"] <= run["generation"]]  # it may have grown meanwhile
    with closing(connect(folder.history)) as db:
        rows = db.execute("SELECT trial, parent, cause, born FROM trial ORDER BY trial").fetchall()
    parents = {row["trial"]: row["parent"] for row in rows}
    shape = (run["generation"] + 1, max(int(history["slot"].max()) + 1, run["size"]))
    trial, fitness = np.full(shape, -1, np.int64), np.full(shape, np.nan)
    at = (history["generation"], history["slot"])
    trial[at], fitness[at] = history["trial"], history["fitness"]
    causes = {row["trial"]: (row["cause"], row["parent"]) for row in rows}
    return Genealogy(folder.path, run["metric"], parents, trial, fitness, _ancestors(folder, run, best, causes))


def _ancestors(
    folder: RunFolder, run: Mapping[str, Any], best: tuple[int, int], causes: Mapping[int, tuple[str, int | None]]
) -> list[dict[str, Any]]:
    """One entry a trial of the winner's lineage."""
    found: list[dict[str, Any]] = []
    for a in read_lineage(folder.history, *best):
        metric = next(name for name in (f"lookahead.{run['metric']}", f"validation.{run['metric']}") if name in a.values)
        if not found or found[-1]["trial"] != a.trial:
            cause, parent = causes[a.trial]
            settings = {k: v for k, v in a.values.items() if k.partition(".")[0] not in ("train", "validation", "lookahead")}
            entry = {"trial": a.trial, "parent": parent, "cause": cause, "first_generation": a.generation}
            found.append(entry | {"first_score": a.values[metric], "hyperparameters": settings, "path": []})
        found[-1] |= {"last_generation": a.generation, "last_score": a.values[metric]}
        found[-1]["path"].append([a.generation, a.slot])
    return found


def bars(genealogy: Genealogy, *, width: int = 64, rows: int = 20) -> tuple[list[tuple[int, int, str]], dict[str, int]]:
    """The generations as bars of letters, each letter a founder's share of the living: a Muller plot in text.

    Args:
        genealogy: What is drawn.
        width: Letters a bar; a smaller population has one a member.
        rows: Generations to draw, evenly spread, the first and the last among them.

    Returns:
        (generation, founders alive, bar) a row, and the founder that each letter stands for: A is the winner's, then by their
        number of descendants over all generations; all others are dots.

    References:
        Muller, Some genetic aspects of sex, The American Naturalist 66, 1932
    """
    alive = genealogy.alive()
    width = min(width, genealogy.trial.shape[1])
    totals = sum((Counter(counts) for counts in alive), Counter[int]())
    mine = genealogy.ancestors[0]["trial"]
    lasting = [f for f, _ in totals.most_common() if f != mine]
    letters = dict(zip([mine, *lasting], _LETTERS, strict=False))
    order = [*letters, *(f for f in lasting if f not in letters)]
    chosen = sorted(set(np.linspace(0, len(alive) - 1, min(rows, len(alive))).round().astype(int).tolist()))
    drawn = []
    for g in chosen:
        bounds = np.cumsum([alive[g].get(f, 0) for f in order])
        owners = np.searchsorted(bounds, (np.arange(width) + 0.5) * bounds[-1] / width) if bounds[-1] else []
        drawn.append((g, len(alive[g]), "".join(letters.get(order[i], OTHERS) for i in owners)))
    used = {letter for _, _, bar in drawn for letter in bar}
    return drawn, {letter: f for f, letter in letters.items() if letter in used}


def write_figure(genealogy: Genealogy) -> Path:
    """Writes `lineage.html` into the run folder, readable offline: slots by generations, and who was copied where.

    Raises:
        StoreError: The folder cannot be written.
    """
    file = RunFolder(genealogy.run).path / "lineage.html"
    write_text(file, lineage_figure(genealogy).to_html(include_plotlyjs=True, full_html=True))
    return file


def lineage_figure(genealogy: Genealogy) -> Any:
    """A plotly figure: slots by generations, coloured by fitness; a thin line a copy, a bold one the winner's lineage."""
    import plotly.graph_objects as go

    fitness, trial = genealogy.fitness, genealogy.trial
    sound = fitness[np.isfinite(fitness)]
    low = float(np.quantile(sound, 0.05)) if len(sound) else 0.0  # one that is about to diverge would take all colours
    generations = list(range(1, len(trial) + 1))
    figure = go.Figure()
    figure.add_heatmap(
        x=generations,
        z=[[float(x) if np.isfinite(x) else None for x in row] for row in fitness.T],
        zmin=low,
        customdata=np.dstack([trial.T, genealogy.founder.T]).tolist(),
        hovertemplate="generation %{x}, slot %{y}<br>trial %{customdata[0]}, of %{customdata[1]}<br>%{z:.4g}<extra></extra>",
        colorscale="Viridis",
        colorbar={"title": f"fitness<br>({genealogy.metric})"},
    )
    copies = genealogy.copies()
    figure.add_scatter(
        x=_line([(g + 1, g + 2) for g, _, _ in copies]),
        y=_line([(parent, child) for _, parent, child in copies]),
        mode="lines",
        line={"width": 1, "color": "rgba(255, 255, 255, 0.6)"},
        hoverinfo="skip",
        name="copies",
    )
    path = [place for ancestor in genealogy.ancestors for place in ancestor["path"]]
    figure.add_scatter(
        x=[g + 1 for g, _ in path],
        y=[slot for _, slot in path],
        mode="lines+markers",
        line={"width": 4, "color": "#e22"},
        name="the winner's lineage",
    )
    figure.update_xaxes(title_text="generation")
    figure.update_yaxes(title_text="slot")
    layout = {"title": f"Lineage of {genealogy.run.name}", "template": "plotly_white", "height": 620}
    return figure.update_layout(**layout, legend={"orientation": "h", "y": 1.06})


def _line(pairs: Sequence[tuple[int, int]]) -> list[int | None]:
    """Pieces of a line with gaps between them."""
    return [end for a, b in pairs for end in (a, b, None)]
