"""vmaptune: trains a whole population of small networks as one compiled JAX program, and evolves it while it trains.

The public names are listed here and imported when they are first used, so that `import vmaptune` and `vmaptune --help`
stay quick. With the first of them, XLA is asked for one CPU device a core (see `vmaptune.plan.prepare_backend`): building a
model starts its backend, and then it is too late.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AllMembersFailed": "errors",
    "Axis": "space",
    "Best": "result",
    "CohortResult": "cohorts",
    "ConfigError": "errors",
    "HistoryArray": "store.reading",
    "Member": "population",
    "Offspring": "population",
    "Plan": "plan",
    "Predictor": "analysis.predictor",
    "Record": "store.record",
    "Result": "result",
    "RunConfig": "config",
    "Selector": "selectors",
    "Sink": "store.record",
    "Space": "space",
    "Splits": "data.splits",
    "Status": "population",
    "StoreError": "errors",
    "Stream": "population",
    "Task": "tasks",
    "View": "selectors",
    "VmaptuneError": "errors",
    "VmaptuneWarning": "errors",
    "as_optax_schedule": "analysis.schedule_code",
    "compare": "studies",
    "ensemble": "analysis.ensemble",
    "evaluate_schedules": "studies",
    "inherit": "population",
    "init_population": "population",
    "load": "analysis.predictor",
    "load_config": "toml",
    "lr_range_test": "studies",
    "make_evaluate": "train",
    "make_newborn": "population",
    "make_plan": "plan",
    "make_segment": "train",
    "replay": "analysis.replay",
    "stream_key": "population",
    "tune": "loop",
    "tune_cohorts": "cohorts",
    "verify": "analysis.verify",
}
_ROOMS = ("data", "models", "optimizers", "schedules", "selectors", "tasks")

__all__ = [*_HOMES, *_ROOMS, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES or name in _ROOMS:
        if _HOMES.get(name) != "errors":
            importlib.import_module("vmaptune.plan").prepare_backend()
        module = importlib.import_module(f"vmaptune.{_HOMES.get(name, name)}")
        return getattr(module, name) if name in _HOMES else module
    raise AttributeError(f"module 'vmaptune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from vmaptune import data, models, optimizers, schedules, selectors, tasks
    from vmaptune.analysis.ensemble import ensemble
    from vmaptune.analysis.predictor import Predictor, load
    from vmaptune.analysis.replay import replay
    from vmaptune.analysis.schedule_code import as_optax_schedule
    from vmaptune.analysis.verify import verify
    from vmaptune.cohorts import CohortResult, tune_cohorts
    from vmaptune.config import RunConfig
    from vmaptune.data.splits import Splits
    from vmaptune.errors import AllMembersFailed, ConfigError, StoreError, VmaptuneError, VmaptuneWarning
    from vmaptune.loop import tune
    from vmaptune.plan import Plan, make_plan
    from vmaptune.population import Member, Offspring, Status, Stream, inherit, init_population, make_newborn, stream_key
    from vmaptune.result import Best, Result
    from vmaptune.selectors import Selector, View
    from vmaptune.space import Axis, Space
    from vmaptune.store.reading import HistoryArray
    from vmaptune.store.record import Record, Sink
    from vmaptune.studies import compare, evaluate_schedules, lr_range_test
    from vmaptune.tasks import Task
    from vmaptune.toml import load_config
    from vmaptune.train import make_evaluate, make_segment
