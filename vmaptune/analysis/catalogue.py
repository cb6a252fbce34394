"""The names a config may use, read from the functions themselves."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from typing import Any

from vmaptune.optimizers import OPTIMIZERS
from vmaptune.schedules import SCHEDULES
from vmaptune.selectors import SELECTORS
from vmaptune.settings import settings
from vmaptune.sinks import SINKS
from vmaptune.stoppers import STOPPERS
from vmaptune.tasks import TASKS

TABLES: dict[str, dict[str, Callable[..., Any]]] = {
    "optimizers": dict(OPTIMIZERS),
    "schedules": dict(SCHEDULES),
    "tasks": dict(TASKS),
    "selectors": dict(SELECTORS),
    "stoppers": dict(STOPPERS),
    "sinks": dict(SINKS),
}


def catalogue(table: str) -> list[dict[str, Any]]:
    """The rows of a table: name, meaning, source, and settings with type, default and whether an axis may stand there."""
    return [_entry(table, name, function) for name, function in TABLES[table].items()]


def _entry(table: str, name: str, function: Callable[..., Any]) -> dict[str, Any]:
    doc = inspect.getdoc(function) or ""
    known = settings(function)
    if table == "tasks" and not any(s.required for s in known.values()):
        known |= settings(function().loss)  # a task's floats are declared by its loss, which may depend on data of your own
    sources = re.search(r"References:\n((?:    .*\n?)+)", _reference_source(function))
    return {
        "name": name,
        "meaning": doc.partition("\n\n")[0].replace("\n", " "),
        "source": [line.strip() for line in sources.group(1).splitlines()] if sources else [],
        "settings": [
            {
                "name": s.name,
                "type": s.type_name,
                "default": None if s.required else _plain(s.default),
                "axis": s.traced and table not in ("selectors", "stoppers", "sinks"),
                "meaning": s.help,
            }
            for s in known.values()
        ],
    }


def _reference_source(function: Callable[..., Any]) -> str:
    return inspect.getdoc(inspect.unwrap(function)) or ""


def _plain(default: Any) -> Any:
    if isinstance(default, float) and math.isinf(default):
        return "inf"
    return list(default) if isinstance(default, tuple) else default
