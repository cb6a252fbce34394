"""Adam and its relatives: a mean of gradients over the root of a mean of their squares."""

from __future__ import annotations

from typing import Annotated

import optax
from msgspec import Meta

from vmaptune.optimizers.ranges import Epsilon, FirstMoment, Gentle, SecondMoment
from vmaptune.optimizers.rules import shared
from vmaptune.settings import NonNegative, Positive, Usual


@shared("l2")
def adam(
    pull: optax.GradientTransformation,
    *,
    learning_rate: Gentle = 1e-3,
    b1: FirstMoment = 0.9,
    b2: SecondMoment = 0.999,
    eps: Epsilon = 1e-8,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Adam; weight decay is added to the gradient (L2), as in PyTorch.

    Args:
        pull: What decoupled weight decay adds.
        learning_rate: Step size, before the schedule's multiplier.
        b1: Decay of the mean of gradients.
        b2: Decay of the mean of squared gradients.
        eps: Added to the root, against division by zero.
        nesterov: Nesterov momentum (NAdam).

    References:
        Kingma & Ba, Adam: A Method for Stochastic Optimization, https://arxiv.org/abs/1412.6980
    """
    return optax.chain(optax.scale_by_adam(b1, b2, eps, nesterov=nesterov), pull, optax.scale_by_learning_rate(learning_rate))


@shared("decoupled")
def adamw(
    pull: optax.GradientTransformation,
    *,
    learning_rate: Gentle = 1e-3,
    b1: FirstMoment = 0.9,
    b2: SecondMoment = 0.999,
    eps: Epsilon = 1e-8,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay: each step also subtracts `learning_rate * weight_decay * params`.

    Args:
        pull: What decoupled weight decay adds.
        learning_rate: Step size, before the schedule's multiplier.
        b1: Decay of the mean of gradients.
        b2: Decay of the mean of squared gradients.
        eps: Added to the root, against division by zero.
        nesterov: Nesterov momentum (NAdamW).

    References:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, https://arxiv.org/abs/1711.05101
    """
    return optax.chain(optax.scale_by_adam(b1, b2, eps, nesterov=nesterov), pull, optax.scale_by_learning_rate(learning_rate))


@shared("decoupled")
def nadamw(
    pull: optax.GradientTransformation,
    *,
    learning_rate: Gentle = 1e-3,
    b1: FirstMoment = 0.9,
    b2: SecondMoment = 0.999,
    eps: Epsilon = 1e-8,
) -> optax.GradientTransformation:
    """AdamW with Nesterov momentum.

    Args:
        pull: What decoupled weight decay adds.
        learning_rate: Step size, before the schedule's multiplier.
        b1: Decay of the mean of gradients.
        b2: Decay of the mean of squared gradients.
        eps: Added to the root, against division by zero.

    References:
        Dozat, Incorporating Nesterov Momentum into Adam, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ
    """
    return optax.chain(optax.scale_by_adam(b1, b2, eps, nesterov=True), pull, optax.scale_by_learning_rate(learning_rate))


@shared("l2")
def radam(
    pull: optax.GradientTransformation,
    *,
    learning_rate: Gentle = 1e-3,
    b1: FirstMoment = 0.9,
    b2: SecondMoment = 0.999,
    eps: Epsilon = 1e-8,
    threshold: Annotated[float, Meta(ge=4), Usual(4, 6)] = 5.0,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Rectified Adam: plain momentum until enough squared gradients are known, so that it needs no warm-up.

    Args:
        pull: What decoupled weight decay adds.
        learning_rate: Step size, before the schedule's multiplier.
        b1: Decay of the mean of gradients.
        b2: Decay of the mean of squared gradients.
        eps: Added to the root, against division by zero.
        threshold: Length of the mean of squares, in steps, from which it is used.
        nesterov: Nesterov momentum.

    References:
        Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, https://arxiv.org/abs/1908.03265
    """
    return optax.chain(
        optax.scale_by_radam(b1, b2, eps, threshold=threshold, nesterov=nesterov),
        pull,
        optax.scale_by_learning_rate(learning_rate),
    )


@shared("decoupled")
def adabelief(
    pull: optax.GradientTransformation,
    *,
    learning_rate: Gentle = 1e-3,
    b1: FirstMoment = 0.9,
    b2: SecondMoment = 0.999,
    eps: Annotated[Positive, Usual(1e-16, 1e-3, "log")] = 1e-16,
    eps_root: Annotated[NonNegative, Usual(1e-16, 1e-3, "log")] = 1e-16,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Adam that divides by how far gradients are from what was expected, not by their size.

    Args:
        pull: What decoupled weight decay adds.
        learning_rate: Step size, before the schedule's multiplier.
        b1: Decay of the mean of gradients.
        b2: Decay of the mean of squared surprises.
        eps: Added to the root, against division by zero.
        eps_root: Added to the mean of squared surprises in every step.
        nesterov: Nesterov momentum.

    References:
        Zhuang et al., AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients,
            https://arxiv.org/abs/2010.07468
    """
    return optax.chain(
        optax.scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov), pull, optax.scale_by_learning_rate(learning_rate)
    )


@shared("l2")
def adamax(
    pull: optax.GradientTransformation,
    *,
    learning_rate: Gentle = 2e-3,
    b1: FirstMoment = 0.9,
    b2: SecondMoment = 0.999,
    eps: Epsilon = 1e-8,
) -> optax.GradientTransformation:
    """Adam that divides by the largest recent gradient.

    Args:
        pull: What decoupled weight decay adds.
        learning_rate: Step size, before the schedule's multiplier.
        b1: Decay of the mean of gradients.
        b2: Decay of the largest gradient.
        eps: Added to the size of each gradient, against division by zero.

    References:
        Kingma & Ba, Adam: A Method for Stochastic Optimization (section 7.1), https://arxiv.org/abs/1412.6980
    """
    return optax.chain(optax.scale_by_adamax(b1, b2, eps), pull, optax.scale_by_learning_rate(learning_rate))


@shared("l2")
def yogi(
    pull: optax.GradientTransformation,
    *,
    learning_rate: Gentle = 1e-2,
    b1: FirstMoment = 0.9,
    b2: SecondMoment = 0.999,
    eps: Annotated[Positive, Usual(1e-8, 1e-1, "log")] = 1e-3,
) -> optax.GradientTransformation:
    """Adam whose mean of squares moves by steps of the new square's size, and so never grows or falls abruptly.

    Args:
        pull: What decoupled weight decay adds.
        learning_rate: Step size, before the schedule's multiplier.
        b1: Decay of the mean of gradients.
        b2: Decay of the mean of squared gradients.
        eps: Added to the root, against division by zero.

    References:
        Zaheer et al., Adaptive Methods for Nonconvex Optimization, https://papers.nips.cc/paper/8186
    """
    return optax.chain(optax.scale_by_yogi(b1, b2, eps), pull, optax.scale_by_learning_rate(learning_rate))


@shared("decoupled")
def lamb(
    pull: optax.GradientTransformation,
    *,
    learning_rate: Gentle = 1e-3,
    b1: FirstMoment = 0.9,
    b2: SecondMoment = 0.999,
    eps: Epsilon = 1e-6,
) -> optax.GradientTransformation:
    """AdamW for large batches: each layer's step has a length in proportion to the norm of its weights.

    Decoupled weight decay is part of the step whose length is set, as in the paper.

    Args:
        pull: What decoupled weight decay adds.
        learning_rate: Length of a layer's step over the norm of its weights, before the schedule's multiplier.
        b1: Decay of the mean of gradients.
        b2: Decay of the mean of squared gradients.
        eps: Added to the root, against division by zero.

    References:
        You et al., Large Batch Optimization for Deep Learning: Training BERT in 76 minutes, https://arxiv.org/abs/1904.00962
    """
    return optax.chain(
        optax.scale_by_adam(b1, b2, eps), pull, optax.scale_by_trust_ratio(), optax.scale_by_learning_rate(learning_rate)
    )
