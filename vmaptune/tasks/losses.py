"""Losses of supervised tasks: functions of outputs and targets, and what each example pays.

Keyword-only floats are settings of the training loss. Members are measured with their defaults, so that those who train
with different settings are measured alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vmaptune.settings import Fraction, Positive, Rate, Usual, with_settings

LossOf = Callable[..., jax.Array]
"""`(outputs, targets, *, <float settings>) -> f32[batch]`, what each example pays."""


def cross_entropy(
    logits: jax.Array, labels: jax.Array, *, label_smoothing: Annotated[Rate, Usual(0.0, 0.3)] = 0.0
) -> jax.Array:
    """Cross-entropy of a softmax, in nats.

    Args:
        logits: f32[batch, classes].
        labels: i32[batch], in 0..classes-1.
        label_smoothing: Share of the probability that the target spreads evenly over all classes.

    Returns:
        f32[batch].

    References:
        Szegedy et al., Rethinking the Inception Architecture for Computer Vision, https://arxiv.org/abs/1512.00567
    """
    if is_off(label_smoothing):
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.losses.softmax_cross_entropy(logits, optax.losses.smooth_labels(targets, label_smoothing))


def binary_cross_entropy(
    logits: jax.Array, labels: jax.Array, *, label_smoothing: Annotated[Rate, Usual(0.0, 0.3)] = 0.0
) -> jax.Array:
    """Cross-entropy of a sigmoid, in nats: the same as that of a softmax whose other logit is 0.

    Args:
        logits: f32[batch] or f32[batch, 1], of class 1.
        labels: i32[batch], 0 or 1.
        label_smoothing: Share of the probability that the target spreads evenly over both classes.

    Returns:
        f32[batch].

    References:
        Szegedy et al., Rethinking the Inception Architecture for Computer Vision, https://arxiv.org/abs/1512.00567
    """
    logits = logits.reshape(labels.shape)
    targets = labels.astype(logits.dtype)
    if not is_off(label_smoothing):
        targets = targets * (1.0 - label_smoothing) + label_smoothing / 2.0
    return optax.losses.sigmoid_binary_cross_entropy(logits, targets)


def mse(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Squared error (not halved), the mean over an example's outputs, in squared units of the target.

    Args:
        predictions: f32[batch, outputs], or one output: f32[batch] or f32[batch, 1].
        targets: f32[batch, outputs] or f32[batch].

    Returns:
        f32[batch].
    """
    return per_example(optax.losses.squared_error(predictions.reshape(targets.shape), targets))


def huber(
    predictions: jax.Array, targets: jax.Array, *, huber_delta: Annotated[Positive, Usual(0.1, 10.0, "log")] = 1.0
) -> jax.Array:
    """Huber's loss, half the squared error near the target and linear beyond, the mean over an example's outputs.

    Args:
        predictions: f32[batch, outputs], or one output: f32[batch] or f32[batch, 1].
        targets: f32[batch, outputs] or f32[batch].
        huber_delta: Error beyond which the loss is linear, in units of the target. Members are measured with 1.

    Returns:
        f32[batch].

    References:
        Huber, Robust Estimation of a Location Parameter, Annals of Mathematical Statistics 35, 1964
    """
    return per_example(optax.losses.huber_loss(predictions.reshape(targets.shape), targets, delta=huber_delta))


def balanced(loss: LossOf, labels: np.ndarray, classes: int) -> LossOf:
    """The same loss, with the setting `class_balance`: rare classes count more.

    Args:
        loss: Of integer labels.
        labels: i32[examples], of the training split.
        classes: How many there are.

    References:
        Japkowicz & Stephen, The class imbalance problem: A systematic study, Intelligent Data Analysis 6, 2002
    """
    share = np.bincount(labels, minlength=classes) / len(labels)
    present = share > 0  # a class without training examples is never weighted, and must not make the others infinite
    rarity = np.where(present, -np.log(np.where(present, share, 1.0)), 0.0).astype(np.float32)
    share = share.astype(np.float32)

    def weighted(  # noqa: D417 - the loss documents its own
        outputs: jax.Array, labels: jax.Array, *, class_balance: Fraction = 0.0, **settings: Any
    ) -> jax.Array:
        """What each example pays, by the weight of its class.

        Args:
            outputs: Of the model.
            labels: i32[batch].
            class_balance: Weight of a class: its frequency in training to the power of minus this, scaled so that the
                mean over training examples is 1. 0: every example counts alike; 1: every class does.
        """
        each = loss(outputs, labels, **settings)
        if is_off(class_balance):
            return each
        weight = jnp.exp(class_balance * rarity)
        return each * (weight / jnp.sum(share * weight))[labels].astype(each.dtype)

    return with_settings(weighted, loss)


def per_example(errors: jax.Array) -> jax.Array:
    """The mean over all but the leading axis: f32[batch]."""
    return errors.reshape(len(errors), -1).mean(axis=1)


def is_off(setting: Any) -> bool:
    """True for Python's own 0.0: a setting at rest for good, whose work is left out of the program. A traced 0 is not."""
    return isinstance(setting, float) and setting == 0.0


CLASSIFICATION_LOSSES: dict[str, LossOf] = {"cross_entropy": cross_entropy, "binary_cross_entropy": binary_cross_entropy}
REGRESSION_LOSSES: dict[str, LossOf] = {"mse": mse, "huber": huber}
