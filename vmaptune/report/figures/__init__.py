"""The figures of a run, in the order in which they are read. Each is drawn from a run's facts alone, also while it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmaptune.analysis.facts import RunFacts
from vmaptune.report.figures.axes import contours, importance, parallel, paths, slices
from vmaptune.report.figures.learning import curves, progress
from vmaptune.report.figures.lineage import lineage
from vmaptune.report.figures.schedule import schedule
from vmaptune.report.figures.speed import speed

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Figure:
    """One figure; call it with the facts of a run.

    Attributes:
        title: What it shows.
        caption: How to read it.
        draw: Draws it; None if there is nothing to draw in this run.
        nothing: Why there may be nothing.
    """

    title: str
    caption: str
    draw: Callable[[RunFacts], go.Figure | None]
    nothing: str

    def __call__(self, facts: RunFacts) -> go.Figure | None:
        """Draws it; None if there is nothing to draw, or nothing yet."""
        return self.draw(facts) if len(facts.generations) else None


FIGURES: dict[str, Figure] = {
    "progress": Figure(
        "Score by generation",
        "The best member of each generation, the median, and the band that holds the middle four fifths of the members. "
        "Bars below count members that diverged.",
        progress,
        "No generation has ended yet.",
    ),
    "curves": Figure(
        "Learning curves of the winner's lineage",
        "Of the weights that won, through all ancestors that trained them; a dot marks where they were copied. Training values "
        "are means over a generation, measured with dropout and augmentation on, so they may look worse than validation.",
        curves,
        "There is no sound member yet.",
    ),
    "schedule": Figure(
        "The schedule that won",
        "What the optimizer was given at every step of the winner's lineage, schedules and changes by selection together. "
        "The numbers are in best/schedule.csv.",
        schedule,
        "It is written when the run ends (best/schedule.csv).",
    ),
    "paths": Figure(
        "Paths of the hyperparameters",
        "A line a trial, which begins at the value of the trial that it was copied from. Its colour is its mean "
        "place among its contemporaries; the red line is the winner's lineage. Where bright lines gather, the search settled.",
        paths,
        "Nothing is searched: all members have the same settings.",
    ),
    "lineage": Figure(
        "Who descends from whom",
        "Above, the share of the population that descends from each founder. Below, the family tree of the members that "
        "are left; a line that splits was copied, and the red one leads from the founder to the winner.",
        lineage,
        "No member was copied in this run, so every trial is its own founder.",
    ),
    "importance": Figure(
        "Importance of the hyperparameters",
        "The share of the variance among trials that each axis explains (functional ANOVA). A trial is judged by its rank "
        "among its contemporaries where members are copied, else by its last score. It tells what mattered within the searched "
        "ranges, among the trials that were made.",
        importance,
        "Too few trials to tell.",
    ),
    "slices": Figure(
        "Slices",
        "A dot a trial: its own value on the axis, and its last score. A slope or a valley tells where to search next; dots "
        "that pile up at an edge say that the range is too narrow.",
        slices,
        "Nothing is searched, or no trial is sound yet.",
    ),
    "contours": Figure(
        "The two most important axes together",
        "How the trials rank, smoothed: light is good. Blank where no trial was near; dots are trials.",
        contours,
        "Fewer than two axes are searched, or too few trials are sound.",
    ),
    "parallel": Figure(
        "Parallel coordinates",
        "A line a trial, across its settings to its score; the best are on top. Click a group in the legend to hide it.",
        parallel,
        "Nothing is searched, or no trial is sound yet.",
    ),
    "speed": Figure(
        "Throughput, and where the time went",
        "Training steps of all members a second, by generation. Generations that ran in one dispatch share its time evenly.",
        speed,
        "No generation has ended yet.",
    ),
}
