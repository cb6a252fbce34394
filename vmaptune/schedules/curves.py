"""Families with free knots: two-point curves, a smooth one whose peak may lie anywhere, and a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import msgspec

from vmaptune.schedules.pchip import pchip
from vmaptune.schedules.primitives import TINY, Number, completed
from vmaptune.schedules.warmup import with_warmup
from vmaptune.settings import Fraction, NonNegative, Usual

_MULTIPLIER = Usual(0.0, 1.0)
Values = Annotated[tuple[Annotated[NonNegative, _MULTIPLIER], ...], msgspec.Meta(min_length=2), _MULTIPLIER]

_APART = 0.01  # of the horizon: knots of a spline are moved this far apart, so that no slope is infinite


@with_warmup
def two_points_linear(
    t: jax.Array,
    *,
    delta_x1: Fraction = 1 / 3,
    y1: Fraction = 2 / 3,
    delta_x2: Fraction = 1 / 2,
    delta_y2: Fraction = 1 / 2,
    delta_end: Fraction = 0.0,
) -> jax.Array:
    """Falls from 1 in three straight lines that meet in two free points; at its defaults they are one line.

    Through (0, 1), (x1, y1), (x2, y2), (1, delta_end y2) with `x1 = delta_x1`, `x2 = x1 + delta_x2 (1 - x1)` and
    `y2 = delta_y2 y1`. Points at the same place make a jump. The paper's x0, the peak, is where the warm-up ends.

    Args:
        t: f32[], progress in [0, 1).
        delta_x1: Where the first point lies, as a fraction of the horizon.
        y1: Multiplier at the first point.
        delta_x2: Where the second point lies, as a fraction of what remains after the first.
        delta_y2: Multiplier at the second point, as a fraction of that at the first.
        delta_end: Multiplier at the end of the horizon, as a fraction of that at the second point.

    Returns:
        f32[] in [0, 1].

    References:
        Naganuma et al., What do near-optimal learning rate schedules look like?, https://arxiv.org/abs/2603.10301
    """
    knots, values = _two_points(delta_x1, y1, delta_x2, delta_y2, delta_end)
    curve = jnp.ones_like(t)
    for k in range(len(knots) - 1):
        u = jnp.clip((t - knots[k]) / jnp.maximum(knots[k + 1] - knots[k], TINY), 0.0, 1.0)
        curve = jnp.where(t >= knots[k], values[k] + (values[k + 1] - values[k]) * u, curve)
    return curve


@with_warmup
def two_points_spline(
    t: jax.Array,
    *,
    delta_x1: Fraction = 1 / 3,
    y1: Fraction = 2 / 3,
    delta_x2: Fraction = 1 / 2,
    delta_y2: Fraction = 1 / 2,
    delta_end: Fraction = 0.0,
) -> jax.Array:
    """`two_points_linear` with a smooth, monotone curve (PCHIP) in place of the straight lines.

    Points closer than 0.01 of the horizon to each other, or to an end of it, are moved that far apart.

    Args:
        t: f32[], progress in [0, 1).
        delta_x1: Where the first point lies, as a fraction of the horizon.
        y1: Multiplier at the first point.
        delta_x2: Where the second point lies, as a fraction of what remains after the first.
        delta_y2: Multiplier at the second point, as a fraction of that at the first.
        delta_end: Multiplier at the end of the horizon, as a fraction of that at the second point.

    Returns:
        f32[] in [0, 1].

    References:
        Naganuma et al., What do near-optimal learning rate schedules look like?, https://arxiv.org/abs/2603.10301
    """
    knots, values = _two_points(delta_x1, y1, delta_x2, delta_y2, delta_end)
    return pchip(t, _apart(knots), values)


@with_warmup
def smooth_nonmonotonic(
    t: jax.Array,
    *,
    start: Fraction = 0.0,
    delta_x1: Fraction = 0.1,
    y1: Fraction = 0.5,
    peak: Fraction = 0.25,
    delta_x2: Fraction = 0.5,
    y2: Fraction = 0.5,
    end: Fraction = 0.0,
) -> jax.Array:
    """A smooth curve (PCHIP) with its peak anywhere: before, between or after two free points.

    Through (0, start), (1, end) and, in the order of their places, (x1, y1), (x2, y2) and (peak, 1), with `x1 = delta_x1`
    and `x2 = x1 + delta_x2 (1 - x1)`. Points closer than 0.01 of the horizon to each other, or to an end of it, are moved
    that far apart. It has its own rise; a warm-up comes in front of it.

    Args:
        t: f32[], progress in [0, 1).
        start: Multiplier at the start.
        delta_x1: Where the first point lies, as a fraction of the horizon.
        y1: Multiplier at the first point.
        peak: Where the multiplier is 1, as a fraction of the horizon.
        delta_x2: Where the second point lies, as a fraction of what remains after the first.
        y2: Multiplier at the second point.
        end: Multiplier at the end of the horizon.

    Returns:
        f32[] in [0, 1].

    References:
        Naganuma et al., What do near-optimal learning rate schedules look like?, https://arxiv.org/abs/2603.10301
    """
    x2 = delta_x1 + delta_x2 * (1.0 - delta_x1)
    # The two points are in order, so sorting is to place the peak: past the second if it is later, and so on down.
    early, late = peak < delta_x1, peak < x2
    knots: list[Number] = [
        0.0,
        jnp.minimum(delta_x1, peak),
        jnp.clip(peak, delta_x1, x2),
        jnp.maximum(x2, peak),
        1.0,
    ]
    values: list[Number] = [
        start,
        jnp.where(early, 1.0, y1),
        jnp.where(early, y1, jnp.where(late, 1.0, y2)),
        jnp.where(late, y2, 1.0),
        end,
    ]
    return pchip(t, _apart(knots), values)


@with_warmup
def table(t: jax.Array, *, values: Values = (1.0, 0.0), interpolation: Literal["linear", "step"] = "linear") -> jax.Array:
    """Any course, as a list of K multipliers spread evenly over the horizon.

    linear joins them by straight lines, value k lying at `k / (K - 1)`; step holds each for `1 / K` of the horizon.

    Args:
        t: f32[], progress in [0, 1).
        values: f32[K], multipliers from the start to the end of the horizon, at least 2.
        interpolation: What lies between two values.

    Returns:
        f32[].

    References:
        Jaderberg et al., Population Based Training of Neural Networks, https://arxiv.org/abs/1711.09846 (such courses)
    """
    rows = jnp.asarray(values, jnp.float32)
    last = rows.shape[0] - 1
    if interpolation == "step":
        return rows[jnp.minimum(completed(t, 1.0 / (last + 1)), last).astype(jnp.int32)]
    place = t * last
    left = jnp.minimum(jnp.floor(place), last - 1)
    a, b = rows[left.astype(jnp.int32)], rows[left.astype(jnp.int32) + 1]
    return a + (b - a) * (place - left)


def _two_points(
    delta_x1: Number, y1: Number, delta_x2: Number, delta_y2: Number, delta_end: Number
) -> tuple[list[Number], list[Number]]:
    """Places and values of the four knots."""
    y2 = delta_y2 * y1
    return [0.0, delta_x1, delta_x1 + delta_x2 * (1.0 - delta_x1), 1.0], [1.0, y1, y2, delta_end * y2]


def _apart(knots: Sequence[Number]) -> list[Number]:
    """Knots in order from 0 to 1, with the inner ones moved as little as leaves `_APART` between neighbours."""
    placed = list(knots)
    for k in range(1, len(placed) - 1):
        placed[k] = jnp.maximum(placed[k], placed[k - 1] + _APART)
    for k in range(len(placed) - 2, 0, -1):
        placed[k] = jnp.minimum(placed[k], placed[k + 1] - _APART)
    return placed
