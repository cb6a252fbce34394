"""The report of a run: one HTML file that needs no network, and in which nothing that a user named is markup."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vmaptune.analysis.facts import RunFacts
from vmaptune.analysis.verdict import verdicts
from vmaptune.report.figures import FIGURES
from vmaptune.report.figures.speed import speeds
from vmaptune.store.folder import RunFolder
from vmaptune.store.history import now

if TYPE_CHECKING:
    import plotly.graph_objects as go

_QUIET = ("checkpoint", "generation", "diverged", "stopped")  # events that the figures tell
_MOST_EVENTS = 200


class Drawing(NamedTuple):
    """A figure on a page; without `json` it says why there is nothing.

    Attributes:
        id: Of its element.
        title: What it shows.
        caption: How to read it.
        nothing: Why there may be nothing.
        json: The figure for the browser.
        height: In pixels.
        wide: Whether it needs room: on a narrow screen it can be moved sideways.
    """

    id: str
    title: str
    caption: str
    nothing: str
    json: Any
    height: int
    wide: bool


class Card(NamedTuple):
    """A key figure: its name, its value, and a remark."""

    name: str
    value: str
    note: str


def run_page(facts: RunFacts) -> str:
    """The report of a run as HTML."""
    found = verdicts(facts)
    fit = {"curves": f" {found[0].sentence}."} if facts.best is not None else {}
    drawings = [drawing(name, f.title, f.caption + fit.get(name, ""), f(facts), f.nothing) for name, f in FIGURES.items()]
    return render(
        "run.html",
        drawings,
        name=facts.name,
        path=str(facts.path),
        status=facts.run["status"],
        result=result_in_words(facts),
        cards=_cards(facts),
        verdicts=found,
        winner=_winner(facts),
        settings=settings_text(facts),
        reads=_reads(facts),
        config=_config_text(facts),
        environment=[(key, _text(value)) for key, value in facts.run["environment"].items()],
        events=_events(facts),
    )


def drawing(name: str, title: str, caption: str, figure: go.Figure | None, nothing: str = "") -> Drawing:
    """A figure ready for a page."""
    if figure is None:
        return Drawing(name, title, caption, nothing, None, 0, False)
    beside = any((x.domain or (0,))[0] > 0 for x in figure.select_xaxes())
    wide = beside or name == "parallel"
    return Drawing(name, title, caption, nothing, _safe_json(figure), int(figure.layout.height), wide)


def _safe_json(figure: go.Figure) -> Any:
    """A figure as JSON that may stand in a script element: no `<` begins anything there."""
    from markupsafe import Markup

    text = figure.to_json()
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 (it holds no markup any more)


def render(template: str, drawings: Iterable[Drawing], **values: Any) -> str:
    """Fills a template; whatever is not said to be markup is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("vmaptune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = (Path(__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    version = metadata.version("vmaptune")
    shown = {"css": Markup(css), "scripts": _scripts(), "made": now(), "version": version}  # noqa: S704 (files of ours)
    return environment.get_template(template).render(figures=list(drawings), **shown, **values)


@cache
def _scripts() -> list[dict[str, Any]]:
    """The two scripts of a page, and their hashes: the browser runs no other."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    own = (Path(__file__).parent / "templates" / "report.js").read_text(encoding="utf-8")
    texts = [text.replace("\r\n", "\n") for text in (get_plotlyjs(), own)]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
    return [{"text": Markup(t), "hash": Markup(f"'sha256-{h}'")} for t, h in zip(texts, hashes, strict=True)]  # noqa: S704 (ours)


def number(value: Any) -> str:
    """A number with four significant digits, grouped if it is large; "-" for none."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "-"
    if isinstance(value, int | np.integer) or abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def result_in_words(facts: RunFacts) -> str:
    """The outcome in a sentence or two."""
    done = len(facts.generations)
    if facts.best is None:
        return "No generation has ended yet." if not done else f"After {_count(done, 'generation')} there is no sound member."
    best, metric = facts.best, facts.metric
    score = f"{facts.judged} {metric} {number(best[f'{facts.judged}.{metric}'])}"
    whose = f"trial {best['trial']} of {len(facts.trials['trial']):,}, after generation {best['generation'] + 1}"
    if facts.test is None:
        return f"The best so far has {score}: {whose}, {done:,} of {facts.planned:,} generations done. The test set is unread."
    return (
        f"The winner has {score} and test {metric} {number(facts.test[metric])}: {whose}. {_replicates(facts)}{_reads(facts)}"
    )


def _replicates(facts: RunFacts) -> str:
    """What the winner was chosen by, where that is not its own score."""
    found = ((facts.run["result"] or {}).get("best") or {}).get("replicates")
    if not found:
        return ""
    spread = f"mean fitness {number(found['mean'])}, standard deviation {number(found['std'])}"
    return f"It was chosen with its {_count(found['n'], 'replicate')}: {spread}. "


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'s' * (n != 1)}"


def _reads(facts: RunFacts) -> str:
    times = len(facts.test_reads)
    if not times:
        return "The test set was not read."
    honest = (
        "so its figure is an honest estimate" if times == 1 else "so figures that were chosen by it are no honest estimates"
    )
    return f"Test read {'once' if times == 1 else f'{times} times'}, {honest}."


def _cards(facts: RunFacts) -> list[Card]:
    best, metric = facts.best or {}, facts.metric
    _, seconds, steps = speeds(facts)
    trials = len(facts.trials["trial"])
    failed = int(np.sum(~np.isfinite(facts.fitness)))
    times = len(facts.test_reads)
    looked = f"read {'once' if times == 1 else f'{times} times'}" if times else "unread"
    total, spent = float(np.nansum(steps)), float(np.nansum(seconds))
    return [
        Card(f"{facts.judged} {metric}", number(best.get(f"{facts.judged}.{metric}")), _direction(facts)),
        Card(f"test {metric}", number((facts.test or {}).get(metric)), looked),
        Card("generations", f"{len(facts.generations):,} of {facts.planned:,}", f"of {facts.run['segment_steps']} steps each"),
        Card("members", f"{facts.run['size']:,}", _count(trials, "trial")),
        Card("member-steps", number(int(total)), f"{number(round(total / spent))} a second" if spent else ""),
        Card("diverged", f"{failed:,}", f"of {_count(len(facts.fitness), 'record')}"),
    ]


def _direction(facts: RunFacts) -> str:
    return "more is better" if facts.sign > 0 else "less is better"


def _winner(facts: RunFacts) -> list[tuple[str, ...]]:
    """A row a metric: train, validation, test."""
    if facts.best is None:
        return []
    rooms = facts.metrics
    names = sorted({*rooms.get("validation", []), *rooms.get("train", [])}, key=lambda name: (name != facts.metric, name))
    values = [(facts.best.get(f"train.{n}"), facts.best.get(f"{facts.judged}.{n}"), (facts.test or {}).get(n)) for n in names]
    return [(name, *(number(value) for value in row)) for name, row in zip(names, values, strict=True)]


def settings_text(facts: RunFacts) -> str:
    """The searched settings of the best member as TOML, by dotted keys."""
    if facts.best is None:
        return ""
    lines = []
    for name, axis in facts.axes.items():
        value = facts.best[name]
        if value is None:
            continue
        if axis.labels:
            text = f"{name.rpartition('.')[0]}.name = {json.dumps(axis.labels[round(value)])}"
        else:
            text = f"{name} = {round(value) if axis.integer else float(str(np.float32(value)))}"
        lines.append(text)
    return "\n".join(lines)


def _config_text(facts: RunFacts) -> str:
    try:
        return RunFolder(facts.path).config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return json.dumps(facts.config, indent=2)


def _text(value: Any) -> str:
    return ", ".join(f"{k} {_text(v)}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)


def _events(facts: RunFacts) -> list[tuple[str, str, str, str]]:
    """What happened, but for what comes every generation."""
    told = [event for event in facts.events if event["kind"] not in _QUIET][-_MOST_EVENTS:]
    rows = []
    for event in told:
        generation = "" if event["generation"] is None else str(event["generation"] + 1)
        rows.append((event["time"].replace("T", " ").rstrip("Z"), generation, event["kind"], _text(event["detail"])))
    return rows
