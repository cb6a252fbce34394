"""Dropout whose rate is an argument, so that it may differ per member and move on a schedule."""

from __future__ import annotations

import math
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from vmaptune.hashing import mixed
from vmaptune.settings import Rate, Usual

DropoutRate = Annotated[Rate, Usual(0.0, 0.5)]


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
        if self.deterministic or (isinstance(rate, float) and rate == 0.0):
            return x
        rate = jnp.asarray(rate, jnp.float32)
        keep = mask_bits(self.rngs(), x.shape) >= (rate * 2.0**32).astype(jnp.uint32)
        return jnp.where(keep, x / (1.0 - rate).astype(x.dtype), jnp.zeros_like(x))


def mask_bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random bits u32[shape], good enough for masks and a tenth of the cost of `jax.random.bits`.

    Threefry's would be half of all the training of a small network.
    """
    positions = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return mixed(positions, *jax.random.key_data(key).ravel())
