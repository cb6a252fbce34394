"""Figures of studies, each one HTML page that is read offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from vmaptune.studies.comparison import Comparison
    from vmaptune.studies.lr_range import LearningRateRange
    from vmaptune.studies.schedules import ScheduleStudy


def families_figure(study: ScheduleStudy, curves: Mapping[str, Sequence[float]]) -> str:
    """Scores of families with their intervals, and the learning rate that the best of each follows.

    Args:
        study: What was found.
        curves: Learning rate at every step, by family.
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 2, subplot_titles=(f"validation {study.metric}, median over seeds", "learning rate"))
    families = study.families[::-1]
    scores = [f.score for f in families]
    figure.add_bar(
        x=[s.value for s in scores],
        y=[f.family for f in families],
        orientation="h",
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [s.high - s.value for s in scores],
            "arrayminus": [s.value - s.low for s in scores],
        },
        marker_color=["#2a7" if f.tied else "#99a" for f in families],
        showlegend=False,
        row=1,
        col=1,
    )
    for i, family in enumerate(study.families):
        figure.add_scatter(
            y=list(curves[family.family]), name=family.family, visible=True if i < 6 else "legendonly", row=1, col=2
        )
    figure.update_xaxes(title_text="green: not told from the best", row=1, col=1)
    figure.update_xaxes(title_text="step", row=1, col=2)
    return _page(figure, f"Schedule families: {study.trainings:,} trainings")


def range_figure(found: LearningRateRange) -> str:
    """Loss against learning rate, its spread over seeds, and the suggested axis; or a map, if two things were searched."""
    import plotly.graph_objects as go

    figure = go.Figure()
    if found.grid:
        figure.add_heatmap(
            x=[f"{rate:.3g}" for rate in found.rates],
            y=[f"{value:.3g}" for value in found.grid_values],
            z=np.where(np.isfinite(found.loss), found.loss, np.nan).tolist(),
            colorbar_title="loss",
        )
        figure.update_yaxes(title_text=found.grid)
    else:
        loss = found.loss[0]
        figure.add_scatter(
            x=found.rates, y=_gaps(loss), name=f"validation loss after {found.steps} steps", mode="lines+markers"
        )
        for name, bound in (("lowest seed", found.lowest), ("highest seed", found.highest)):
            figure.add_scatter(x=found.rates, y=_gaps(bound[0]), name=name, line={"dash": "dot", "width": 1})
        if found.ramp:
            rates, losses = zip(*found.ramp, strict=True)
            figure.add_scatter(x=rates, y=_gaps(np.array(losses)), name="training loss, one member ramped", line={"width": 1})
        if found.suggested:
            figure.add_vrect(x0=found.suggested[0], x1=found.suggested[1], fillcolor="#2a7", opacity=0.15, line_width=0)
        figure.update_xaxes(type="log")
        figure.update_yaxes(title_text="loss")
    figure.update_xaxes(title_text="learning rate")
    return _page(figure, "Learning-rate range test")


def comparison_figure(found: Comparison) -> str:
    """What each arm had by when, medians over seeds with their intervals, and where each of its runs ended on test."""
    from plotly.colors import hex_to_rgb, qualitative
    from plotly.subplots import make_subplots

    titles = (f"validation {found.metric} by member-steps", "by seconds of training", f"test {found.metric}, a point a run")
    figure = make_subplots(1, 3, subplot_titles=titles, column_widths=[0.4, 0.4, 0.2])
    for i, arm in enumerate(found.arms):
        colour = qualitative.Plotly[i % len(qualitative.Plotly)]
        for column, (grid, curve) in enumerate(((found.steps, arm.by_steps), (found.seconds, arm.by_seconds)), 1):
            shared = {"legendgroup": arm.name, "line_color": colour, "line_shape": "hv"}
            known = [(x, c) for x, c in zip(grid.tolist(), curve, strict=True) if np.isfinite(c).all()]
            place = {"row": 1, "col": column}
            x = [x for x, _ in known]
            figure.add_scatter(x=x, y=[c.value for _, c in known], name=arm.name, showlegend=column == 1, **shared, **place)
            fill = f"rgba{(*hex_to_rgb(colour), 0.15)}"
            band = {"line_width": 0, "showlegend": False, "hoverinfo": "skip", **shared, **place}
            figure.add_scatter(x=x, y=[c.low for _, c in known], mode="lines", **band)
            figure.add_scatter(x=x, y=[c.high for _, c in known], mode="lines", fill="tonexty", fillcolor=fill, **band)
        points = {"boxpoints": "all", "pointpos": 0, "jitter": 0.4, "marker_color": colour, "legendgroup": arm.name}
        figure.add_box(y=_gaps(arm.test), name=arm.name, showlegend=False, row=1, col=3, **points)
    figure.update_xaxes(title_text="member-steps", row=1, col=1)
    figure.update_xaxes(title_text="seconds", row=1, col=2)
    return _page(figure, f"{len(found.arms)} arms, {found.seeds} seeds: medians and their 95 % intervals")


def _gaps(values: np.ndarray) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def _page(figure: Any, title: str) -> str:
    figure.update_layout(title=title, template="plotly_white", height=620)
    return figure.to_html(include_plotlyjs=True, full_html=True)
