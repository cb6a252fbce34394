"""Metrics of supervised tasks: functions of outputs and targets of a whole split, equal to scikit-learn's.

A class that the targets do not hold has no recall and no AUC: it is left out of the mean over classes, as scikit-learn's
`balanced_accuracy_score` does. A class that is neither there nor predicted is left out of the F1 likewise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.stats import rankdata

from vmaptune.tasks.losses import per_example

MetricOf = Callable[[jax.Array, jax.Array], jax.Array]
"""`(outputs, targets) -> f32[]`, of all examples of a split."""


class Metric(NamedTuple):
    """How good outputs are.

    Attributes:
        of: `(outputs, targets) -> f32[]`, of all examples of a split.
        direction: Whether more is better ("max") or less ("min").
    """

    of: MetricOf
    direction: Literal["max", "min"]


# ---------------------------------------------------------------------------------------------------- of each example


def hits(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """1 where the most likely class is the label, else 0: f32[batch]. Its mean is the accuracy."""
    return (predicted_class(outputs) == labels).astype(jnp.float32)


def absolute_errors(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """The absolute error of each example, the mean over its outputs: f32[batch], in units of the target."""
    return per_example(jnp.abs(outputs.reshape(targets.shape) - targets))


def predicted_class(outputs: jax.Array) -> jax.Array:
    """The most likely class i32[batch], from logits f32[batch, classes], or of class 1 alone: f32[batch] or f32[batch, 1]."""
    if is_binary_logit(outputs):
        return (outputs.reshape(-1) > 0).astype(jnp.int32)
    return jnp.argmax(outputs, axis=-1)


def is_binary_logit(outputs: jax.Array) -> bool:
    """True if outputs are the logits of class 1 of two, not one column a class."""
    return outputs.ndim == 1 or outputs.shape[1] == 1


# ---------------------------------------------------------------------------------------------------- of a whole split


def balanced_accuracy(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean over classes of the share of their examples that are recognised.

    Args:
        outputs: f32[n, classes], logits; or of class 1 alone.
        labels: i32[n].

    References:
        Brodersen et al., The Balanced Accuracy and Its Posterior Distribution, ICPR 2010
    """
    hit, actual, _ = _counts(outputs, labels)
    return _mean_where(hit / jnp.maximum(actual, 1.0), actual > 0)


def f1(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Harmonic mean of precision and recall: of class 1 if there are two classes, else the mean over classes (macro).

    Args:
        outputs: f32[n, classes], logits; or of class 1 alone.
        labels: i32[n].

    Returns:
        f32[]; 0 for two classes where class 1 is neither there nor predicted.

    References:
        van Rijsbergen, Information Retrieval, 1979
    """
    hit, actual, predicted = _counts(outputs, labels)
    total = actual + predicted
    each = 2.0 * hit / jnp.maximum(total, 1.0)
    return each[1] if len(each) == 2 else _mean_where(each, total > 0)


def roc_auc(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Area under the curve of true over false positives: the chance that one of a class is scored above one that is not.

    Of class 1 if there are two classes, else each class against the rest by its softmax, the mean over classes. Exact,
    ties included, from average ranks.

    Args:
        outputs: f32[n, classes], logits; or of class 1 alone.
        labels: i32[n].

    Returns:
        f32[]; NaN if the labels are all the same, or an output is NaN.

    References:
        Hanley & McNeil, The meaning and use of the area under a ROC curve, Radiology 143, 1982
        Hand & Till, A Simple Generalisation of the Area Under the ROC Curve, Machine Learning 45, 2001
    """
    if is_binary_logit(outputs) or outputs.shape[1] == 2:
        scores = outputs.reshape(-1) if is_binary_logit(outputs) else outputs[:, 1] - outputs[:, 0]
        return _auc(scores, labels == 1)
    scores = jax.nn.log_softmax(outputs, axis=-1)  # ranks as the softmax does, and does not saturate at 1
    is_class = jax.nn.one_hot(labels, outputs.shape[1], dtype=bool)
    each = jax.vmap(_auc, in_axes=1)(scores, is_class)
    return _mean_where(each, is_class.any(axis=0) & ~is_class.all(axis=0))


def rmse(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Root of the mean squared error, the mean over outputs, in units of the target.

    Args:
        outputs: f32[n, outputs], or one output: f32[n] or f32[n, 1].
        targets: f32[n, outputs] or f32[n].
    """
    errors = outputs.reshape(targets.shape) - targets
    return jnp.mean(jnp.sqrt(jnp.mean(errors**2, axis=0)))


def r2(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Share of the targets' variance that is explained, the mean over outputs: 1 is perfect, 0 as good as the mean.

    Of constant targets it is 1 where they are met exactly, else 0.

    Args:
        outputs: f32[n, outputs], or one output: f32[n] or f32[n, 1].
        targets: f32[n, outputs] or f32[n].

    References:
        Draper & Smith, Applied Regression Analysis, 1998
    """
    columns = targets.reshape(len(targets), -1)
    left = jnp.sum((outputs.reshape(columns.shape) - columns) ** 2, axis=0)
    total = jnp.sum((columns - columns.mean(axis=0, keepdims=True)) ** 2, axis=0)
    constant = jnp.all(columns == columns[:1], axis=0)  # its sum of squares may be a rounding away from 0
    explained = 1.0 - left / jnp.where(constant, 1.0, total)
    return jnp.mean(jnp.where(constant, (left == 0.0).astype(left.dtype), explained))


def _counts(outputs: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Examples of each class that are recognised, that there are, and that are predicted: f32[classes] each."""
    classes = 2 if is_binary_logit(outputs) else outputs.shape[1]
    is_class = jax.nn.one_hot(labels, classes, dtype=bool)
    is_predicted = jax.nn.one_hot(predicted_class(outputs), classes, dtype=bool)
    hit, actual, predicted = (
        each.sum(axis=0).astype(jnp.float32) for each in (is_class & is_predicted, is_class, is_predicted)
    )
    return hit, actual, predicted


def _auc(scores: jax.Array, positive: jax.Array) -> jax.Array:
    """f32[n], bool[n] -> f32[]. The ranks of the positive are taken from the middle: small numbers, exact in float32."""
    n = len(scores)
    positives = positive.sum().astype(jnp.float32)
    above = jnp.sum(jnp.where(positive, rankdata(scores) - (n + 1) / 2, 0.0))
    return 0.5 + above / (positives * (n - positives))  # nobody to compare with: 0 / 0, NaN


def _mean_where(each: jax.Array, there: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(there, each, 0.0)) / jnp.sum(there)


CLASSIFICATION_METRICS: dict[str, Metric] = {
    "balanced_accuracy": Metric(balanced_accuracy, "max"),
    "f1": Metric(f1, "max"),
    "roc_auc": Metric(roc_auc, "max"),
}
REGRESSION_METRICS: dict[str, Metric] = {"rmse": Metric(rmse, "min"), "r2": Metric(r2, "max")}
