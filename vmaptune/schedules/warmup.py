"""Warm-up: a rise from 0 in front of any family, which is then stretched over the rest of the horizon."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, cast

import jax
import jax.numpy as jnp

from vmaptune.schedules.primitives import Number, Schedule, cosine_fall
from vmaptune.settings import Positive, Rate, Usual, settings, with_settings

WarmupShape = Literal["linear", "cosine", "exponential", "polynomial"]

# The exponential rise is 0/0 at rate 0, where its limit is linear; at this rate it differs from linear by less than 1e-6.
_SLOWEST = 1e-6


def rise(x: jax.Array, shape: WarmupShape, power: Number) -> jax.Array:
    """From 0 at x = 0 to 1 at x = 1.

    `x` (linear), `(1 - cos(pi x)) / 2` (cosine), `(e^{p x} - 1) / (e^p - 1)` (exponential) or `x^p` (polynomial).

    Args:
        x: f32[], fraction of the warm-up done, in [0, 1].
        shape: Which of the four.
        power: f32[] > 0, the p of the last two; the others have none.

    Returns:
        f32[] in [0, 1].
    """
    match shape:
        case "linear":
            return x
        case "cosine":
            return cosine_fall(1.0 - x)
        case "exponential":
            rate = jnp.maximum(power, _SLOWEST)
            # Multiplied out by e^{-p}: the powers of e that are left cannot overflow.
            return jnp.exp(rate * (x - 1.0)) * jnp.expm1(-rate * x) / jnp.expm1(-rate)
        case "polynomial":
            return x**power
    raise ValueError(f"no warm-up has the shape {shape!r}")


def warmed(
    values: Callable[[jax.Array], jax.Array],
    t: jax.Array,
    *,
    warmup: Annotated[Rate, Usual(0.0, 0.3)] = 0.0,
    warmup_shape: WarmupShape = "linear",
    warmup_power: Annotated[Positive, Usual(0.5, 8.0, "log")] = 2.0,
) -> jax.Array:
    """A function of progress alone, with a warm-up in front.

    `rise(t / w) values(0)` for `t < w`, then `values(x)` with `x = (t - w) / (1 - w)`. A warm-up that is the plain number 0
    leaves nothing in the program; a traced 0 is computed, and changes nothing.

    Args:
        values: f32[] -> f32[], a family with its knobs bound; it is called once.
        t: f32[], progress in [0, 1).
        warmup: Fraction of the horizon spent rising from 0; 0 is none.
        warmup_shape: How it rises. linear and cosine have no power.
        warmup_power: Exponent of the polynomial rise, growth rate of the exponential one over the warm-up.

    Returns:
        f32[].

    References:
        Goyal et al., Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour, https://arxiv.org/abs/1706.02677
        Naganuma et al., What do near-optimal learning rate schedules look like?, https://arxiv.org/abs/2603.10301 (shapes)
    """
    if isinstance(warmup, int | float) and warmup == 0:
        return values(t)
    risen = rise(jnp.clip(t / jnp.where(warmup > 0, warmup, 1.0), 0.0, 1.0), warmup_shape, warmup_power)
    # While it warms up x is clipped to 0, so one call gives both values(0) and values(x).
    x = jnp.clip((t - warmup) / (1.0 - warmup), 0.0, 1.0)
    return values(x) * jnp.where(t < warmup, risen, 1.0)


_KNOBS = frozenset(settings(warmed))


def with_warmup(family: Schedule) -> Schedule:
    """Gives a family the settings of `warmed`, after its own. Its `bare` attribute is the family as it was.

    Args:
        family: `family(t, *, knobs) -> f32[]`, any, also one of the user's own.

    Returns:
        A family.
    """

    @functools.wraps(family)
    def row(t: jax.Array, **knobs: Any) -> jax.Array:
        own = {name: value for name, value in knobs.items() if name not in _KNOBS}
        prefix = {name: value for name, value in knobs.items() if name in _KNOBS}
        return warmed(functools.partial(family, **own), t, **prefix)

    row.bare = family  # type: ignore[attr-defined]
    with_settings(row, family, warmed)
    # The borrowed Args end the docstring there; what the family says after its own stays true.
    row.__doc__ = "".join((row.__doc__ or "", *(inspect.getdoc(family) or "").partition("\n\nReturns:")[1:]))
    return row


def bare(family: Schedule) -> Schedule:
    """The family behind `with_warmup`; one that never had a warm-up is returned as it is.

    Args:
        family: A family, or a `functools.partial` of one, which stays a partial; what it binds of the warm-up is dropped.

    Returns:
        The bare family.
    """
    if isinstance(family, functools.partial):
        func = bare(family.func)
        if func is family.func:
            return family
        return functools.partial(func, *family.args, **{k: v for k, v in family.keywords.items() if k not in _KNOBS})
    return cast(Schedule, getattr(family, "bare", family))
