"""The searched axes of a run, as its config in the history tells them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

METRIC_ROOMS = ("train", "validation", "lookahead")


@dataclass(frozen=True)
class AxisFacts:
    """One searched axis.

    Attributes:
        name: Dotted name, a column of the history.
        low: Smallest value.
        high: Largest value.
        log: Whether it is searched on a log scale.
        integer: Whole numbers only.
        choices: The numbers to choose from, if it is no interval.
        labels: What the choices are called, if they stand for names: the families of a mixed schedule.
    """

    name: str
    low: float
    high: float
    log: bool = False
    integer: bool = False
    choices: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def short(self) -> str:
        """The last part of the name, spaced: `learning rate`."""
        return self.name.rpartition(".")[2].replace("_", " ")

    def unit(self, values: np.ndarray) -> np.ndarray:
        """Where values lie between low and high, on the axis's own scale: f64 of the same shape, 0 to 1."""
        if self.choices:
            return np.searchsorted(np.sort(self.choices), values - 1e-6 * np.abs(values)) / (len(self.choices) - 1)
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.log(values / self.low) / math.log(self.high / self.low)
        return (values - self.low) / (self.high - self.low)


def axes_of(config: Mapping[str, Any], columns: Iterable[str]) -> dict[str, AxisFacts]:
    """The columns of a history that are searched, by name.

    Args:
        config: The whole config, as the history has it.
        columns: Names of the columns.
    """
    found = {}
    for name in columns:
        room, _, rest = name.partition(".")
        if not rest or room in METRIC_ROOMS:
            continue
        place = _look_up(config, name)
        if isinstance(place, Mapping) and "choices" in place:
            choices = tuple(float(choice) for choice in place["choices"])
            found[name] = AxisFacts(name, min(choices), max(choices), choices=choices)
        elif isinstance(place, Mapping) and {"low", "high"} <= place.keys():
            log, integer = place.get("scale") == "log", bool(place.get("integer"))
            found[name] = AxisFacts(name, float(place["low"]), float(place["high"]), log, integer)
        elif name.endswith(".family") and isinstance(names := _look_up(config, f"{name.rpartition('.')[0]}.name"), list):
            choices = tuple(float(i) for i in range(len(names)))
            found[name] = AxisFacts(name, 0.0, choices[-1], choices=choices, labels=tuple(map(str, names)))
    return found


def _look_up(tree: Any, name: str) -> Any:
    """What stands at a dotted name; the keys of a table may hold dots themselves. None if nothing does."""
    if not name:
        return tree
    if isinstance(tree, list):
        first, _, rest = name.partition(".")
        return _look_up(tree[int(first)], rest) if first.isdigit() and int(first) < len(tree) else None
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if name == key or name.startswith(f"{key}."):
                found = _look_up(value, name[len(key) + 1 :])
                if found is not None:
                    return found
    return None
