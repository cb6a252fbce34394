"""Optimizers that divide the gradient by the root of past squares, without a mean of gradients of their own."""

from __future__ import annotations

from typing import Annotated

import optax

from vmaptune.optimizers.ranges import Epsilon, Gentle, Momentum, Relative, SecondMoment
from vmaptune.optimizers.rules import pulled, shared
from vmaptune.settings import Count, NonNegative, Positive, Rate, Usual


@shared("l2")
def rmsprop(
    pull: optax.GradientTransformation,
    *,
    learning_rate: Gentle = 1e-3,
    rho: SecondMoment = 0.9,
    eps: Epsilon = 1e-8,
    momentum: Momentum = 0.0,
    centered: bool = False,
) -> optax.GradientTransformation:
    """The gradient over the root of a running mean of its squares.

    Args:
        pull: What decoupled weight decay adds.
        learning_rate: Step size, before the schedule's multiplier.
        rho: Decay of the mean of squared gradients (`decay` in optax, `alpha` in PyTorch).
        eps: Added under the root, against division by zero.
        momentum: Decay of the running sum of steps; 0: none.
        centered: Divide by the standard deviation of the gradient, its mean subtracted. Where the gradient hardly varies, eps
            must outweigh rounding (about 1e-7 of its square), or the root is of a negative number.

    References:
        Tieleman & Hinton, Lecture 6.5, https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf
        Graves, Generating Sequences With Recurrent Neural Networks, https://arxiv.org/abs/1308.0850
    """
    scale = optax.scale_by_stddev if centered else optax.scale_by_rms
    return optax.chain(
        scale(decay=rho, eps=eps),
        optax.scale_by_learning_rate(learning_rate),
        optax.trace(momentum),
        pulled(pull, learning_rate),
    )


@shared("l2")
def adagrad(
    pull: optax.GradientTransformation,
    *,
    learning_rate: Annotated[NonNegative, Usual(1e-3, 1.0, "log")] = 1e-2,
    eps: Epsilon = 1e-7,
    initial_accumulator_value: Annotated[NonNegative, Usual(1e-3, 1.0, "log")] = 0.1,
) -> optax.GradientTransformation:
    """The gradient over the root of the sum of all its squares.

    Args:
        pull: What decoupled weight decay adds.
        learning_rate: Step size, before the schedule's multiplier.
        eps: Added under the root, against division by zero.
        initial_accumulator_value: What the sum of squares starts from.

    References:
        Duchi et al., Adaptive Subgradient Methods for Online Learning and Stochastic Optimization,
            https://jmlr.org/papers/v12/duchi11a.html
    """
    # The sum starts at zero and its start is added under the root with eps, which is the same: a member is born before its
    # settings are known.
    scale = optax.scale_by_rss(initial_accumulator_value=0.0, eps=eps + initial_accumulator_value)
    return optax.chain(scale, pull, optax.scale_by_learning_rate(learning_rate))


@shared("l2")
def adadelta(
    pull: optax.GradientTransformation,
    *,
    learning_rate: Relative = 1.0,
    rho: SecondMoment = 0.9,
    eps: Annotated[Positive, Usual(1e-8, 1e-2, "log")] = 1e-6,
) -> optax.GradientTransformation:
    """Steps in proportion to the size of past steps over that of past gradients: no learning rate in the paper.

    Args:
        pull: What decoupled weight decay adds.
        learning_rate: Multiplier of the step, before the schedule's; 1 in the paper.
        rho: Decay of the means of squares.
        eps: Added under both roots; sets the length of the first steps.

    References:
        Zeiler, ADADELTA: An Adaptive Learning Rate Method, https://arxiv.org/abs/1212.5701
    """
    return optax.chain(optax.scale_by_adadelta(rho, eps), pull, optax.scale_by_learning_rate(learning_rate))


@shared("decoupled")
def adafactor(
    pull: optax.GradientTransformation,
    *,
    learning_rate: Annotated[NonNegative, Usual(1e-4, 1.0, "log")] = 1e-2,
    decay_rate: Annotated[Rate, Usual(0.5, 0.95)] = 0.8,
    clipping_threshold: Annotated[Positive, Usual(0.5, 2.0, "log")] = 1.0,
    eps: Annotated[Positive, Usual(1e-30, 1e-3, "log")] = 1e-30,
    momentum: Momentum = 0.0,
    min_dim_size_to_factor: Count = 128,
    multiply_by_parameter_scale: bool = True,
) -> optax.GradientTransformation:
    """Squares of a large matrix are kept as the product of a row and a column; steps are relative to the weights.

    Decoupled weight decay is scaled by the learning rate, as in PyTorch; optax's own `adafactor` does not scale it.

    Args:
        pull: What decoupled weight decay adds.
        learning_rate: Step size, relative to the root mean square of a layer's weights, before the schedule's multiplier.
        decay_rate: Exponent of the decay of the mean of squares, which is 1 - step ^ -decay_rate.
        clipping_threshold: Largest root mean square of a layer's step, before the learning rate.
        eps: Added to squared gradients, against division by zero.
        momentum: Decay of the mean of steps; 0: none.
        min_dim_size_to_factor: Smallest second-largest axis of a weight whose squares are factored.
        multiply_by_parameter_scale: Whether steps are relative to the size of the weights.

    References:
        Shazeer & Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, https://arxiv.org/abs/1804.04235
    """
    return optax.chain(
        optax.scale_by_factored_rms(decay_rate=decay_rate, min_dim_size_to_factor=min_dim_size_to_factor, epsilon=eps),
        optax.clip_by_block_rms(clipping_threshold),
        optax.scale_by_learning_rate(learning_rate),
        optax.scale_by_param_block_rms() if multiply_by_parameter_scale else optax.identity(),
        optax.ema(momentum, debias=False),
        pulled(pull, learning_rate),
    )
