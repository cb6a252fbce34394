"""How figures look: one palette that colour-blind readers can tell apart, on light paper and on dark.

Backgrounds are transparent and lines are of middling lightness, so that a page sets only the colour of the text.

References:
    Okabe & Ito, Color Universal Design, https://jfly.uni-koeln.de/color/
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import plotly.graph_objects as go

BEST = "#d6304a"
BLUE, TEAL, AMBER, MAUVE, SKY, GREY = "#3b78c4", "#1a9988", "#dd8a1f", "#a65fa8", "#58a6d6", "#8d97a5"
COLOURS = (BLUE, AMBER, TEAL, MAUVE, SKY, "#b5622d", "#7a8b2c", GREY)
RAMP = ("#5d62c9", "#8a61bf", "#b7629f", "#d9716f", "#e5873f", "#e39a1c")  # from worst to best: blue to yellow, ever lighter
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif'
SHOWN = 1500  # trials that a scatter plot shows at most


def label(text: Any) -> str:
    """A text as a label of plotly's, which would take `<b>` and `<a href=...>` in it for markup."""
    return html.escape(str(text), quote=False)


def blank(height: int, *, rows: int = 1, columns: int = 1, **layout: Any) -> go.Figure:
    """A figure of subplots with nothing in it.

    Args:
        height: In pixels.
        rows: Of subplots.
        columns: Of subplots.
        **layout: What `plotly.subplots.make_subplots` takes.
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(rows, columns, **layout)
    axis = {
        "gridcolor": "rgba(128, 136, 148, 0.22)",
        "zeroline": False,
        "linecolor": "rgba(128, 136, 148, 0.6)",
        "showline": True,
        "ticks": "outside",
        "tickcolor": "rgba(128, 136, 148, 0.6)",
        "ticklen": 4,
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": 13}},
        "exponentformat": "power",
        "minexponent": 4,
    }
    figure.update_layout(
        template={"layout": {"xaxis": axis, "yaxis": axis, "colorway": COLOURS}},
        height=height,
        margin={"l": 56, "r": 16, "t": 36, "b": 44},
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font={"family": FONT, "size": 13, "color": "#6b7480"},
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "xanchor": "left", "bgcolor": "rgba(0, 0, 0, 0)"},
        hoverlabel={"font": {"family": FONT}},
        uirevision="as the reader left it",
    )
    return figure


def line(colour: str, width: float = 2, **more: Any) -> dict[str, Any]:
    """The style of a line."""
    return {"color": colour, "width": width, **more}


def see_through(colour: str, share: float) -> str:
    """A colour with so much of it."""
    return f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, {share})"


def small(values: Any) -> np.ndarray:
    """Numbers as plotly sends them in the fewest bytes: whole ones short, others f32."""
    array = np.asarray(values)
    if np.issubdtype(array.dtype, np.integer) and array.size and (largest := int(np.max(np.abs(array)))) < 2**31:
        return array.astype(np.int16 if largest < 2**15 else np.int32)
    return array.astype(np.float32) if np.issubdtype(array.dtype, np.number) else array


def wants_log(values: np.ndarray) -> bool:
    """Whether numbers are seen best on a log scale: all above 0, and the middle of them over a hundredfold."""
    sound = values[np.isfinite(values)]
    if not len(sound) or sound.min() <= 0:
        return False
    low, high = np.quantile(sound, (0.02, 0.98))
    return bool(high > 100 * low)


def log_scale(values: np.ndarray) -> dict[str, Any]:
    """A log axis for these numbers, with a tick a power of ten, or every few, where they span several."""
    sound = values[np.isfinite(values) & (values > 0)]
    decades = float(np.log10(sound.max() / sound.min())) if len(sound) else 0.0
    return {"type": "log", "dtick": max(1, round(decades / 4))} if decades > 1.5 else {"type": "log"}


def by_generation(newest: int) -> dict[str, Any]:
    """An axis of generations from 1: whole numbers alone."""
    return {"title_text": "generation"} | ({"dtick": 1} if newest <= 12 else {})


def add_scale(figure: go.Figure, **place: Any) -> None:
    """The bar that explains the colours of `RAMP`."""
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        showlegend=False,
        hoverinfo="skip",
        marker={
            "colorscale": list(zip(np.linspace(0, 1, len(RAMP)).tolist(), RAMP, strict=True)),
            "color": [0],
            "cmin": 0,
            "cmax": 1,
            "showscale": True,
            "colorbar": {
                "thickness": 10,
                "outlinewidth": 0,
                "tickvals": [0, 0.5, 1],
                "ticktext": ["worst", "median", "best"],
                "len": 1,
                "lenmode": "fraction",
            },
        },
        **place,
    )


def bin_of(rank: np.ndarray) -> np.ndarray:
    """i64, the colour of `RAMP` for ranks from 0 to 1; -1 for NaN."""
    return np.where(np.isnan(rank), -1, np.minimum(np.nan_to_num(rank) * len(RAMP), len(RAMP) - 1)).astype(np.int64)


def thinned(order: Sequence[int] | np.ndarray, most: int = SHOWN) -> np.ndarray:
    """At most so many of what is ordered best first: the best tenth of what may stay, and an even sample of the rest."""
    order = np.asarray(order, np.int64)
    if len(order) <= most:
        return order
    head = most // 10
    return np.concatenate([order[:head], order[np.linspace(head, len(order) - 1, most - head).astype(np.int64)]])
