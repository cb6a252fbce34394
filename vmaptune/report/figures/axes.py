"""What the search did with its axes: paths, importance, slices, contours and parallel coordinates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from vmaptune.analysis.axes import AxisFacts
from vmaptune.analysis.facts import RunFacts
from vmaptune.analysis.importance import importance_of
from vmaptune.report.look import (
    BEST,
    BLUE,
    GREY,
    RAMP,
    add_scale,
    bin_of,
    blank,
    by_generation,
    label,
    line,
    log_scale,
    see_through,
    small,
    thinned,
    wants_log,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

_MOST_AXES = 8  # drawn; the first ones of the config
_SLICES_IN_A_ROW = 3


def paths(facts: RunFacts) -> go.Figure | None:
    """Every trial's value on every axis through the generations, and the winner's lineage."""
    axes = _drawn(facts)
    if not axes:
        return None
    figure = blank(90 + 210 * len(axes), rows=len(axes), shared_xaxes=True, vertical_spacing=0.16 / len(axes))
    for row, axis in enumerate(axes, 1):
        x, y, colour = trial_lines(facts, axis.name)
        for c in range(-1, len(RAMP)):
            mine = colour == c
            if mine.any():
                style = line(RAMP[c], 1) if c >= 0 else line(see_through(GREY, 0.6), 1, dash="dot")
                figure.add_scatter(
                    x=small(x[mine].astype(np.float32)),
                    y=small(y[mine]),
                    mode="lines",
                    line=style,
                    opacity=(0.55 if len(facts.trials["trial"]) < 300 else 0.25) + 0.07 * (c + 1),
                    hoverinfo="skip",
                    showlegend=False,
                    row=row,
                    col=1,
                )
        figure.add_scatter(
            x=small(facts.generation[facts.lineage] + 1),
            y=small(facts.columns[axis.name][facts.lineage]),
            customdata=small(facts.columns["trial"][facts.lineage]),
            mode="lines" if len(facts.lineage) > 1 else "markers",
            line=line(BEST, 3),
            name="the winner's lineage",
            hovertemplate="generation %{x}, trial %{customdata}: %{y:.4g}<extra></extra>",
            showlegend=row == 1,
            row=row,
            col=1,
        )
        figure.update_yaxes(title_text=label(axis.short), **_scale(axis), row=row, col=1)
    add_scale(figure, row=1, col=1)
    figure.update_xaxes(**by_generation(len(facts.generations)), row=len(axes), col=1)
    return figure.update_layout(hovermode="closest")


def trial_lines(facts: RunFacts, axis: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lines of all trials: generations from 1, values, and the number of the colour; NaN between two lines.

    A line holds the ends of a trial and where its value changed, and begins at the value of the trial it was copied from.
    """
    trial, generation, value = facts.columns["trial"], facts.generation, facts.columns[axis]
    numbers, parent, born = (facts.trials[name] for name in ("trial", "parent", "born"))
    order = np.lexsort((generation, trial))
    t, g, v = trial[order], generation[order], value[order]
    new = np.diff(t, prepend=-1) != 0
    old = np.append(new[1:], True)
    moved = np.diff(v, prepend=np.nan) != 0
    kept = new | old | moved | np.append(moved[1:], True)
    width = int(generation.max()) + 2
    copies = np.flatnonzero(parent >= 0)
    key = t * width + g
    wanted = parent[copies] * width + born[copies] - 1
    at = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    copies, at = copies[key[at] == wanted], at[key[at] == wanted]
    ends = np.flatnonzero(old)
    whose = np.concatenate([numbers[copies], t[kept], t[ends]])
    when = np.concatenate([born[copies] - 1, g[kept], g[ends]]).astype(float)
    what = np.concatenate([v[at], v[kept], np.full(len(ends), np.nan)])
    part = np.concatenate([np.zeros(len(copies)), np.ones(kept.sum()), np.full(len(ends), 2)])
    line_order = np.lexsort((when, part, whose))
    colour = bin_of(facts.quality)[np.searchsorted(numbers, whose[line_order])]
    return when[line_order] + 1, what[line_order], colour


def importance(facts: RunFacts) -> go.Figure | None:
    """Bars of the axes' shares."""
    found = importance_of(facts)
    if not found.shares:
        return None
    names, shares = list(found.shares)[::-1], list(found.shares.values())[::-1]
    figure = blank(140 + 34 * len(names))
    figure.add_bar(
        x=shares,
        y=[label(name) for name in names],
        orientation="h",
        marker_color=BLUE,
        text=[f"{share:.0%}" for share in shares],
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
    )
    used = f"{found.trials:,} trials" if found.trials == found.of else f"{found.trials:,} of {found.of:,} trials"
    figure.update_xaxes(
        title_text=f"share of the explained variance<br>({found.method}, {used})", tickformat=".0%", rangemode="tozero"
    )
    return figure.update_yaxes(ticks="", showgrid=False)


def observations(facts: RunFacts) -> np.ndarray:
    """i64, the row of each sound trial's last sound record, the best first."""
    rows = facts.last_row[facts.last_row >= 0]
    rows = rows[np.isfinite(facts.score[rows])]
    return rows[np.argsort(-facts.score[rows] * facts.sign, kind="stable")]


def slices(facts: RunFacts) -> go.Figure | None:
    """Score against each axis, a dot a trial, coloured by how far it came."""
    axes, rows = _drawn(facts), observations(facts)
    if not axes or not len(rows):
        return None
    shown = thinned(rows)[::-1]  # the best on top
    columns = min(_SLICES_IN_A_ROW, len(axes))
    height = math.ceil(len(axes) / columns)
    figure = blank(
        90 + 250 * height,
        rows=height,
        columns=columns,
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=0.3 / height,
    )
    score = facts.score
    for i, axis in enumerate(axes):
        place = {"row": i // columns + 1, "col": i % columns + 1}
        figure.add_scatter(
            x=small(facts.columns[axis.name][shown]),
            y=small(score[shown]),
            customdata=small(facts.columns["trial"][shown]),
            mode="markers",
            marker={
                "size": 5,
                "opacity": 0.7,
                "color": small(facts.columns["step"][shown]),
                "colorscale": list(zip(np.linspace(0, 1, len(RAMP)).tolist(), RAMP, strict=True)),
                "showscale": i == 0,
                "colorbar": {"title": {"text": "steps", "side": "right"}, "thickness": 10, "outlinewidth": 0},
            },
            hovertemplate="trial %{customdata}<br>%{x:.4g}: %{y:.4g}<extra></extra>",
            showlegend=False,
            **place,
        )
        if facts.best is not None and facts.best[axis.name] is not None:
            figure.add_vline(x=facts.best[axis.name], line_color=BEST, line_width=1.5, line_dash="dot", **place)
        figure.update_xaxes(title_text=label(axis.short), **_scale(axis), **place)
    if wants_log(score[rows]):
        figure.update_yaxes(**log_scale(score[rows]))
    figure.update_yaxes(title_text=label(f"{facts.judged} {facts.metric}"), col=1)
    return figure.update_layout(title=_sample(len(shown), len(rows)))


def contours(facts: RunFacts) -> go.Figure | None:
    """Smoothed rank of the scores over the two most important axes."""
    shares = importance_of(facts).shares
    if not shares or len(shares) < 2:
        return None
    one, two = (facts.axes[name] for name in list(shares)[:2])
    rows = observations(facts)
    quality = facts.quality[np.searchsorted(facts.trials["trial"], facts.columns["trial"][rows])]
    points = [axis.unit(facts.columns[axis.name][rows]) for axis in (one, two)]
    grid = np.linspace(0, 1, 41)
    near = [np.exp(-0.5 * ((grid[:, None] - p) / 0.05) ** 2) for p in points]  # f64[41, trials] each
    weight = near[1] @ near[0].T
    smooth = (near[1] * quality) @ near[0].T / np.maximum(weight, 1e-12)
    smooth[weight < 0.3] = np.nan
    low, high = np.nanmin(smooth), np.nanmax(smooth)
    figure = blank(460)
    figure.add_contour(
        x=_undone(one, grid),
        y=_undone(two, grid),
        z=small(smooth),
        colorscale=list(zip(np.linspace(0, 1, len(RAMP)).tolist(), RAMP, strict=True)),
        contours={"coloring": "fill", "start": low, "end": high, "size": max((high - low) / 10, 1e-6)},
        line={"width": 0.5, "color": "rgba(255, 255, 255, 0.5)"},
        opacity=0.85,
        colorbar={"thickness": 10, "outlinewidth": 0, "tickvals": [low, high], "ticktext": ["worse", "better"]},
        hoverinfo="skip",
    )
    shown = thinned(rows, 600)
    figure.add_scatter(
        x=small(facts.columns[one.name][shown]),
        y=small(facts.columns[two.name][shown]),
        customdata=small(facts.score[shown]),
        mode="markers",
        marker={"size": 3, "color": "rgba(128, 136, 148, 0.7)"},
        hovertemplate="%{x:.4g}, %{y:.4g}: %{customdata:.4g}<extra></extra>",
        showlegend=False,
    )
    if facts.best is not None:
        figure.add_scatter(
            x=[facts.best[one.name]],
            y=[facts.best[two.name]],
            mode="markers",
            marker={"size": 13, "symbol": "star", "color": BEST, "line": {"color": "white", "width": 1}},
            name="the winner",
            hoverinfo="skip",
        )
    figure.update_xaxes(title_text=label(one.short), **_scale(one))
    return figure.update_yaxes(title_text=label(two.short), **_scale(two))


_GROUPS = (
    ("the best 5 %", 0.05, BEST, 0.75),
    ("to 25 %", 0.25, RAMP[4], 0.6),
    ("to 50 %", 0.5, RAMP[2], 0.4),
    ("the rest", 1.0, GREY, 0.25),
)


def parallel(facts: RunFacts) -> go.Figure | None:
    """A line a trial across its settings to its score, in groups by score."""
    axes, rows = _drawn(facts), observations(facts)
    if not axes or not len(rows):
        return None
    place = np.arange(len(rows)) / len(rows)
    chosen = thinned(np.arange(len(rows)), 500)
    score = facts.score[rows]
    log = wants_log(score)
    low, high = (
        float(np.quantile(score, 0.02 if facts.sign > 0 else 0.0)),
        float(np.quantile(score, 1.0 if facts.sign > 0 else 0.98)),
    )
    scale = AxisFacts(f"{facts.judged}.{facts.metric}", low, high if high > low else low + 1.0, log)
    heights = [np.clip(axis.unit(facts.columns[axis.name][rows]), 0, 1) for axis in axes]
    level = np.clip(scale.unit(score), 0, 1)
    heights.append(level if facts.sign > 0 else 1 - level)
    table = np.array([h[chosen] for h in heights])
    figure = blank(440)
    for name, until, colour, share in reversed(_GROUPS):
        before = max([0.0, *(u for _, u, *_ in _GROUPS if u < until)])
        mine = (place[chosen] >= before) & (place[chosen] < until)
        if mine.any():
            lines = np.vstack([table[:, mine], np.full(mine.sum(), np.nan)]).T.ravel()
            x = np.tile(np.append(np.arange(len(heights)), np.nan), mine.sum())
            style = line(see_through(colour, share), 1.5 if share > 0.5 else 1)
            figure.add_scatter(x=small(x), y=small(lines), mode="lines", line=style, name=name, hoverinfo="skip")
    for i, axis in enumerate([*axes, scale]):
        figure.add_shape(type="line", x0=i, x1=i, y0=0, y1=1, line={"color": "rgba(128, 136, 148, 0.9)", "width": 1})
        at, text = _ticks(axis)
        at = 1 - at if axis is scale and facts.sign < 0 else at
        figure.add_scatter(
            x=np.full(len(at), i),
            y=small(at),
            mode="text",
            text=[f" {label(word)}" for word in text],
            textposition="middle right" if i < len(axes) else "middle left",
            textfont={"size": 11},
            showlegend=False,
            hoverinfo="skip",
            cliponaxis=False,
        )
    names = [label(axis.short) for axis in axes] + [label(f"{facts.judged} {facts.metric}")]
    figure.update_xaxes(
        tickvals=list(range(len(names))),
        ticktext=names,
        showgrid=False,
        showline=False,
        ticks="",
        range=[-0.1, len(names) - 0.75],
    )
    figure.update_yaxes(visible=False, range=[-0.04, 1.04])
    return figure.update_layout(title=_sample(len(chosen), len(rows)), legend={"traceorder": "reversed"})


def _drawn(facts: RunFacts) -> list[AxisFacts]:
    """The axes that figures show: those that have a value, the learning rate and the weight decay first."""
    first = ("optimizer.learning_rate", "optimizer.weight_decay")
    known = [axis for name, axis in facts.axes.items() if np.isfinite(facts.columns[name]).any()]
    return sorted(known, key=lambda axis: first.index(axis.name) if axis.name in first else len(first))[:_MOST_AXES]


def _scale(axis: AxisFacts) -> dict[str, object]:
    if axis.labels:
        return {"tickvals": list(axis.choices), "ticktext": [label(name) for name in axis.labels]}
    return log_scale(np.array([axis.low, axis.high])) if axis.log else {}


def _undone(axis: AxisFacts, unit: np.ndarray) -> np.ndarray:
    """The values at places from 0 to 1 of an axis."""
    return axis.low * (axis.high / axis.low) ** unit if axis.log else axis.low + (axis.high - axis.low) * unit


def _ticks(axis: AxisFacts) -> tuple[np.ndarray, list[str]]:
    """Places from 0 to 1, and the values there as text."""
    if axis.choices:
        return np.linspace(0, 1, len(axis.choices)), list(axis.labels) or [f"{c:.4g}" for c in sorted(axis.choices)]
    if axis.log and axis.high >= 10 * axis.low:
        powers = np.arange(math.ceil(math.log10(axis.low) - 1e-9), math.floor(math.log10(axis.high) + 1e-9) + 1)
        values = 10.0 ** powers[:: max(1, len(powers) // 6)]
    else:
        values = _undone(axis, np.linspace(0, 1, 5))
    return axis.unit(values), [f"{value:.3g}" for value in values]


def _sample(shown: int, there: int) -> dict[str, object] | None:
    """Says that not all trials are drawn."""
    if shown == there:
        return None
    text = f"{shown:,} of {there:,} trials: the best, and an even sample of the others"
    return {"text": text, "font": {"size": 12}, "x": 1, "xanchor": "right", "xref": "paper"}
