"""Pictures of the schedule families for the site: drawn by the families themselves, one panel a setting."""

from __future__ import annotations

import inspect
import io
import re
from collections.abc import Callable
from typing import Any, get_args

import jax
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from vmaptune.schedules import SCHEDULES, bare, rise
from vmaptune.settings import Setting, settings

INK = "#010203"  # becomes currentColor: the text's, on light and dark pages alike
LOW, HIGH = np.array([0x2F, 0x7D, 0xF6]), np.array([0xF0, 0x6A, 0x2A])
VALUES = 5
TABLES = ((1.0, 0.0), (0.2, 1.0, 0.6, 0.1), (1.0, 0.3, 0.8, 0.2, 0.5, 0.0))
WARMUPS = ("linear", "cosine", "exponential", "polynomial")
# One call for all of a curve: progress in [0, 1], the end included.
PROGRESS = np.linspace(0.0, 1.0, 241, dtype=np.float32)

mpl.use("svg")


def curve(family: Callable[..., Any], **knobs: Any) -> np.ndarray:
    """f32[241]: the multiplier over a whole horizon."""
    return np.asarray(jax.vmap(lambda t: family(t, **knobs))(PROGRESS))  # not jitted: compiling costs more than all the rest


def values(setting: Setting) -> list[Any]:
    """What a setting is drawn at: its choices, or five values where it is usually searched."""
    if setting.vector:
        return list(TABLES)
    if not setting.traced:
        return [False, True] if setting.annotation is bool else list(get_args(setting.annotation))
    usual = setting.usual
    if usual is None:
        raise ValueError(f"{setting.name}: no range to draw; give it a Usual or two ends")
    space = np.geomspace if usual.scale == "log" else np.linspace
    return [float(f"{value:.3g}") for value in space(usual.low, usual.high, VALUES)]


def shade(i: int, n: int) -> str:
    """The i-th of n colours from blue to orange."""
    return "#" + "".join(f"{round(c):02x}" for c in LOW + (HIGH - LOW) * (i / max(n - 1, 1)))


def label(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return f"{len(value)} values" if isinstance(value, tuple) else str(value).lower()


def panels(family: Callable[..., Any]) -> list[tuple[str, list[tuple[str, np.ndarray]]]]:
    """Of each setting of its own: the name, and a labelled curve a value. A family without settings has one panel."""
    own = settings(bare(family))
    if not own:
        return [("", [("", curve(bare(family)))])]
    return [(name, [(label(v), curve(bare(family), **{name: v})) for v in values(setting)]) for name, setting in own.items()]


def picture(title: str, drawn: list[tuple[str, list[tuple[str, np.ndarray]]]]) -> str:
    """An SVG to stand inside a page: text stays text, and takes the page's colour."""
    across = min(len(drawn), 3)
    down = -(-len(drawn) // across)
    style = {"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 8, "text.color": INK, "axes.labelcolor": INK}
    style |= {"axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.linewidth": 0.6}
    with mpl.rc_context(style):
        figure = Figure(figsize=(2.6 * across, 1.9 * down))
        figure.subplots_adjust(0.3 / 2.6 / across, 0.22 / 1.9 / down, 0.98, 1 - 0.2 / 1.9 / down, wspace=0.18, hspace=0.38)
        figure.patch.set_alpha(0.0)
        for i, (name, curves) in enumerate(drawn):
            axes = figure.add_subplot(down, across, i + 1)
            axes.patch.set_alpha(0.0)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_title(name, fontsize=8, loc="left")
            axes.set_xlim(0.0, 1.0)
            axes.set_ylim(bottom=0.0, top=1.05 * max(1.0, *(float(y.max()) for _, y in curves)))
            for j, (text, y) in enumerate(curves):
                axes.plot(PROGRESS, y, color=shade(j, len(curves)), linewidth=1.4, label=text)
            if any(text for text, _ in curves):
                axes.legend(fontsize=6, frameon=False, labelspacing=0.2, handlelength=1.2, borderaxespad=0.1)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    parts = r"^.*?(?=<svg )|<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->|font-family: [^;]*;"  # the page has its own
    svg = re.sub(parts, "", out.getvalue(), flags=re.DOTALL)
    svg = re.sub(r'(<svg [^>]*?)width="[^"]*" height="[^"]*"', rf'\1style="max-width: {11 * across}rem"', svg, count=1)
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)  # hundredths of a point do
    svg = svg.replace(INK, "currentColor").replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
    return '<figure class="curves" data-search-exclude>' + " ".join(svg.split()) + "</figure>\n"


def knobs(family: Callable[..., Any]) -> str:
    """Its settings as a table, those of the warm-up left out."""
    own = settings(bare(family))
    if not own:
        return ""
    rows = [f"| `{s.name}` | {s.type_name.replace('|', 'or')} | `{_default(s)}` | {s.help} |\n" for s in own.values()]
    return "| setting | type | default | meaning |\n|---|---|---|---|\n" + "".join(rows) + "\n"


def _default(setting: Setting) -> str:
    return str(list(setting.default)) if setting.vector else label(setting.default)


def meaning(family: Callable[..., Any]) -> str:
    """What stands in the docstring before its arguments."""
    return re.split(r"\n\n(?:Args|Returns|References|Raises):", inspect.getdoc(bare(family)) or "")[0]


def cited(references: str) -> str:
    """References as links that carry the authors' names; as they are, if none has an address."""
    entries = re.findall(r"(?:\([^)]*\) )?([^,]+), .*?(https?://[^\s,;)]+)", references)
    return ", ".join(f"[{authors.strip()}]({address})" for authors, address in entries) or references


def sources(family: Callable[..., Any]) -> str:
    found = re.search(r"References:\n(.*?)(?:\n\n|\Z)", inspect.getdoc(bare(family)) or "", re.DOTALL)
    return cited(" ".join(found[1].split())) if found else ""


def gallery() -> str:
    """Every family: what it is, its pictures, its settings."""
    parts = []
    for name, family in SCHEDULES.items():
        parts.append(f"## {name}\n\n{meaning(family)}\n\n{picture(name, panels(family))}\n{knobs(family)}")
        parts.append(f"Source: {sources(family)}\n\n")
    return "".join(parts)


def warmups() -> str:
    """The four shapes of a warm-up."""
    drawn = [
        (shape, [(f"power {p:g}", curve(lambda t, shape=shape, p=p: rise(t, shape, p))) for p in powers])
        for shape, powers in ((s, (1.0, 2.0, 4.0) if s in WARMUPS[2:] else (1.0,)) for s in WARMUPS)
    ]
    plain = [(shape, [("" if len(curves) == 1 else text, y) for text, y in curves]) for shape, curves in drawn]
    return picture("warm-up", plain)
