"""Search methods. Each turns fitness into `Offspring`: who survives, who copies whom, who is born anew.

A selector is a pair of functions and a flag, one method a file. Only `vmaptune.population.inherit` moves weights; a
selector never sees them.
"""

from __future__ import annotations

from collections.abc import Callable

from vmaptune.selectors.contract import Selector, View
from vmaptune.selectors.random import random
from vmaptune.selectors.truncation import truncation

__all__ = ["SELECTORS", "Selector", "View", "random", "truncation"]

SELECTORS: dict[str, Callable[..., Selector]] = {
    "truncation": truncation,
    "random": random,
}
