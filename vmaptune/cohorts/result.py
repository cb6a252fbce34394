"""What `tune_cohorts` returns."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vmaptune.cohorts.expansion import Cohort, CohortBudget
from vmaptune.result import Result
from vmaptune.store.folder import RunFolder
from vmaptune.strict_json import finite_json


class Decision(NamedTuple):
    """What was decided, when and why.

    Attributes:
        time: UTC, ISO 8601.
        generation: Generations that each cohort had then trained.
        kept: Names of the cohorts that went on, the best first.
        left: Those that did not.
        fitness: The best validation fitness so far of each cohort, which decided; -inf for one that failed.
    """

    time: str
    generation: int
    kept: list[str]
    left: list[str]
    fitness: dict[str, float]


@dataclass
class CohortRun:
    """A cohort and what became of it.

    Attributes:
        cohort: It.
        folder: Its run folder.
        status: "waiting", "finished", "interrupted" (it can be resumed), "stopped" (the process died; likewise) or "failed".
        generations: How many it has trained.
        member_steps: Training steps of all its members, by this and earlier processes.
        matured: Its best member has reached the horizon.
        fitness: Of its best member; -inf if there is none.
        loss: Validation loss of its best member, which decides between equal fitness.
        validation: Validation metrics of its best member.
        left_after: Generations after which halving left it; None if it did not.
        problem: Why it failed.
        compilations: How often each program was compiled by this process.
        seconds: Wall time of this process.
    """

    cohort: Cohort
    folder: RunFolder
    status: str = "waiting"
    generations: int = 0
    member_steps: int = 0
    matured: bool = False
    fitness: float = -math.inf
    loss: float = math.inf
    validation: dict[str, float] = field(default_factory=dict)
    left_after: int | None = None
    problem: str = ""
    compilations: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """As strict JSON values."""
        facts = {k: v for k, v in vars(self).items() if k not in ("cohort", "folder", "loss")}
        named = {"name": self.cohort.name, "assignment": self.cohort.assignment, "run": str(self.folder.path)}
        return finite_json(named | facts | {"seconds": round(self.seconds, 3)})


@dataclass(frozen=True)
class CohortResult:
    """The outcome of `tune_cohorts`.

    Attributes:
        run: The folder of them all.
        status: "finished", or "interrupted" if it was asked to stop early and can be resumed.
        metric: Name of the validation metric that they are compared by.
        budget: How the cohorts shared what was trained.
        cohorts: Each, in the order of the config.
        decisions: What halving decided.
        winner: Name of the cohort of the best member; None while interrupted.
        result: The winner's run, test metrics included; None while interrupted.
        member_steps: Training steps of all members of all cohorts.
        seconds: Wall time of this process.
    """

    run: Path
    status: str
    metric: str
    budget: CohortBudget
    cohorts: tuple[CohortRun, ...]
    decisions: tuple[Decision, ...]
    winner: str | None
    result: Result | None
    member_steps: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """As strict JSON values; what there is of the winner as `Result.as_json` has it."""
        best = self.result.as_json() if self.result else {}
        return finite_json(
            {
                "run": str(self.run),
                "status": self.status,
                "metric": self.metric,
                "winner": self.winner,
                "best": best.get("best"),
                "test": best.get("test"),
                "budget": vars(self.budget),
                "member_steps": self.member_steps,
                "cohorts": [run.as_json() for run in self.cohorts],
                "decisions": [decision._asdict() for decision in self.decisions],
                "seconds": round(self.seconds, 3),
            }
        )
