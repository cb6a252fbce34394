"""How fast the run was, and where its time went."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from vmaptune.analysis.facts import RunFacts
from vmaptune.report.look import BLUE, COLOURS, blank, by_generation, label, line, small

if TYPE_CHECKING:
    import plotly.graph_objects as go

_PARTS = ("import", "data", "compile", "plan", "train", "propose", "store")


def speeds(facts: RunFacts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Generations; seconds of training in each; and member-steps that were trained in it: f64[G] each."""
    told = [(e["generation"], e["detail"]) for e in facts.events if e["kind"] == "generation"]
    generations = np.array([g for g, _ in told], float)
    seconds = np.array([float(detail["seconds"].get("train", np.nan)) for _, detail in told])
    return generations, seconds, np.array([float(detail["members"]) for _, detail in told]) * facts.segment_steps


def spent(facts: RunFacts) -> dict[str, float]:
    """Seconds by part, largest parts of the whole: as the run noted them, else training and all the rest."""
    noted = (facts.run["result"] or {}).get("seconds")
    if noted:
        parts = {name: float(noted[name]) for name in _PARTS if noted.get(name)}
        return parts | {"other": max(float(noted.get("total", 0.0)) - sum(parts.values()), 0.0)}
    train = float(np.nansum(speeds(facts)[1]))
    resumed = sum(event["kind"] == "resumed" for event in facts.events)
    if resumed or not facts.run["ended"] or not train:
        return {"train": train}  # how long it lay still in between is not known
    wall = (datetime.fromisoformat(facts.run["ended"]) - datetime.fromisoformat(facts.run["created"])).total_seconds()
    return {"train": train, "compile, store and the rest": max(wall - train, 0.0)}


def speed(facts: RunFacts) -> go.Figure | None:
    """Member-steps a second by generation, and seconds by part."""
    generations, seconds, steps = speeds(facts)
    if not len(generations) or not np.nansum(seconds):
        return None
    figure = blank(360, rows=2, row_heights=[0.8, 0.2], vertical_spacing=0.28)
    rate = steps / np.maximum(seconds, 1e-9)
    mode = "lines" if len(rate) > 1 else "markers"
    x = small((generations + 1).astype(int))
    figure.add_scatter(
        x=x, y=small(rate), mode=mode, line=line(BLUE, shape="hvh"), name="member-steps/s", showlegend=False, row=1, col=1
    )
    figure.update_yaxes(title_text="member-steps/s", rangemode="tozero", row=1, col=1)
    figure.update_xaxes(**by_generation(len(rate)), row=1, col=1)
    for i, (part, value) in enumerate(spent(facts).items()):
        figure.add_bar(
            x=[value], y=[""], orientation="h", name=label(part), marker_color=COLOURS[i % len(COLOURS)], row=2, col=1
        )
    figure.update_xaxes(title_text="seconds", row=2, col=1)
    figure.update_yaxes(showline=False, ticks="", row=2, col=1)
    return figure.update_layout(barmode="stack")
