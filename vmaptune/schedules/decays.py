"""Families that move one way: from 1 at the start to their value at the end of the horizon."""

from __future__ import annotations

from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from vmaptune.schedules.primitives import TINY, End, Exponent, Period, Timescale, completed, cosine_fall, toward
from vmaptune.schedules.warmup import with_warmup
from vmaptune.settings import Fraction, NonNegative, Positive, Usual


@with_warmup
def constant(t: jax.Array) -> jax.Array:
    """The hyperparameter stays where it is.

    Args:
        t: f32[], progress in [0, 1).

    Returns:
        f32[], 1 throughout.

    References:
        Bengio, Practical recommendations for gradient-based training of deep architectures, https://arxiv.org/abs/1206.5533
    """
    return jnp.ones_like(t)


@with_warmup
def linear(t: jax.Array, *, end: End = 0.0) -> jax.Array:
    """Falls along a straight line: `1 - x + end x`.

    Args:
        t: f32[], progress in [0, 1).
        end: Multiplier at the end of the horizon.

    Returns:
        f32[].

    References:
        Defazio et al., Optimal Linear Decay Learning Rate Schedules and Further Refinements, https://arxiv.org/abs/2310.07831
    """
    return toward(end, 1.0 - t)


@with_warmup
def polynomial(t: jax.Array, *, power: Exponent = 2.0, end: End = 0.0) -> jax.Array:
    """Falls as a power of what remains: `end + (1 - end) (1 - x)^power`.

    Args:
        t: f32[], progress in [0, 1).
        power: Exponent; 1 is linear, above 1 falls early, below 1 late.
        end: Multiplier at the end of the horizon.

    Returns:
        f32[].

    References:
        Chen et al., DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, https://arxiv.org/abs/1606.00915
    """
    return toward(end, (1.0 - t) ** power)


@with_warmup
def cosine(t: jax.Array, *, exponent: Exponent = 1.0, end: End = 0.0) -> jax.Array:
    """Falls along half a cosine: `end + (1 - end) ((1 + cos(pi x)) / 2)^exponent`.

    With a linear warm-up and exponent 1 it is `optax.warmup_cosine_decay_schedule(0, 1, w T, T, end)`.

    Args:
        t: f32[], progress in [0, 1).
        exponent: Exponent of the cosine; above 1 falls early, below 1 late.
        end: Multiplier at the end of the horizon.

    Returns:
        f32[].

    References:
        Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, https://arxiv.org/abs/1608.03983
        Naganuma et al., What do near-optimal learning rate schedules look like?, https://arxiv.org/abs/2603.10301 (exponent)
    """
    return toward(end, cosine_fall(t) ** exponent)


@with_warmup
def sqrt(t: jax.Array, *, alpha: Fraction = 1.0) -> jax.Array:
    """Falls along a quarter of a circle, late and steeply: `sqrt(1 - x^2)^alpha`.

    Args:
        t: f32[], progress in [0, 1).
        alpha: Exponent; 1 is the circle, 0 is constant.

    Returns:
        f32[] in [0, 1].

    References:
        Naganuma et al., What do near-optimal learning rate schedules look like?, https://arxiv.org/abs/2603.10301
    """
    return ((1.0 - t) * (1.0 + t)) ** (0.5 * alpha)


@with_warmup
def rex(t: jax.Array, *, beta: Annotated[NonNegative, Usual(0.1, 10.0, "log")] = 0.5) -> jax.Array:
    """Reflected exponential: falls along a hyperbola, `(1 - x) / (1 - (1 - beta) x)`.

    Args:
        t: f32[], progress in [0, 1).
        beta: Bend; 1/2 is the original REX, 1 is linear, above 1 falls early, 0 is constant.

    Returns:
        f32[] in [0, 1].

    References:
        Chen et al., REX: Revisiting Budgeted Training with an Improved Schedule, https://arxiv.org/abs/2107.04197
        Naganuma et al., What do near-optimal learning rate schedules look like?, https://arxiv.org/abs/2603.10301 (beta)
    """
    remaining = 1.0 - t
    return remaining / jnp.maximum(remaining + beta * t, TINY)


@with_warmup
def step(t: jax.Array, *, factor: Annotated[Fraction, Usual(0.05, 0.9, "log")] = 0.1, every: Period = 1 / 3) -> jax.Array:
    """Falls by a factor at equal intervals: `factor^floor(x / every)`.

    Args:
        t: f32[], progress in [0, 1).
        factor: What each step multiplies by.
        every: Length of a stage, as a fraction of the horizon; a third and a factor of 0.1 is the custom on ImageNet.

    Returns:
        f32[] in [0, 1].

    References:
        He et al., Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385
    """
    return factor ** completed(t, every)


@with_warmup
def exponential(t: jax.Array, *, end: Annotated[Positive, Usual(0.001, 1.0, "log")] = 0.01) -> jax.Array:
    """Falls by the same factor in every step: `end^x`.

    Args:
        t: f32[], progress in [0, 1).
        end: Multiplier at the end of the horizon.

    Returns:
        f32[].

    References:
        Li & Arora, An Exponential Learning Rate Schedule for Deep Learning, https://arxiv.org/abs/1910.07454
    """
    return end**t


@with_warmup
def inverse_sqrt(t: jax.Array, *, timescale: Timescale = 0.1) -> jax.Array:
    """Falls as one over the root of the steps, shifted to start at 1: `sqrt(timescale / (timescale + x))`.

    Args:
        t: f32[], progress in [0, 1).
        timescale: Fraction of the horizon after which the multiplier is `1 / sqrt(2)`.

    Returns:
        f32[] in (0, 1].

    References:
        Vaswani et al., Attention Is All You Need, https://arxiv.org/abs/1706.03762
        Zhai et al., Scaling Vision Transformers, https://arxiv.org/abs/2106.04560 (timescale)
    """
    return jnp.sqrt(timescale / (timescale + t))


@with_warmup
def power(t: jax.Array, *, exponent: Exponent = 0.5, timescale: Timescale = 0.1) -> jax.Array:
    """Falls as a power of the steps, shifted to start at 1: `(1 + x / timescale)^-exponent`.

    Args:
        t: f32[], progress in [0, 1).
        exponent: Exponent; 1/2 is `inverse_sqrt`, 1 is inverse time.
        timescale: Fraction of the horizon after which the multiplier is `2^-exponent`.

    Returns:
        f32[] in (0, 1].

    References:
        Shen et al., Power Scheduler: A Batch Size and Token Number Agnostic Learning Rate Scheduler,
        https://arxiv.org/abs/2408.13359
    """
    return (1.0 + t / timescale) ** -exponent


@with_warmup
def wsd(
    t: jax.Array,
    *,
    decay: Annotated[Fraction, Usual(0.05, 0.5)] = 0.2,
    end: End = 0.0,
    cooldown: Literal["linear", "cosine", "sqrt"] = "linear",
) -> jax.Array:
    """Warm-up, stable, decay: stays at 1, then cools down over the last part of the horizon.

    `end + (1 - end) f(u)` with u the fraction of the cooldown done, and f is `1 - u` (linear), `(1 + cos(pi u)) / 2`
    (cosine) or `1 - sqrt(u)` (sqrt).

    Args:
        t: f32[], progress in [0, 1).
        decay: Length of the cooldown, as a fraction of the horizon; 0 is constant.
        end: Multiplier at the end of the horizon.
        cooldown: Shape of the cooldown.

    Returns:
        f32[].

    References:
        Hu et al., MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training Strategies,
        https://arxiv.org/abs/2404.06395
        Hägele et al., Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations,
        https://arxiv.org/abs/2405.18392 (1-sqrt)
    """
    remaining = jnp.clip((1.0 - t) / jnp.maximum(decay, TINY), 0.0, 1.0)
    if cooldown == "cosine":
        remaining = cosine_fall(1.0 - remaining)
    elif cooldown == "sqrt":
        remaining = 1.0 - jnp.sqrt(1.0 - remaining)
    return toward(end, remaining)
