"""Regularisation of the inputs: noise and mixup, while training only.

Their keys are folded in from the loss's with numbers that no model's streams have, so a model draws the same with and
without them.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.errors import ConfigError
from vmaptune.models.dropout import mask_bits
from vmaptune.tasks.losses import is_off

_MIXUP, _NOISE, _TRANSFORM = 2**32 - 1, 2**32 - 2, 2**32 - 3  # of a member's step; models count their streams from 0
_TRIES = 16


def transform_key(key: jax.Array) -> jax.Array:
    """The key of what is done to the inputs, from the loss's: a model may draw from that one as it is."""
    return jax.random.fold_in(key, _TRANSFORM)


def mixup_share(key: jax.Array, alpha: jax.Array | float) -> jax.Array | None:
    """The share of each example in its mixture with a partner: one draw of Beta(alpha, alpha) a batch.

    Args:
        key: The loss's.
        alpha: In [0, 1]. 0: nothing is mixed.

    Returns:
        f32[] in [0, 1]; None where alpha is Python's own 0.0, and nothing is to be computed.

    References:
        Zhang et al., mixup: Beyond Empirical Risk Minimization, https://arxiv.org/abs/1710.09412
    """
    return None if is_off(alpha) else symmetric_beta(jax.random.fold_in(key, _MIXUP), alpha)


def symmetric_beta(key: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """One draw of Beta(alpha, alpha) for alpha in [0, 1]; 1 for alpha = 0.

    `jax.random.beta` loops until its draws are accepted, for all members as long as for the unluckiest. Here it is Johnk's
    rejection with a fixed number of tries: for uniform u and v, x = u^(1/alpha) and y = v^(1/alpha), x / (x + y) has the
    distribution whenever x + y <= 1. That happens with probability gamma(1 + alpha)^2 / gamma(1 + 2 alpha) >= 1/2 in every
    try, so all 16 fail in less than one step of 65,000; the first try is then taken as it is. All in logarithms, because
    the powers vanish for small alpha.

    References:
        Johnk, Erzeugung von betaverteilten und gammaverteilten Zufallszahlen, Metrika 8, 1964
    """
    alpha = jnp.asarray(alpha, jnp.float32)
    uniform = 1.0 - jax.random.uniform(key, (2, _TRIES))  # in (0, 1]
    x, y = jnp.log(uniform) / jnp.maximum(alpha, np.finfo(np.float32).tiny ** 0.5)
    accepted = jnp.logaddexp(x, y) <= 0.0
    return jnp.where(alpha > 0, jax.nn.sigmoid(x - y)[jnp.argmax(accepted)], 1.0)


def mixed(inputs: jax.Array, share: jax.Array) -> jax.Array:
    """Each input's mixture with that of the example before it in the batch, which was shuffled already.

    Raises:
        ConfigError: Inputs are no real numbers.
    """
    _check_real(inputs, "mixup")
    share = share.astype(inputs.dtype)
    return share * inputs + (1 - share) * partners(inputs)


def partners(leaf: jax.Array) -> jax.Array:
    """What each example of a batch is mixed with."""
    return jnp.roll(leaf, 1, axis=0)


def noisy(inputs: jax.Array, std: jax.Array | float, key: jax.Array) -> jax.Array:
    """Inputs with Gaussian noise added to every number.

    Args:
        inputs: f32[batch, ...].
        std: Standard deviation, in units of the inputs. Python's own 0.0: the inputs as they are, nothing drawn.
        key: The loss's.

    Raises:
        ConfigError: Inputs are no real numbers.

    References:
        Bishop, Training with Noise is Equivalent to Tikhonov Regularization, Neural Computation 7, 1995
    """
    if is_off(std):
        return inputs
    _check_real(inputs, "input_noise")
    return inputs + (std * gaussian(jax.random.fold_in(key, _NOISE), inputs.shape)).astype(inputs.dtype)


def gaussian(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal numbers f32[shape] within 5.2 deviations, from the cheap bits behind dropout."""
    # The middles of 2^23 equal parts of (-1, 1): exact in float32, and as many on either side of 0.
    odd = (mask_bits(key, shape) >> np.uint32(9)).astype(jnp.float32) * 2.0 + 1.0
    return np.float32(np.sqrt(2.0)) * jax.lax.erf_inv(odd * np.float32(2.0**-23) - 1.0)


def _check_real(inputs: Any, setting: str) -> None:
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise ConfigError(f"task.{setting}: needs inputs that are real numbers; given: {inputs.dtype}")
