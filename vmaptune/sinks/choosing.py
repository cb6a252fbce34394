"""Sinks by name: those that are shipped and those of a user's own, with their settings checked before anything is trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

from vmaptune.errors import ConfigError, did_you_mean
from vmaptune.lookup import find_object
from vmaptune.settings import convert, settings, show
from vmaptune.sinks.contract import RunInfo
from vmaptune.sinks.mlflow import mlflow
from vmaptune.sinks.tables import csv, parquet
from vmaptune.sinks.tensorboard import tensorboard
from vmaptune.sinks.wandb import wandb
from vmaptune.store.record import Sink

SINKS: dict[str, Callable[..., Sink]] = {
    "tensorboard": tensorboard,
    "mlflow": mlflow,
    "wandb": wandb,
    "csv": csv,
    "parquet": parquet,
}
"""The names that a section `[sinks.NAME]` may have, besides those of a user's own."""

_NEEDS = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}


class Chosen(NamedTuple):
    """A sink that can be made.

    Attributes:
        name: Its name in the config.
        make: Opens it for a run.
    """

    name: str
    make: Callable[[RunInfo], Sink]


def choose_sinks(tables: Mapping[str, Mapping[str, Any]]) -> list[Chosen]:
    """Reads the sections `[sinks.NAME]`; opens nothing.

    Args:
        tables: Settings by the name of each sink: a row of `SINKS`, `package.module:factory` or `path/to/file.py:factory`.

    Raises:
        ConfigError: There is no such sink, its package is not installed, or a setting does not fit.
    """
    return [Chosen(name, partial(_factory(name), **_values(name, given))) for name, given in tables.items()]


def _factory(name: str) -> Callable[..., Sink]:
    if name not in SINKS and ":" not in name:
        own = "or give package.module:factory, or file.py:factory"
        raise ConfigError(f"sinks: there is no sink {name!r}{did_you_mean(name, SINKS)} ({own})")
    if name in _NEEDS and find_spec(_NEEDS[name]) is None:
        raise ConfigError(f"sinks.{name}: {_NEEDS[name]} is not installed: pip install 'vmaptune[{name}]'")
    factory: Callable[..., Sink] = SINKS[name] if name in SINKS else find_object(name, f"sinks.{name}")
    try:
        inspect.signature(factory).bind(None, **dict.fromkeys(settings(factory)))
    except (TypeError, ValueError):
        expected = "expected a function of the run, whose other parameters are keyword-only"
        raise ConfigError(f"sinks.{name}: does not make a sink: {expected}; found: {show(factory)}") from None
    return factory


def _values(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    known = settings(_factory(name))
    for key in given:
        if key not in known:
            raise ConfigError(f"sinks.{name}: it has no setting {key!r}{did_you_mean(key, known)}")
    for setting in known.values():
        if setting.required and setting.name not in given:
            raise ConfigError(f"sinks.{name}.{setting.name}: must be given ({setting.type_name}); it has no default")
    return {key: convert(known[key], value, f"sinks.{name}.{key}") for key, value in given.items()}
