"""Schedule families: how a hyperparameter moves while a member trains.

A family is a function `multiplier(t, *, knobs) -> f32[]` of progress `t = step / horizon` in [0, 1). Its value multiplies
the hyperparameter it shapes (the learning rate, unless the config says another), so a family has no scale of its own and
shape and scale are searched apart. Knobs are floats and traced: each member has its own. Hence no Python `if` on `t` or
a knob, and no step counts: optax's schedules branch in Python on both, and cannot differ per member.

Any pure function of this form is a family; to ship one, add a row to `SCHEDULES` and its contract tests come for free.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vmaptune.settings import Fraction, Rate

Schedule = Callable[..., jax.Array]


def constant(t: jax.Array) -> jax.Array:
    """The hyperparameter stays where it is.

    Args:
        t: f32[], progress in [0, 1).

    Returns:
        f32[], 1 throughout.
    """
    return jnp.ones_like(t)


def warmup_cosine(t: jax.Array, *, warmup: Rate = 0.0, floor: Fraction = 0.0) -> jax.Array:
    """Rises linearly from 0 over the warm-up, then falls along half a cosine to the floor.

    `t / w` for `t < w`, then `floor + (1 - floor) (1 + cos(pi x)) / 2` with `x = (t - w) / (1 - w)`. The same curve as
    `optax.warmup_cosine_decay_schedule(0, 1, w T, T, floor)`, with a warm-up that may differ per member.

    Args:
        t: f32[], progress in [0, 1).
        warmup: Fraction of the horizon spent warming up.
        floor: Multiplier at the end of the horizon.

    Returns:
        f32[] in [0, 1].

    References:
        Loshchilov & Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, https://arxiv.org/abs/1608.03983
        Goyal et al., Accurate, Large Minibatch SGD, https://arxiv.org/abs/1706.02677 (warm-up)
    """
    rising = t / jnp.where(warmup > 0, warmup, 1.0)
    x = jnp.clip((t - warmup) / (1.0 - warmup), 0.0, 1.0)
    falling = floor + (1.0 - floor) * 0.5 * (1.0 + jnp.cos(jnp.pi * x))
    return jnp.where(t < warmup, rising, falling)


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "warmup_cosine": warmup_cosine,
}
