"""Tasks of examples with a known answer: classification and regression by a model of your own."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune import models
from vmaptune.data.splits import Splits, check_splits
from vmaptune.errors import ConfigError, did_you_mean
from vmaptune.settings import Fraction, NonNegative, Usual, settings, with_settings
from vmaptune.tasks.contract import Metrics, Task
from vmaptune.tasks.losses import CLASSIFICATION_LOSSES, REGRESSION_LOSSES, LossOf, balanced
from vmaptune.tasks.metrics import CLASSIFICATION_METRICS, REGRESSION_METRICS, Metric, absolute_errors, hits
from vmaptune.tasks.regularisation import mixed, mixup_share, noisy, partners


def classification(
    model: models.Model,
    splits: Splits,
    *,
    loss: Literal["cross_entropy", "binary_cross_entropy"] = "cross_entropy",
    metric: Literal["accuracy", "balanced_accuracy", "f1", "roc_auc", "loss"] = "accuracy",
    where: str = "task",
) -> Task:
    """A task that maps inputs to one of several classes.

    Settings of the training, all off by default and one value a member: `label_smoothing`, `class_balance`, `input_noise`,
    `mixup`, and the model's own.

    Args:
        model: Pure functions whose outputs are logits f32[batch, classes] (of class 1 alone, f32[batch, 1] or f32[batch],
            with the binary loss), from `vmaptune.models.from_nnx` or your own.
        splits: Parts of `(inputs, integer labels)`.
        loss: What is paid in training.
        metric: What members are selected by. Accuracy and loss are always measured.
        where: What to call the task in an error.

    Raises:
        ConfigError: There is no such loss or metric, a split is empty, ragged or non-finite, labels and logits do not fit
            together, or a split holds a single class where the metric needs two.
    """
    base = _row(CLASSIFICATION_LOSSES, loss, "loss", where)
    chosen = _metric(CLASSIFICATION_METRICS, metric, {"accuracy": "max", "loss": "min"}, where)
    check_splits(splits, where)
    classes = _check_labels(splits, _outputs(model, splits, where), binary=loss == "binary_cross_entropy", where=where)
    if metric == "roc_auc":
        _check_two_classes(splits, where)
    objective = balanced(base, np.asarray(splits.train[1]), classes)
    return _supervised(model, splits, objective, "accuracy", hits, metric, chosen, where)


def regression(
    model: models.Model,
    splits: Splits,
    *,
    loss: Literal["mse", "huber"] = "mse",
    metric: Literal["rmse", "mae", "r2", "loss"] = "rmse",
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
        loss: What is paid in training.
        metric: What members are selected by. The mean absolute error (mae) and the loss are always measured.
        where: What to call the task in an error.

    Raises:
        ConfigError: There is no such loss or metric, a split is empty, ragged or non-finite, or targets and outputs do not
            fit together.
    """
    objective = _row(REGRESSION_LOSSES, loss, "loss", where)
    chosen = _metric(REGRESSION_METRICS, metric, {"mae": "min", "loss": "min"}, where)
    check_splits(splits, where)
    _check_targets(splits, _outputs(model, splits, where), where)
    return _supervised(model, splits, objective, "mae", absolute_errors, metric, chosen, where)


def _supervised(
    model: models.Model,
    splits: Splits,
    objective: LossOf,
    mean_name: str,
    mean_of: LossOf,
    metric: str,
    chosen: Metric,
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
        (inputs, targets), of_model = batch, {name: value for name, value in others.items() if name not in own}
        pays, share = objective, None
        if train:
            pays = partial(objective, **{name: value for name, value in others.items() if name in own})
            share = mixup_share(key, mixup)
            inputs = noisy(inputs if share is None else mixed(inputs, share), input_noise, key)
        outputs, model_state = model.apply(params, model_state, inputs, key, train=train, **of_model)

        def mean(of: LossOf) -> jax.Array:
            each = of(outputs, targets)
            if share is not None:
                part = share.astype(each.dtype)
                each = part * each + (1 - part) * of(outputs, partners(targets))
            return each.mean()

        return mean(pays), (model_state, {mean_name: mean(mean_of)})

    def predict(params: Any, model_state: Any, batch: Any) -> jax.Array:
        return model.apply(params, model_state, batch[0], jax.random.key(0), train=False)[0]

    def score(outputs: jax.Array, data: Any) -> Metrics:
        return {metric: chosen.of(outputs, data[1])}

    own = settings(objective)
    taken = {*own, "input_noise", "mixup"} & {*settings(model.apply)}
    if taken:
        raise ConfigError(f"{where}: the model's setting {min(taken)!r} has the name of one of the task's; rename it")
    with_settings(loss, objective, model.apply)
    if metric in ("loss", mean_name):
        return Task(init, loss, splits, metric, chosen.direction)
    return Task(init, loss, splits, metric, chosen.direction, predict, score)


def _row(table: dict[str, Any], name: str, what: str, where: str) -> Any:
    if name not in table:
        raise ConfigError(f"{where}: there is no {what} {name!r}{did_you_mean(name, table)}")
    return table[name]


def _metric(table: dict[str, Metric], name: str, means: dict[str, Literal["max", "min"]], where: str) -> Metric:
    """The row of a metric; one that the loss measures has a direction only."""
    return _row(table | {mean: Metric(_not_of_a_split, direction) for mean, direction in means.items()}, name, "metric", where)


def _not_of_a_split(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    raise NotImplementedError("a mean over examples is measured by the loss")


# ------------------------------------------------------------------------------------------------------ does it fit?


def _outputs(model: models.Model, splits: Splits, where: str) -> Any:
    """Shape and type of the model's outputs for two examples."""
    inputs = splits.train[0]

    def forward(key: jax.Array, batch: Any) -> jax.Array:
        params, state = model.init(key)
        return model.apply(params, state, batch, key, train=False)[0]

    two = jax.ShapeDtypeStruct((2, *inputs.shape[1:]), inputs.dtype)
    try:
        return jax.eval_shape(forward, jax.random.key(0), two)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: the model does not take inputs of shape {inputs.shape[1:]}: {error}") from error


def _check_labels(splits: Splits, logits: Any, *, binary: bool, where: str) -> int:
    """Raises `ConfigError` if labels and logits do not fit together; returns the number of classes."""
    if binary and logits.shape not in ((2,), (2, 1)):
        raise ConfigError(
            f"{where}: with the binary loss, the model must return logits of shape (batch,) or (batch, 1); "
            f"given: {logits.shape} for a batch of 2"
        )
    if not binary and len(logits.shape) != 2:
        raise ConfigError(
            f"{where}: the model must return logits of shape (batch, classes); given: {logits.shape} for a batch of 2"
        )
    classes = 2 if binary else logits.shape[1]
    expected = "0 or 1" if binary else f"one of 0..{classes - 1}, the model's outputs"
    for part in Splits._fields:
        found = getattr(splits, part)[1]
        if not jnp.issubdtype(found.dtype, jnp.integer):
            raise ConfigError(f"{where}: labels must be integers; given: {found.dtype} in the {part} split")
        if found.ndim != 1 or found.min() < 0 or found.max() >= classes:
            raise ConfigError(
                f"{where}: labels must be {expected}; "
                f"given: {found.min()}..{found.max()}, shape {found.shape}, in the {part} split"
            )
    return classes


def _check_two_classes(splits: Splits, where: str) -> None:
    for part in ("validation", "test"):
        labels = getattr(splits, part)[1]
        if labels.min() == labels.max():
            raise ConfigError(
                f"{where}: roc_auc compares classes; given: only label {labels.min()} in the {part} split; stratify the splits"
            )


def _check_targets(splits: Splits, outputs: Any, where: str) -> None:
    targets = splits.train[1]
    if not jnp.issubdtype(targets.dtype, jnp.floating):
        raise ConfigError(f"{where}: targets must be real numbers; given: {targets.dtype} in the train split")
    width = targets.shape[1:] or (1,)
    if outputs.shape not in ((2, *width), *([(2,)] if width == (1,) else [])):
        raise ConfigError(
            f"{where}: the model must return one number a target, shape {('batch', *targets.shape[1:])}; "
            f"given: {outputs.shape} for a batch of 2, targets of shape {targets.shape}"
        )
