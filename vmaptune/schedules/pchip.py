"""Monotone cubic interpolation (PCHIP): a smooth curve through knots that overshoots none of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from vmaptune.schedules.primitives import Number


def pchip(x: jax.Array, knots: Sequence[Number], values: Sequence[Number]) -> jax.Array:
    """The curve of `scipy.interpolate.PchipInterpolator`, with traced knots and values.

    A cubic Hermite spline. Its slope at an inner knot is the weighted harmonic mean of the slopes of the two lines that meet
    there, 0 where they differ in sign; its slope at either end is the one-sided three-point estimate, kept in shape.

    Args:
        x: f32[], where to evaluate; before the first and after the last knot the curve is level.
        knots: Where the knots are, strictly increasing: at least 3 of them.
        values: The curve's values there.

    Returns:
        f32[].

    References:
        Fritsch & Carlson, Monotone Piecewise Cubic Interpolation, SIAM J. Numer. Anal. 17(2), 1980
        Fritsch & Butland, A Method for Constructing Local Monotone Piecewise Cubic Interpolants,
        SIAM J. Sci. Stat. Comput. 5(2), 1984
    """
    lengths = [b - a for a, b in itertools.pairwise(knots)]
    lines = [(b - a) / h for (a, b), h in zip(itertools.pairwise(values), lengths, strict=True)]
    pairs = zip(lengths[:-1], lengths[1:], lines[:-1], lines[1:], strict=True)
    slopes = [
        _end_slope(lengths[0], lengths[1], lines[0], lines[1]),
        *(_inner_slope(*pair) for pair in pairs),
        _end_slope(lengths[-1], lengths[-2], lines[-1], lines[-2]),
    ]
    curve = jnp.broadcast_to(jnp.asarray(values[0], x.dtype), x.shape)
    for k, h in enumerate(lengths):
        u = jnp.clip((x - knots[k]) / h, 0.0, 1.0)
        cubic = (
            values[k]
            + (values[k + 1] - values[k]) * u * u * (3.0 - 2.0 * u)
            + h * u * (1.0 - u) * (slopes[k] * (1.0 - u) - slopes[k + 1] * u)
        )
        # Between its knots in exact arithmetic; float32 may leave a multiplier just below 0.
        cubic = jnp.clip(cubic, jnp.minimum(values[k], values[k + 1]), jnp.maximum(values[k], values[k + 1]))
        curve = jnp.where(x >= knots[k], cubic, curve)
    return curve


def _inner_slope(before: Number, after: Number, line_before: Number, line_after: Number) -> jax.Array:
    """Weighted harmonic mean of the slopes of two neighbouring lines, 0 if they differ in sign or one is level."""
    first, second = 2.0 * after + before, after + 2.0 * before
    alike = line_before * line_after > 0
    # Multiplied out, so that a level line divides nothing by zero.
    mean = (first + second) * line_before * line_after / jnp.where(alike, first * line_after + second * line_before, 1.0)
    return jnp.where(alike, mean, 0.0)


def _end_slope(near: Number, far: Number, line_near: Number, line_far: Number) -> jax.Array:
    """One-sided three-point estimate, cut so that the curve keeps the shape of its knots."""
    slope = ((2.0 * near + far) * line_near - near * line_far) / (near + far)
    turns = line_near * line_far <= 0
    slope = jnp.where(turns & (jnp.abs(slope) > 3.0 * jnp.abs(line_near)), 3.0 * line_near, slope)
    return jnp.where(slope * line_near > 0, slope, 0.0)
