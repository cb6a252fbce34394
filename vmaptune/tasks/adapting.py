"""A task in one call from a model of any framework, with its loss and metric by name or function."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from vmaptune import models
from vmaptune.data.splits import Splits, check_splits
from vmaptune.errors import ConfigError, did_you_mean
from vmaptune.tasks.contract import Judged, Task
from vmaptune.tasks.losses import CLASSIFICATION_LOSSES, REGRESSION_LOSSES, LossOf
from vmaptune.tasks.metrics import CLASSIFICATION_METRICS, REGRESSION_METRICS, MetricOf
from vmaptune.tasks.supervised import Transform, classification, regression

Kind = Literal["classification", "regression"]


def supervised(
    model: models.Model,
    splits: Splits,
    *,
    loss: str | LossOf = "cross_entropy",
    metric: str | MetricOf | None = None,
    direction: Literal["max", "min"] | None = None,
    transform: Transform | None = None,
    where: str = "task",
    **unknown: Any,
) -> Task:
    """A classification or a regression, whichever the loss is for.

    A loss by name says itself. With one of your own it is the metric, if that is one by name which only one of the two has,
    and else the data: integer targets are classes.

    Args:
        model: Pure functions, from one of the adapters.
        splits: Parts of `(inputs, targets)`.
        loss: See `classification` and `regression`.
        metric: Likewise; default: accuracy of a classification, rmse of a regression.
        direction: "max" or "min" of a metric of your own.
        transform: What is done to the inputs while training; its floats are settings of the task.
        where: What to call the task in an error.
        **unknown: Whatever else was given; refused.

    Raises:
        ConfigError: As they do, or there is no such argument.
    """
    for name in unknown:
        raise ConfigError(f"{where}: there is no argument {name!r}{did_you_mean(name, Judged.__annotations__)}")
    build: Any = classification if _kind(loss, metric, splits, where) == "classification" else regression
    chosen = {} if metric is None else {"metric": metric}
    return build(model, splits, loss=loss, direction=direction, transform=transform, where=where, **chosen)


def example(splits: Splits, where: str) -> Any:
    """Inputs of one training example, [1, ...], for which adapters make weights.

    Raises:
        ConfigError: The splits are unusable.
    """
    check_splits(splits, where)
    return jax.tree.leaves(splits.train)[0][:1]


def _kind(loss: str | LossOf, metric: str | MetricOf | None, splits: Splits, where: str) -> Kind:
    if not callable(loss):
        if loss in CLASSIFICATION_LOSSES:
            return "classification"
        if loss in REGRESSION_LOSSES:
            return "regression"
        known = [*CLASSIFICATION_LOSSES, *REGRESSION_LOSSES]
        raise ConfigError(f"{where}: there is no loss {loss!r}{did_you_mean(str(loss), known)}")
    if metric in ("accuracy", *CLASSIFICATION_METRICS):
        return "classification"
    if metric in ("mae", *REGRESSION_METRICS):
        return "regression"
    check_splits(splits, where)
    return "regression" if jnp.issubdtype(jax.tree.leaves(splits.train)[-1].dtype, jnp.floating) else "classification"
