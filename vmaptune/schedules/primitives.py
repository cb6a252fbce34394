"""What families are built from: the ranges of knobs that several of them share, and the curves that recur.

Everything is elementwise, free of branches on traced numbers, and accurate in float32: `1 - x` is exact for x in [1/2, 1],
so what falls to zero at the end of the horizon is written in `1 - x`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from vmaptune.settings import NonNegative, Positive, Usual

Schedule = Callable[..., jax.Array]
"""`family(t, *, knobs) -> f32[]`: a multiplier from progress in [0, 1)."""

Number = jax.Array | float
"""A knob: f32[] while a member trains, a plain float where the config fixes it."""

End = Annotated[NonNegative, Usual(0.0, 0.5)]
Exponent = Annotated[Positive, Usual(0.25, 4.0, "log")]
Timescale = Annotated[Positive, Usual(0.01, 1.0, "log")]
# A thousand periods in a horizon are as many as float32 tells apart well, and shorter ones would alias with the steps.
Period = Annotated[float, msgspec.Meta(ge=0.001, le=1.0), Usual(0.05, 0.5, "log")]

TINY = float(np.finfo(np.float32).tiny)
"""Smallest normal float32. A length in [0, 1] divided by it is finite, so `max(length, TINY)` guards a division by zero."""

_ROUNDING = 1e-6  # relative; several roundings of float32 (6e-8 each), and less than a step of any horizon under a million


def toward(end: Number, remaining: jax.Array) -> jax.Array:
    """From 1 to `end` as `remaining` falls from 1 to 0; exact at both, however large the end."""
    return remaining + end * (1.0 - remaining)


def cosine_fall(x: jax.Array) -> jax.Array:
    """`(1 + cos(pi x)) / 2` for x in [0, 1], as a squared sine: no cancellation where it nears 0."""
    return jnp.square(jnp.sin(0.5 * jnp.pi * (1.0 - x)))


def completed(x: jax.Array, period: Number) -> jax.Array:
    """How many whole periods lie behind x; the step that falls on a boundary belongs to the period it opens."""
    return jnp.floor(x / period * (1.0 + _ROUNDING))
