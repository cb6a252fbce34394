"""Cohorts: choices on static settings, each combination a run with a program of its own, and a budget that they share."""

from vmaptune.cohorts.expansion import Cohort, CohortBudget, budget_of, cohorts_of
from vmaptune.cohorts.result import CohortResult, CohortRun, Decision
from vmaptune.cohorts.running import load_cohorts, tune_cohorts

__all__ = [
    "Cohort",
    "CohortBudget",
    "CohortResult",
    "CohortRun",
    "Decision",
    "budget_of",
    "cohorts_of",
    "load_cohorts",
    "tune_cohorts",
]
