"""Several runs side by side: what each had found by when, what they scored in the end, and which settings differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vmaptune.analysis.facts import RunFacts
from vmaptune.report.figures.speed import speeds
from vmaptune.report.look import COLOURS, blank, by_generation, label, line, log_scale, small, wants_log
from vmaptune.report.page import drawing, number, render

if TYPE_CHECKING:
    import plotly.graph_objects as go

_DASHES = ("solid", "dash", "dot", "dashdot")
_NOT_SETTINGS = ("plan", "checkpoint", "sinks")


def names_of(runs: Sequence[RunFacts]) -> list[str]:
    """What the runs are called: their folders, with as many parents as tells them apart."""
    parts = [run.path.resolve().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(run.path) for run in runs]


def best_so_far(facts: RunFacts) -> np.ndarray:
    """f64[G], the best score until then, of the metric that members are judged by; NaN while there is none."""
    score = facts.score * facts.sign
    each = [np.max(score[r], initial=-np.inf, where=np.isfinite(score[r])) for r in facts.by_generation()]
    best = np.maximum.accumulate(np.array(each, float)) if each else np.zeros(0)
    return np.where(np.isfinite(best), best, np.nan) * facts.sign


def race(runs: Sequence[RunFacts]) -> go.Figure | None:
    """Best score so far by generation, by member-steps, and by seconds of training."""
    drawn = [(i, run) for i, run in enumerate(runs) if len(run.generations)]
    if not drawn:
        return None
    names = names_of(runs)
    figure = blank(420, columns=3, shared_yaxes=True, horizontal_spacing=0.03)
    for i, run in drawn:
        best = best_so_far(run)
        generations, seconds, steps = speeds(run)
        here = np.isin(generations, run.generations)
        xs = (run.generations + 1, np.cumsum(steps[here]), np.cumsum(np.nan_to_num(seconds[here])))
        for column, x in enumerate(xs, 1):
            figure.add_scatter(
                x=small(np.asarray(x, float)),
                y=small(best[: len(x)]),
                mode="lines" if len(best) > 1 else "markers",
                line=line(COLOURS[i % len(COLOURS)], dash=_DASHES[i // len(COLOURS) % len(_DASHES)], shape="hv"),
                name=label(names[i]),
                legendgroup=str(i),
                showlegend=column == 1,
                row=1,
                col=column,
            )
    for column, title in enumerate(("generation", "member-steps", "seconds of training"), 1):
        figure.update_xaxes(title_text=title, row=1, col=column)
    if all(wants_log(best_so_far(run)) for _, run in drawn):
        figure.update_yaxes(**log_scale(np.concatenate([best_so_far(run) for _, run in drawn])))
    newest = max(len(run.generations) for _, run in drawn)
    figure.update_xaxes(**by_generation(newest), row=1, col=1)
    return figure.update_yaxes(title_text=label(f"best {_score(runs)} so far"), row=1, col=1)


def medians(runs: Sequence[RunFacts]) -> go.Figure | None:
    """The median member's score by generation."""
    drawn = [(i, run) for i, run in enumerate(runs) if np.isfinite(run.score).any()]
    if not drawn:
        return None
    names, figure = names_of(runs), blank(380)
    for i, run in drawn:
        score = run.score
        sound = [score[r][np.isfinite(score[r])] for r in run.by_generation()]
        figure.add_scatter(
            x=small(run.generations + 1),
            y=small([np.median(s) if len(s) else np.nan for s in sound]),
            mode="lines" if len(sound) > 1 else "markers",
            line=line(COLOURS[i % len(COLOURS)], dash=_DASHES[i // len(COLOURS) % len(_DASHES)]),
            name=label(names[i]),
        )
    if all(wants_log(run.score) for _, run in drawn):
        figure.update_yaxes(**log_scale(np.concatenate([run.score for _, run in drawn])))
    figure.update_xaxes(**by_generation(max(len(run.generations) for _, run in drawn)))
    return figure.update_yaxes(title_text=label(_score(runs)))


def _score(runs: Sequence[RunFacts]) -> str:
    """What the runs are judged by."""
    known = {f"{run.judged} {run.metric}" for run in runs}
    return known.pop() if len(known) == 1 else "score, by each run's own metric"


@dataclass(frozen=True)
class ComparisonFigure:
    """One figure of several runs; call it with their facts. Attributes as those of `vmaptune.report.figures.Figure`."""

    title: str
    caption: str
    draw: Callable[[Sequence[RunFacts]], go.Figure | None]
    nothing: str

    def __call__(self, runs: Sequence[RunFacts]) -> go.Figure | None:
        """Draws it; None if there is nothing to draw."""
        return self.draw(runs)


COMPARISONS: dict[str, ComparisonFigure] = {
    "race": ComparisonFigure(
        "The best so far",
        "What each run had found by when: by generation, by the training steps of all its members, and by seconds of training "
        "(compilation not counted).",
        race,
        "No generation has ended yet.",
    ),
    "medians": ComparisonFigure(
        "The median member",
        "How well the middle of each population did: a high median says that the run does not depend on one lucky member.",
        medians,
        "No member is sound yet.",
    ),
}


def comparison_page(runs: Sequence[RunFacts], title: str) -> str:
    """Several runs as one HTML page."""
    names = names_of(runs)
    metrics = sorted({f"{run.metric} ({run.run['direction']})" for run in runs})
    same = (
        f"judged by {metrics[0]}"
        if len(metrics) == 1
        else f"judged by different metrics ({', '.join(metrics)}): scores do not compare"
    )
    best = [run.sign * (run.best[f"{run.judged}.{run.metric}"] if run.best else -np.inf * run.sign) for run in runs]
    order = sorted(range(len(runs)), key=lambda i: -best[i])
    return render(
        "comparison.html",
        [drawing(name, f.title, f.caption, f(runs), f.nothing) for name, f in COMPARISONS.items()],
        name=title,
        result=f"{len(runs)} runs, {same}.",
        head=["run", "status", "validation", "test", "test read", "generations", "member-steps", "seconds"],
        rows=[_row(names[i], runs[i]) for i in order],
        names=names,
        differences=differing(runs),
    )


def _row(name: str, run: RunFacts) -> list[str]:
    _, seconds, steps = speeds(run)
    best = run.best[f"{run.judged}.{run.metric}"] if run.best else None
    test = (run.test or {}).get(run.metric)
    done = f"{len(run.generations)} of {run.planned}"
    return [
        name,
        run.run["status"],
        number(best),
        number(test),
        f"{len(run.test_reads)} x",
        done,
        number(int(steps.sum())),
        number(float(np.nansum(seconds))),
    ]


def differing(runs: Sequence[RunFacts]) -> list[list[str]]:
    """A row a setting that is not the same in all runs: its name, and its value in each."""
    flat = [dict(_leaves({k: v for k, v in run.config.items() if k not in _NOT_SETTINGS})) for run in runs]
    known = dict.fromkeys(name for one in flat for name in one)
    return [[name, *(one.get(name, "-") for one in flat)] for name in known if len({one.get(name) for one in flat}) > 1]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Settings by dotted name, as text; an axis is one of them."""
    found: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value and not {"low", "choices"} & value.keys():
            found += _leaves(value, f"{prefix}{key}.")
        else:
            axis = isinstance(value, Mapping) and value
            found.append((f"{prefix}{key}", ", ".join(f"{k} {v}" for k, v in value.items()) if axis else _text(value)))
    return found


def _text(value: Any) -> str:
    return '""' if value == "" else str(value)
