"""Optimizers that follow a running sum or mean of gradients."""

from __future__ import annotations

from typing import Annotated

import optax

from vmaptune.optimizers.ranges import FirstMoment, Gentle, Momentum, NormEpsilon, Relative, SecondMoment, Steep
from vmaptune.optimizers.rules import pulled, shared
from vmaptune.settings import Positive, Usual


@shared("l2")
def sgd(
    pull: optax.GradientTransformation,
    *,
    learning_rate: Steep = 1e-2,
    momentum: Momentum = 0.9,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum; weight decay is added to the gradient (L2), as in PyTorch.

    Args:
        pull: What decoupled weight decay adds.
        learning_rate: Step size, before the schedule's multiplier.
        momentum: Decay of the running sum of gradients; 0 is plain SGD.
        nesterov: Nesterov momentum.

    References:
        Sutskever et al., On the importance of initialization and momentum in deep learning,
            https://proceedings.mlr.press/v28/sutskever13.html
    """
    return optax.chain(optax.trace(momentum, nesterov=nesterov), pull, optax.scale_by_learning_rate(learning_rate))


@shared("l2")
def lars(
    pull: optax.GradientTransformation,
    *,
    learning_rate: Relative = 1.0,
    momentum: Momentum = 0.9,
    trust_coefficient: Annotated[Positive, Usual(1e-4, 1e-1, "log")] = 1e-3,
    eps: NormEpsilon = 0.0,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """SGD for large batches: each layer's step has a length in proportion to the norm of its weights.

    Weight decay as in the paper is L2, inside the norm; decoupled, it is outside both the norm and the momentum.

    Args:
        pull: What decoupled weight decay adds.
        learning_rate: Step size, before the schedule's multiplier.
        momentum: Decay of the running sum of steps.
        trust_coefficient: Length of a layer's step over the norm of its weights, at a learning rate of 1.
        eps: Added to the norm of the gradient, against division by a small number.
        nesterov: Nesterov momentum.

    References:
        You et al., Large Batch Training of Convolutional Networks, https://arxiv.org/abs/1708.03888
    """
    return optax.chain(
        optax.scale_by_trust_ratio(trust_coefficient=trust_coefficient, eps=eps),
        optax.scale_by_learning_rate(learning_rate),
        optax.trace(momentum, nesterov=nesterov),
        pulled(pull, learning_rate),
    )


@shared("decoupled")
def lion(
    pull: optax.GradientTransformation,
    *,
    learning_rate: Gentle = 1e-4,
    b1: FirstMoment = 0.9,
    b2: SecondMoment = 0.99,
) -> optax.GradientTransformation:
    """The sign of a mean of gradients; wants a learning rate 3 to 10 times smaller than AdamW and as much more decay.

    Args:
        pull: What decoupled weight decay adds.
        learning_rate: Step size of every weight, before the schedule's multiplier.
        b1: Share of the mean, against the new gradient, in the sign that is followed.
        b2: Decay of the mean of gradients.

    References:
        Chen et al., Symbolic Discovery of Optimization Algorithms, https://arxiv.org/abs/2302.06675
    """
    return optax.chain(optax.scale_by_lion(b1, b2), pull, optax.scale_by_learning_rate(learning_rate))
