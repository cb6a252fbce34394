"""Who descends from whom: founders' shares of the population, and the family tree of those that are left."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from vmaptune.analysis.facts import RunFacts
from vmaptune.analysis.lineage import founders, with_founders
from vmaptune.report.look import BEST, COLOURS, GREY, blank, by_generation, line, see_through, small

if TYPE_CHECKING:
    import plotly.graph_objects as go

_NAMED = 6  # founders with a colour of their own


def lineage(facts: RunFacts) -> go.Figure | None:
    """Founders' shares by generation, and the family tree of the newest generation."""
    numbers, parents = facts.trials["trial"].tolist(), facts.trials["parent"].tolist()
    parent = {t: (p if p >= 0 else None) for t, p in zip(numbers, parents, strict=True)}
    if all(p is None for p in parent.values()):
        return None
    figure = blank(640, rows=2, shared_xaxes=True, row_heights=[0.32, 0.68], vertical_spacing=0.05)
    _add_shares(figure, facts, parent)
    _add_tree(figure, facts, parent)
    figure.update_yaxes(title_text="share", tickformat=".0%", range=[0, 1], row=1, col=1)
    figure.update_yaxes(title_text="members", showticklabels=False, ticks="", showgrid=False, row=2, col=1)
    newest = int(facts.generations[-1]) + 1
    figure.update_xaxes(range=[1 - newest / 100, newest + newest / 100])
    figure.update_xaxes(**by_generation(newest), row=2, col=1)
    return figure


def _add_shares(figure: go.Figure, facts: RunFacts, parent: dict[int, int | None]) -> None:
    """A Muller plot: the winner's founder below, then the founders with the most descendants over all."""
    owner = with_founders(facts.columns["trial"], founders(parent))
    mine = int(owner[facts.lineage[0]]) if len(facts.lineage) else -1
    most = [f for f, _ in Counter(owner.tolist()).most_common(_NAMED + 1) if f != mine][:_NAMED]
    named = [mine, *most] if mine >= 0 else most
    rows = facts.by_generation()
    shares = np.array([[np.mean(owner[r] == f) for f in named] for r in rows]).T
    shares = np.vstack([shares, 1 - shares.sum(axis=0)])
    palette = [c for c in COLOURS if c != GREY]
    colours = ([BEST] if mine >= 0 else []) + [palette[i % len(palette)] for i in range(len(most))] + [GREY]
    for i, (share, colour) in enumerate(zip(shares, colours, strict=True)):
        name = f"trial {named[i]}" if i < len(named) else "others"
        figure.add_scatter(
            x=small(facts.generations + 1),
            y=small(np.maximum(share, 0)),
            stackgroup="founders",
            mode="lines",
            line=line(colour, 0.5),
            fillcolor=see_through(colour, 0.75),
            name=f"{name}, the winner's founder" if i == 0 and mine >= 0 else name,
            showlegend=i == 0 or i == len(named),
            hovertemplate="%{y:.0%}",
            row=1,
            col=1,
        )


def _add_tree(figure: go.Figure, facts: RunFacts, parent: dict[int, int | None]) -> None:
    """The trials with a descendant in the newest generation; each as high as the middle of its descendants."""
    newest = int(facts.generations[-1])
    trials = {t: i for i, t in enumerate(facts.trials["trial"].tolist())}
    born = facts.trials["born"].tolist()
    alive = facts.columns["trial"][facts.generation == newest].tolist()
    kept: set[int] = set()
    for t in (*alive, *facts.columns["trial"][facts.lineage].tolist()):
        current: int | None = t
        while current is not None and current not in kept:
            kept.add(current)
            current = parent[current]
    children: dict[int | None, list[int]] = {}
    for t in sorted(kept):
        children.setdefault(parent[t], []).append(t)
    height: dict[int, float] = {}
    leaf = 0
    last = dict.fromkeys(alive, newest)
    stack = [(t, False) for t in reversed(children.get(None, []))]
    while stack:  # children before their parents, in order: leaves are numbered from below
        t, ready = stack.pop()
        below = children.get(t, [])
        if ready or not below:
            own = [] if below and t not in last else [float(leaf)]
            leaf += bool(own)
            height[t] = float(np.mean([height[c] for c in below] + own))
        else:
            stack += [(t, True), *((c, False) for c in reversed(below))]
    x: list[float] = []
    y: list[float] = []
    for t in sorted(kept, key=height.__getitem__):
        begin = born[trials[t]] + 1
        end = max([last.get(t, begin - 1) + 1, *(born[trials[c]] for c in children.get(t, [])), begin])
        if (p := parent[t]) is not None:
            x.append(begin - 1)
            y.append(height[p])
        x += [begin, end, np.nan]
        y += [height[t], height[t], np.nan]
    style = {"mode": "lines", "hoverinfo": "skip", "row": 2, "col": 1}
    figure.add_scatter(x=small(x), y=small(y), line=line(see_through(GREY, 0.8), 1), name="left", showlegend=False, **style)
    path = facts.columns["trial"][facts.lineage].tolist()
    figure.add_scatter(
        x=small(facts.generation[facts.lineage] + 1),
        y=small([height[t] for t in path]),
        customdata=small(path),
        mode="lines+markers",
        line=line(BEST, 2.5),
        marker={"size": 4},
        name="the winner's lineage",
        hovertemplate="generation %{x}<br>trial %{customdata}<extra></extra>",
        row=2,
        col=1,
    )
