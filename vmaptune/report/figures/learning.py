"""How well members did: score by generation, and the learning curves of the winner's lineage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmaptune.analysis.facts import RunFacts
from vmaptune.report.look import (
    AMBER,
    BEST,
    BLUE,
    GREY,
    blank,
    by_generation,
    label,
    line,
    log_scale,
    see_through,
    small,
    wants_log,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go


def progress(facts: RunFacts) -> go.Figure:
    """Best, median, and the middle four fifths of the members' scores by generation, and how many diverged."""
    score = facts.score * facts.sign
    rows = facts.by_generation()
    sound = [score[r][np.isfinite(score[r])] for r in rows]
    empty = np.full(4, np.nan)
    found = np.array([np.quantile(s, (1.0, 0.9, 0.5, 0.1)) if len(s) else empty for s in sound]).T * facts.sign
    best, high, median, low = map(small, found)
    x = small(facts.generations + 1)
    failed = np.array([np.sum(~np.isfinite(score[r])) for r in rows])
    any_failed = bool(failed.any())
    figure = blank(
        400 if any_failed else 360,
        rows=1 + any_failed,
        shared_xaxes=True,
        row_heights=[0.78, 0.22] if any_failed else [1.0],
        vertical_spacing=0.06,
    )
    band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "row": 1, "col": 1}
    figure.add_scatter(x=x, y=low, showlegend=False, **band)
    figure.add_scatter(x=x, y=high, fill="tonexty", fillcolor=see_through(BLUE, 0.18), name="10 to 90 % of members", **band)
    mode = "lines" if len(x) > 1 else "markers"
    figure.add_scatter(x=x, y=median, name="median", mode=mode, line=line(BLUE), row=1, col=1)
    figure.add_scatter(x=x, y=best, name="best of the generation", mode=mode, line=line(BEST, 2.5), row=1, col=1)
    figure.update_yaxes(title_text=label(f"{facts.judged} {facts.metric}"), row=1, col=1)
    if wants_log(np.concatenate([np.abs(found[0]), np.abs(found[3])]) if (found[:2] > 0).any() else found[0]):
        figure.update_yaxes(**log_scale(np.abs(found)), row=1, col=1)
    elif len(x) >= 8:  # the first generations are far off: they may leave the picture, but for the best
        late = found[:, len(x) // 4 :]
        ends = [np.nanmin([*late.ravel(), *found[0]]), np.nanmax([*late.ravel(), *found[0]])]
        figure.update_yaxes(range=[ends[0] - 0.05 * np.ptp(ends), ends[1] + 0.05 * np.ptp(ends)], row=1, col=1)
    if any_failed:
        figure.add_bar(x=x, y=small(failed), name="diverged", marker_color=AMBER, row=2, col=1)
        figure.update_yaxes(title_text="diverged", nticks=3, row=2, col=1)
    figure.update_xaxes(**by_generation(len(x)), row=1 + any_failed, col=1)
    return figure.update_layout(hovermode="x unified")


def curves(facts: RunFacts) -> go.Figure | None:
    """Train and validation values of the winner's lineage by step: the loss, and what members are judged by."""
    rows = facts.lineage
    if not len(rows):
        return None
    shared = [name for name in facts.metrics.get("validation", []) if name in ("loss", facts.metric)]
    names = sorted(shared, key=lambda name: name != facts.metric)
    figure = blank(360, columns=len(names), horizontal_spacing=0.1)
    steps = small(facts.columns["step"][rows])
    copied = np.flatnonzero(np.diff(facts.columns["trial"][rows])) + 1
    rooms = (("train", BLUE, "dash"), ("validation", BEST, "solid"), ("lookahead", AMBER, "dot"))
    for column, name in enumerate(names, 1):
        seen = []
        for room, colour, dash in rooms:
            if (full := f"{room}.{name}") not in facts.columns:
                continue
            y = facts.columns[full][rows]
            seen.append(y)
            style = {"line": line(colour, dash=dash), "mode": "lines" if len(rows) > 1 else "markers", "name": room}
            figure.add_scatter(x=steps, y=small(y), legendgroup=room, showlegend=column == 1, **style, row=1, col=column)
        if len(copied):
            figure.add_scatter(
                x=steps[copied],
                y=small(facts.columns[f"validation.{name}"][rows][copied]),
                mode="markers",
                marker={"color": BEST, "size": 6, "line": {"color": GREY, "width": 1}},
                name="copied",
                legendgroup="copied",
                showlegend=column == 1,
                row=1,
                col=column,
            )
        if all(wants_log(y) or y.min() > 0 for y in seen) and any(wants_log(y) for y in seen):
            figure.update_yaxes(**log_scale(np.concatenate(seen)), row=1, col=column)
        figure.update_yaxes(title_text=label(name), row=1, col=column)
        figure.update_xaxes(title_text="step", row=1, col=column)
    return figure.update_layout(hovermode="x unified")
