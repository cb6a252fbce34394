"""Optimizers: functions from settings to an optax transformation.

The transformation is rebuilt inside the training step from traced scalars, one set a member. Rebuilding costs trace time
only, works for every common optimizer, and avoids the surprises of `optax.inject_hyperparams` (schedules that overwrite
edits, bfloat16 casts of b2, structure that depends on values). What it asks of a row: the state's structure must not
depend on a setting's value, so momentum is always a number, never None.

Rules about the gradient that every optimizer shares are declared once, in `gradient_rules`, and chained in front.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vmaptune.settings import NonNegative, Positive, Rate, with_settings

Optimizer = Callable[..., optax.GradientTransformation]


def gradient_rules(*, clip_norm: Positive = math.inf) -> optax.GradientTransformation:
    """What happens to the gradient before the optimizer sees it.

    Args:
        clip_norm: Largest global norm of the gradient; longer ones are scaled down to it. inf: never.

    References:
        Pascanu et al., On the difficulty of training recurrent neural networks, https://arxiv.org/abs/1211.5063
    """
    if isinstance(clip_norm, float) and math.isinf(clip_norm):
        return optax.identity()
    clip = optax.clip_by_global_norm(clip_norm)

    def update(gradient: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        # In float32, because optax cannot scale a bfloat16 gradient by a traced float32 norm.
        wide, state = clip.update(jax.tree.map(lambda g: g.astype(jnp.float32), gradient), state, params)
        return jax.tree.map(lambda w, g: w.astype(g.dtype), wide, gradient), state

    return optax.GradientTransformation(clip.init, update)


def _with_gradient_rules(optimizer: Optimizer) -> Optimizer:
    @functools.wraps(optimizer)
    def chained(*, clip_norm: Positive = math.inf, **settings: float) -> optax.GradientTransformation:
        return optax.chain(gradient_rules(clip_norm=clip_norm), optimizer(**settings))

    return with_settings(chained, optimizer, gradient_rules)


@_with_gradient_rules
def adamw(
    *,
    learning_rate: NonNegative = 1e-3,
    weight_decay: NonNegative = 0.0,
    b1: Rate = 0.9,
    b2: Rate = 0.999,
    eps: Positive = 1e-8,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay: each step also subtracts `learning_rate * weight_decay * params`.

    Args:
        learning_rate: Step size, before the schedule's multiplier.
        weight_decay: Pull of the weights to zero, in units of the learning rate.
        b1: Decay of the mean of gradients.
        b2: Decay of the mean of squared gradients.
        eps: Added to the root, against division by zero.
        nesterov: Nesterov momentum (NAdamW).

    References:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, https://arxiv.org/abs/1711.05101
    """
    return optax.adamw(learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, nesterov=nesterov)


@_with_gradient_rules
def sgd(
    *,
    learning_rate: NonNegative = 1e-2,
    momentum: Rate = 0.9,
    weight_decay: NonNegative = 0.0,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum; weight decay is added to the gradient (L2), as in PyTorch.

    Args:
        learning_rate: Step size, before the schedule's multiplier.
        momentum: Decay of the running sum of gradients; 0 is plain SGD.
        weight_decay: L2 penalty's gradient, per unit of weight.
        nesterov: Nesterov momentum.

    References:
        Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013
    """
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov))


OPTIMIZERS: dict[str, Optimizer] = {
    "adamw": adamw,
    "sgd": sgd,
}
