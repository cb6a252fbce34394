"""How a learning rate falls to zero at the end of training, or of a look at where training would end."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from vmaptune.schedules.primitives import cosine_fall

Shape = Literal["linear", "cosine", "sqrt"]


def anneal(remaining: jax.Array, shape: Shape = "linear") -> jax.Array:
    """The multiplier of a learning rate when so much of its fall remains: from 1 to 0.

    Args:
        remaining: f32[...]; what lies outside of [0, 1] counts as its nearer end.
        shape: linear, cosine, or sqrt: one minus the square root of what has passed.

    References:
        Hägele et al., Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations (sqrt),
        https://arxiv.org/abs/2405.18392
    """
    remaining = jnp.clip(remaining, 0.0, 1.0)
    if shape == "linear":
        return remaining
    return cosine_fall(1.0 - remaining) if shape == "cosine" else 1.0 - jnp.sqrt(1.0 - remaining)
