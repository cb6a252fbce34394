"""Families that rise as well as fall: restarts, cyclical ones, and one cycle."""

from __future__ import annotations

from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import msgspec

from vmaptune.schedules.primitives import TINY, End, Number, Period, completed, cosine_fall, toward
from vmaptune.schedules.warmup import with_warmup
from vmaptune.settings import Fraction, Usual

Low = Annotated[Fraction, Usual(0.0, 0.5)]
Peak = Annotated[Fraction, Usual(0.1, 0.5)]
Anneal = Literal["cosine", "linear"]

_ALIKE = 1e-12  # growth of the period that stands for none, where sums of a geometric series are 0/0


@with_warmup
def cosine_restarts(
    t: jax.Array,
    *,
    period: Period = 0.25,
    period_factor: Annotated[float, msgspec.Meta(ge=1.0, le=10.0), Usual(1.0, 3.0)] = 1.0,
    peak_factor: Annotated[Fraction, Usual(0.5, 1.0)] = 1.0,
    end: End = 0.0,
) -> jax.Array:
    """Falls along half a cosine again and again, from a peak that may sink, over periods that may grow.

    `end + (1 - end) peak_factor^i (1 + cos(pi u)) / 2`, where i counts the restarts so far and u is the fraction done of the
    present cycle, which is `period period_factor^i` long. The last cycle is cut off where the horizon ends.

    Args:
        t: f32[], progress in [0, 1).
        period: Length of the first cycle, as a fraction of the horizon.
        period_factor: What each restart multiplies the length by.
        peak_factor: What each restart multiplies the peak's height above `end` by.
        end: Multiplier at the end of every cycle.

    Returns:
        f32[].

    References:
        Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, https://arxiv.org/abs/1608.03983
    """
    # Cycle i begins at period (f^i - 1) / (f - 1). Solved for i, with g = f - 1, and in log1p and expm1 for f near 1:
    growth = jnp.maximum(period_factor - 1.0, _ALIKE)
    rate = jnp.log1p(growth)
    restarts = completed(jnp.log1p(t * growth / period), rate)
    begin = period * jnp.expm1(restarts * rate) / growth
    done = jnp.clip((t - begin) / (period * jnp.exp(restarts * rate)), 0.0, 1.0)
    return toward(end, peak_factor**restarts * cosine_fall(done))


@with_warmup
def triangular(t: jax.Array, *, period: Period = 0.25, low: Low = 0.1) -> jax.Array:
    """Rises from low to 1 and falls back, in straight lines, again and again: `low + (1 - low) (1 - |2 u - 1|)`.

    Args:
        t: f32[], progress in [0, 1).
        period: Length of a cycle, up and down, as a fraction of the horizon.
        low: Multiplier between cycles.

    Returns:
        f32[] in [low, 1].

    References:
        Smith, Cyclical Learning Rates for Training Neural Networks, https://arxiv.org/abs/1506.01186
    """
    return toward(low, _triangle(t, period))


@with_warmup
def triangular2(t: jax.Array, *, period: Period = 0.25, low: Low = 0.1) -> jax.Array:
    """`triangular` whose height above low halves after each cycle: `low + (1 - low) 2^-i (1 - |2 u - 1|)`.

    Args:
        t: f32[], progress in [0, 1).
        period: Length of a cycle, up and down, as a fraction of the horizon.
        low: Multiplier between cycles.

    Returns:
        f32[] in [low, 1].

    References:
        Smith, Cyclical Learning Rates for Training Neural Networks, https://arxiv.org/abs/1506.01186
    """
    return toward(low, _triangle(t, period) * jnp.exp2(-completed(t, period)))


@with_warmup
def exp_range(
    t: jax.Array,
    *,
    period: Period = 0.25,
    low: Low = 0.1,
    gamma: Annotated[float, msgspec.Meta(gt=0, le=1), Usual(0.01, 1.0, "log")] = 0.1,
) -> jax.Array:
    """`triangular` whose height above low falls exponentially: `low + (1 - low) gamma^x (1 - |2 u - 1|)`.

    Args:
        t: f32[], progress in [0, 1).
        period: Length of a cycle, up and down, as a fraction of the horizon.
        low: Multiplier between cycles.
        gamma: Height at the end of the horizon, as a fraction of that at the start; Smith's, to the power of the horizon.

    Returns:
        f32[] in [low, 1].

    References:
        Smith, Cyclical Learning Rates for Training Neural Networks, https://arxiv.org/abs/1506.01186
    """
    return toward(low, _triangle(t, period) * gamma**t)


@with_warmup
def one_cycle(
    t: jax.Array,
    *,
    peak: Peak = 0.3,
    start: Annotated[Fraction, Usual(0.01, 0.5, "log")] = 0.04,
    end: End = 0.0,
    anneal: Anneal = "cosine",
    three_phase: bool = False,
) -> jax.Array:
    """Rises from start to 1 at the peak, then falls to the end; in three phases, to start and only then to the end.

    Each phase goes from a to b as `a + (b - a) u` (linear) or `a + (b - a) (1 - cos(pi u)) / 2` (cosine), u being the
    fraction of it that is done. Of three phases the second is as long as the first, if the horizon lets it.

    Args:
        t: f32[], progress in [0, 1).
        peak: Where the peak lies, as a fraction of the horizon.
        start: Multiplier at the start; a 25th of the peak is the custom.
        end: Multiplier at the end of the horizon.
        anneal: How a phase goes from one value to the next.
        three_phase: True for the course of the paper, False for the one that became the custom.

    Returns:
        f32[].

    References:
        Smith & Topin, Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates,
        https://arxiv.org/abs/1708.07120
    """
    return _course(t, peak, start, 1.0, end, anneal, three_phase)


@with_warmup
def one_cycle_momentum(
    t: jax.Array,
    *,
    peak: Peak = 0.3,
    low: Annotated[Fraction, Usual(0.7, 1.0)] = 0.9,
    anneal: Anneal = "cosine",
    three_phase: bool = False,
) -> jax.Array:
    """The course of momentum beside `one_cycle`: falls from 1 to low where the learning rate peaks, and rises back to 1.

    In three phases it is back at 1 when the second phase ends, and stays there.

    Args:
        t: f32[], progress in [0, 1).
        peak: Where the learning rate peaks, as a fraction of the horizon.
        low: Multiplier there; momentum from 0.95 to 0.85 is the custom, about 0.9.
        anneal: How a phase goes from one value to the next.
        three_phase: As of the `one_cycle` beside it.

    Returns:
        f32[] in [low, 1].

    References:
        Smith, A disciplined approach to neural network hyper-parameters: Part 1, https://arxiv.org/abs/1803.09820
    """
    return _course(t, peak, 1.0, low, 1.0, anneal, three_phase)


def _triangle(x: jax.Array, period: Number) -> jax.Array:
    """From 0 up to 1 and back in each period."""
    done = x / period
    return 1.0 - jnp.abs(2.0 * (done - jnp.floor(done)) - 1.0)


def _course(
    x: jax.Array, peak: Number, first: Number, top: Number, last: Number, anneal: Anneal, three_phase: bool
) -> jax.Array:
    """From `first` to `top` at the peak, and on to `last`; in three phases, by way of `first` at twice the peak."""
    # With a peak past the middle there is no room for a third phase: the second takes all that is left.
    back = jnp.minimum(2.0 * peak, 1.0) if three_phase else 1.0
    value = jnp.where(
        x < peak,
        _phase(x, 0.0, peak, first, top, anneal),
        _phase(x, peak, back, top, first if three_phase else last, anneal),
    )
    return jnp.where(x < back, value, _phase(x, back, 1.0, first, last, anneal)) if three_phase else value


def _phase(x: jax.Array, begin: Number, end: Number, a: Number, b: Number, anneal: Anneal) -> jax.Array:
    """From value a at `begin` to value b at `end`, which may coincide."""
    done = jnp.clip((x - begin) / jnp.maximum(end - begin, TINY), 0.0, 1.0)
    remaining = cosine_fall(done) if anneal == "cosine" else 1.0 - done
    return b + (a - b) * remaining
