"""Dropout whose rate is an argument, so that it may differ per member and move on a schedule."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx


class Dropout(nnx.Module):
    """Zeroes each activation with probability `rate` and scales the rest up by `1 / (1 - rate)`.

    `flax.nnx.Dropout` fixes the rate when it is built and branches on it in Python. Here it is given with the call.

    References:
        Srivastava et al., Dropout: A Simple Way to Prevent Neural Networks from Overfitting, JMLR 15, 2014
    """

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        """Takes its own stream of keys from `rngs`."""
        self.deterministic = False
        self.rngs = rngs["dropout"].fork()

    def __call__(self, x: jax.Array, rate: jax.Array | float) -> jax.Array:
        """Applies dropout at `rate` in [0, 1); the identity in evaluation mode (`module.eval()`)."""
        if self.deterministic:
            return x
        keep = jax.random.bernoulli(self.rngs(), 1.0 - rate, x.shape)
        return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))
