"""The schedule that won, from the winner's files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmaptune.analysis.facts import RunFacts
from vmaptune.report.look import BEST, BLUE, blank, label, line, log_scale, small, wants_log
from vmaptune.store.folder import RunFolder

if TYPE_CHECKING:
    import plotly.graph_objects as go

_LEARNING_RATE = "optimizer.learning_rate"
_MOST_ROWS, _MOST_POINTS = 6, 2000


def read_schedule(facts: RunFacts) -> dict[str, np.ndarray]:
    """The columns of `best/schedule.csv`: f64[steps] each; none while there is no such file, or it cannot be read."""
    file = RunFolder(facts.path).best / "schedule.csv"
    try:
        with file.open(encoding="utf-8") as text:
            names = text.readline().strip().split(",")
            values = np.loadtxt(text, delimiter=",", ndmin=2)
        return dict(zip(names, values.T, strict=True))
    except (OSError, ValueError):
        return {}


def schedule(facts: RunFacts) -> go.Figure | None:
    """The learning rate at every step of the winner's lineage, and whatever else changed."""
    columns = read_schedule(facts)
    step, trial = columns.pop("step", np.zeros(0)), columns.pop("trial", np.zeros(0))
    moving = [n for n, c in columns.items() if n == _LEARNING_RATE or not np.array_equal(c, np.full_like(c, c[0]))]
    names = sorted(moving, key=lambda name: name != _LEARNING_RATE)[:_MOST_ROWS]
    if not names or not len(step):
        return None
    figure = blank(140 + 170 * len(names), rows=len(names), shared_xaxes=True, vertical_spacing=0.12 / len(names))
    copied = np.flatnonzero(np.diff(trial)) + 1
    kept = np.unique(
        np.concatenate([np.linspace(0, len(step) - 1, _MOST_POINTS).astype(int), copied, np.maximum(copied - 1, 0)])
    )
    for row, name in enumerate(names, 1):
        y = columns[name]
        figure.add_scatter(
            x=small(step[kept].astype(int)),
            y=small(y[kept]),
            line=line(BEST if name == _LEARNING_RATE else BLUE, shape="hv"),
            mode="lines",
            name=label(name),
            showlegend=False,
            row=row,
            col=1,
        )
        if name != _LEARNING_RATE and wants_log(y):
            figure.update_yaxes(**log_scale(y), row=row, col=1)
        figure.update_yaxes(title_text=label(name.rpartition(".")[2].replace("_", " ")), row=row, col=1)
    style = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "line": line("rgba(128, 136, 148, 0.5)", 1, dash="dot")}
    figure.update_layout(shapes=[style | {"x0": x, "x1": x} for x in step[copied].tolist()] if len(copied) <= 100 else [])
    figure.update_xaxes(title_text="step", row=len(names), col=1)
    return figure.update_layout(hovermode="x unified")
