"""The report's figures as JSON, made beside the server and kept until their runs have gone on."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from vmaptune.analysis.verdict import verdicts
from vmaptune.dashboard.listing import Runs
from vmaptune.dashboard.workshop import Made, Workshop
from vmaptune.report.comparing import COMPARISONS, differing
from vmaptune.report.facts import RunFacts, read_facts
from vmaptune.report.figures import FIGURES
from vmaptune.strict_json import finite_json

FINDINGS, DIFFERENCES = "findings", "differences"  # what a page shows beside figures
_PATIENCE = 0.05  # seconds that an answer waits for a figure before it says "not yet"
_REST = 3.0  # at most a quarter of a core is taken from a run that trains beside
_FACTS = 8  # runs whose facts are kept: a megabyte for 10,000 records


class Drawings:
    """Figures of runs, and of several runs side by side.

    Args:
        runs: Where they are.
    """

    def __init__(self, runs: Runs) -> None:
        """Draws nothing yet."""
        self._runs = runs
        self._facts: OrderedDict[str, tuple[str, RunFacts]] = OrderedDict()
        self._figures = Workshop(self._draw, keep=100, rest=_REST)

    def get(self, runs: Sequence[str], name: str, versions: Sequence[str]) -> Made[bytes] | None:
        """A figure as plotly's JSON, of an older version while the newest is made; None: ask again.

        JSON is null where there is nothing to draw, and holds a `problem` where it cannot be drawn.
        """
        return self._figures.get((tuple(runs), name), "\n".join(versions), _PATIENCE)

    def close(self) -> None:
        """Draws nothing more."""
        self._figures.close()

    def _draw(self, key: tuple[tuple[str, ...], str], version: str) -> bytes:
        try:
            names, figure = key
            facts = [self._read(run, of) for run, of in zip(names, version.split("\n"), strict=True)]
            return _drawn(figure, facts)
        except Exception as error:  # one figure that cannot be drawn leaves the others
            return json.dumps({"problem": f"This cannot be shown: {type(error).__name__}: {error}"}).encode()

    def _read(self, run: str, version: str) -> RunFacts:
        if run not in self._facts or self._facts[run][0] != version:
            self._facts[run] = (version, read_facts(self._runs.find(run).path))
        self._facts.move_to_end(run)
        while len(self._facts) > _FACTS:
            self._facts.popitem(last=False)
        return self._facts[run][1]


def is_known(name: str, runs: int) -> bool:
    """True if there is such a figure of so many runs."""
    return name in (FIGURES.keys() | {FINDINGS} if runs == 1 else COMPARISONS.keys() | {DIFFERENCES})


def _drawn(name: str, facts: list[RunFacts]) -> bytes:
    if name == FINDINGS:
        return _json({name: [verdict.as_json() for verdict in verdicts(facts[0])]})
    if name == DIFFERENCES:
        return _json({name: differing(facts)})
    figure = COMPARISONS[name](facts) if name in COMPARISONS else FIGURES[name](facts[0])
    return b"null" if figure is None else figure.to_json().encode()


def _json(value: Any) -> bytes:
    return json.dumps(finite_json(value), allow_nan=False).encode()
