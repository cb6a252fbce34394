"""Tasks of examples with a known answer: classification and regression by a model of your own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import jax
import numpy as np

from vmaptune import models
from vmaptune.data.preparation import Preparation
from vmaptune.data.splits import Splits
from vmaptune.errors import ConfigError, did_you_mean
from vmaptune.settings import Fraction, NonNegative, Usual, settings, with_settings
from vmaptune.tasks.contract import Loss, Metrics, Serving, Task
from vmaptune.tasks.fitting import (
    check_functions,
    check_labels,
    check_targets,
    check_transform,
    check_two_classes,
    computed,
    outputs_of,
)
from vmaptune.tasks.losses import CLASSIFICATION_LOSSES, REGRESSION_LOSSES, LossOf, balanced
from vmaptune.tasks.metrics import CLASSIFICATION_METRICS, REGRESSION_METRICS, Metric, MetricOf, absolute_errors, hits
from vmaptune.tasks.regularisation import mixed, mixup_share, noisy, partners, transform_key

Transform = Callable[..., jax.Array]
"""`(inputs, key, *, <float settings>) -> inputs` of a batch, drawn anew in every step of the training."""


def classification(
    model: models.Model,
    splits: Splits,
    *,
    loss: Literal["cross_entropy", "binary_cross_entropy"] | LossOf = "cross_entropy",
    metric: Literal["accuracy", "balanced_accuracy", "f1", "roc_auc", "loss"] | MetricOf = "accuracy",
    direction: Literal["max", "min"] | None = None,
    transform: Transform | None = None,
    where: str = "task",
) -> Task:
    """A task that maps inputs to one of several classes.

    Settings of the training, all off by default and one value a member: `label_smoothing`, `class_balance`, `input_noise`,
    `mixup`, and the model's own.

    Args:
        model: Pure functions whose outputs are logits f32[batch, classes] (of class 1 alone, f32[batch, 1] or f32[batch],
            with the binary loss), from `vmaptune.models.from_nnx` or your own.
        splits: Parts of `(inputs, integer labels)`.
        loss: What is paid in training: a name, or a function of your own, `(outputs, labels, *, <float settings>) ->
            f32[batch]`, whose outputs may be logits of classes or of class 1 alone.
        metric: What members are selected by: a name, or a function of your own, `(outputs, labels) -> f32[]` of a whole
            split, measured under its own name. Accuracy and loss are always measured.
        direction: "max" or "min" of a metric of your own.
        transform: What is done to the inputs while training, before noise and mixup; its floats are settings of the task.
        where: What to call the task in an error.

    Raises:
        ConfigError: There is no such loss or metric, a function does not return what it should, a split is empty, ragged or
            non-finite, labels and logits do not fit together, or a split holds a single class: the training split, or any
            where the metric needs two.
    """
    base = _loss(CLASSIFICATION_LOSSES, loss, where)
    name, chosen = _metric(CLASSIFICATION_METRICS, metric, direction, {"accuracy": "max", "loss": "min"}, where)
    outputs = outputs_of(model, splits, where)
    binary = loss == "binary_cross_entropy" or (callable(loss) and outputs.shape in ((2,), (2, 1)))
    classes = check_labels(splits, outputs, binary=binary, where=where)
    check_functions(loss, metric, splits, outputs, where)
    if metric == "roc_auc":
        check_two_classes(splits, where)
    if "class_balance" in settings(base):
        raise ConfigError(f"{where}: the loss's setting 'class_balance' has the name of one of the task's; rename it")
    objective = balanced(base, np.asarray(splits.train[1]), classes)
    raw = Preparation("arrays", splits.train[0].shape[1:], int(np.prod(outputs.shape[1:])), classes=tuple(range(classes)))
    task = _supervised(model, splits, objective, "accuracy", hits, name, chosen, transform, raw, where)

    def remade(splits: Splits) -> Loss:
        return classification(
            model, splits, loss=loss, metric=metric, direction=direction, transform=transform, where=where
        ).loss

    task.loss.remade = remade  # type: ignore[attr-defined]
    return task


def regression(
    model: models.Model,
    splits: Splits,
    *,
    loss: Literal["mse", "huber"] | LossOf = "mse",
    metric: Literal["rmse", "mae", "r2", "loss"] | MetricOf = "rmse",
    direction: Literal["max", "min"] | None = None,
    transform: Transform | None = None,
    where: str = "task",
) -> Task:
    """A task that maps inputs to real numbers.

    Settings of the training, one value a member: `input_noise` and `mixup`, off by default, `huber_delta` of the Huber
    loss, and the model's own.

    Args:
        model: Pure functions whose outputs are f32[batch, outputs], or of one output f32[batch], from
            `vmaptune.models.from_nnx` or your own.
        splits: Parts of `(inputs, targets)`, targets f32[examples, outputs], or of one output f32[examples]. Nothing is
            scaled here: standardise them by the training split.
        loss: What is paid in training: a name, or a function of your own, `(outputs, targets, *, <float settings>) ->
            f32[batch]`.
        metric: What members are selected by: a name, or a function of your own, `(outputs, targets) -> f32[]` of a whole
            split, measured under its own name. The mean absolute error (mae) and the loss are always measured.
        direction: "max" or "min" of a metric of your own.
        transform: What is done to the inputs while training, before noise and mixup; its floats are settings of the task.
        where: What to call the task in an error.

    Raises:
        ConfigError: There is no such loss or metric, a function does not return what it should, a split is empty, ragged or
            non-finite, or targets and outputs do not fit together.
    """
    objective = _loss(REGRESSION_LOSSES, loss, where)
    name, chosen = _metric(REGRESSION_METRICS, metric, direction, {"mae": "min", "loss": "min"}, where)
    outputs = outputs_of(model, splits, where)
    check_targets(splits, outputs, where)
    check_functions(loss, metric, splits, outputs, where)
    raw = Preparation("arrays", splits.train[0].shape[1:], int(np.prod(outputs.shape[1:])))
    return _supervised(model, splits, objective, "mae", absolute_errors, name, chosen, transform, raw, where)


def _supervised(
    model: models.Model,
    splits: Splits,
    objective: LossOf,
    mean_name: str,
    mean_of: LossOf,
    metric: str,
    chosen: Metric,
    transform: Transform | None,
    raw: Preparation,
    where: str,
) -> Task:
    """The task of a model and an objective.

    Args:
        model: Its functions.
        splits: Parts of `(inputs, targets)`.
        objective: What each example pays; its floats are settings of the training loss.
        mean_name: Name of the metric that is a mean over examples.
        mean_of: It, of each example.
        metric: Name of what members are selected by.
        chosen: It, and its direction.
        transform: Of the inputs while training.
        raw: What inputs and targets are.
        where: What to call the task in an error.
    """

    def init(key: jax.Array, sample: Any) -> tuple[Any, Any]:
        del sample  # the model knows its own input shape
        return model.init(key)

    def loss(  # noqa: D417 - objective and model document their own
        params: Any,
        model_state: Any,
        batch: Any,
        key: jax.Array,
        *,
        train: bool,
        input_noise: Annotated[NonNegative, Usual(0.0, 0.5)] = 0.0,
        mixup: Fraction = 0.0,
        **others: Any,
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        """What is paid for a batch, and the metric that is a mean over it.

        Args:
            params: Weights.
            model_state: What the model carries besides weights.
            batch: `(inputs, targets)`.
            key: For what is drawn while training.
            train: Whether to draw and to regularise.
            input_noise: Standard deviation of the Gaussian noise added to the inputs while training, in their units.
            mixup: Alpha of mixup: every example is mixed with another of its batch, in shares drawn once a batch from
                Beta(alpha, alpha), and pays for both targets in the same shares. 0: never.
        """
        (inputs, targets), share = batch, None
        pays, of_model = objective, dict(others)
        of_objective, of_transform = (
            {name: of_model.pop(name) for name in declared if name in of_model} for declared in (own, of_inputs)
        )
        if train:
            pays = partial(objective, **of_objective)
            if transform is not None:
                inputs = transform(inputs, transform_key(key), **of_transform)
            share = mixup_share(key, mixup)
            inputs = noisy(inputs if share is None else mixed(inputs, share), input_noise, key)
        outputs, model_state = computed(model, params, model_state, inputs, key, train=train, **of_model)

        def mean(of: LossOf) -> jax.Array:
            each = of(outputs, targets)
            if share is not None:
                part = share.astype(each.dtype)
                each = part * each + (1 - part) * of(outputs, partners(targets))
            return each.mean()

        return mean(pays), (model_state, {mean_name: mean(mean_of)})

    def apply(params: Any, model_state: Any, inputs: Any) -> jax.Array:
        return computed(model, params, model_state, inputs, jax.random.key(0), train=False)[0]

    def predict(params: Any, model_state: Any, batch: Any) -> jax.Array:
        return apply(params, model_state, batch[0])

    def judge(outputs: jax.Array, data: Any) -> Metrics:
        means = {name: of(outputs, data[1]).mean() for name, of in (("loss", objective), (mean_name, mean_of))}
        return means if metric in means else means | score(outputs, data)

    def score(outputs: jax.Array, data: Any) -> Metrics:
        return {metric: chosen.of(outputs, data[1])}

    if transform is not None:
        check_transform(transform, splits.train[0], where)
    own, of_inputs = settings(objective), settings(transform) if transform else {}
    taken = {"input_noise", "mixup"}
    for whose, names in (("loss's", own), ("transform's", of_inputs), ("model's", settings(model.apply))):
        if twice := taken & {*names}:
            raise ConfigError(f"{where}: the {whose} setting {min(twice)!r} has the name of one of the task's; rename it")
        taken |= {*names}
    with_settings(loss, objective, *([transform] if transform else []), model.apply)
    task = Task(init, loss, splits, metric, chosen.direction, serving=Serving(apply, judge, raw))
    return task if metric in ("loss", mean_name) else task._replace(predict=predict, score=score)


def _loss(table: dict[str, LossOf], loss: str | LossOf, where: str) -> LossOf:
    return loss if callable(loss) else _row(table, loss, "loss", where)


def _metric(
    table: dict[str, Metric],
    metric: str | MetricOf,
    direction: Literal["max", "min"] | None,
    means: dict[str, Literal["max", "min"]],
    where: str,
) -> tuple[str, Metric]:
    """The name and the row of a metric; one that the loss measures has a direction only."""
    if not callable(metric):
        row = _row(table | {mean: Metric(_not_of_a_split, best) for mean, best in means.items()}, metric, "metric", where)
        if direction not in (None, row.direction):
            raise ConfigError(f"{where}: the direction of {metric} is {row.direction!r}; given: {direction!r}")
        return metric, row
    name = getattr(metric, "__name__", "")
    name = name if name.isidentifier() else "metric"  # a lambda, or an object with a call
    if name in means:
        raise ConfigError(f"{where}: {name!r} is always measured; give the metric of your own another name")
    if direction not in ("max", "min"):
        raise ConfigError(f"{where}: a metric of your own needs a direction, 'max' or 'min'; given: {direction!r}")
    return name, Metric(metric, direction)


def _row(table: dict[str, Any], name: Any, what: str, where: str) -> Any:
    if not isinstance(name, str) or name not in table:
        raise ConfigError(f"{where}: there is no {what} {name!r}{did_you_mean(str(name), table)}")
    return table[name]


def _not_of_a_split(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    raise NotImplementedError("a mean over examples is measured by the loss")
