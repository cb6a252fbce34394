"""Search methods. Each turns fitness into `Offspring`: who survives, who copies whom, who is born anew.

A selector is a pair of pure functions, one method a file. Only `vmaptune.population.inherit` moves weights; a selector never
sees them.
"""

from __future__ import annotations

from collections.abc import Callable

from vmaptune.selectors.contract import Selector, View
from vmaptune.selectors.differential import differential
from vmaptune.selectors.fixed import fixed
from vmaptune.selectors.multifrequency import multifrequency
from vmaptune.selectors.pb2 import pb2
from vmaptune.selectors.replicates import Aggregate, grouped, replicated
from vmaptune.selectors.selection_only import selection_only
from vmaptune.selectors.stopping import stopped_by
from vmaptune.selectors.tournament import tournament
from vmaptune.selectors.trials import TRIAL_METHODS
from vmaptune.selectors.truncation import truncation

__all__ = ["SELECTORS", "TRIAL_METHODS", "Aggregate", "Selector", "View", "grouped", "replicated", "stopped_by", "truncation"]

SELECTORS: dict[str, Callable[..., Selector]] = {
    "truncation": truncation,
    "tournament": tournament,
    "pb2": pb2,
    "differential": differential,
    "multifrequency": multifrequency,
    "selection_only": selection_only,
    "fixed": fixed,
    **TRIAL_METHODS,
}
"""The names that `search.method` may take."""
