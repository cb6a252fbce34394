"""Functions of Haiku modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vmaptune.errors import ConfigError
from vmaptune.models.adapters.contract import Model, flags, library, parameters_of, with_call_settings


def from_haiku(forward: Callable[..., Any], inputs: Any) -> Model:
    """Adapts a Haiku function.

    Args:
        forward: What one would give to `haiku.transform`, and not yet transformed, because its parameters say what it
            wants: `forward(inputs)`, with `is_training` (or `train`, `training`, `deterministic`) if it has a mode, set by
            the engine; weights are made with `is_training=True`, as Haiku's batch norm needs it. Its keyword-only floats
            become settings of the task: traced, one value a member, and searchable.
        inputs: A batch of one example, [1, ...], for which weights are made.

    Returns:
        The pair of pure functions. `params` and `state` are dicts of dicts of arrays.

    Raises:
        ConfigError: Haiku is not installed, or the function is transformed already or none.

    References:
        Hennigan et al., Haiku: Sonnet for JAX, http://github.com/deepmind/dm-haiku, 2020
    """
    hk = library("haiku", "dm-haiku", "from_haiku")
    if isinstance(forward, hk.Transformed | hk.TransformedWithState):
        raise ConfigError("from_haiku: expected the function itself; given: what haiku.transform made of it")
    if not callable(forward):
        raise ConfigError(f"from_haiku: expected a function of the inputs; given: {type(forward).__name__}")
    named = parameters_of(forward, "from_haiku")
    transformed = hk.transform_with_state(forward)

    def init(key: jax.Array) -> tuple[Any, Any]:
        return transformed.init(key, jnp.asarray(inputs), **flags(named, train=True))

    def apply(params: Any, state: Any, inputs: Any, key: jax.Array, *, train: bool, **settings: Any) -> tuple[Any, Any]:
        outputs, moved = transformed.apply(params, state, key, inputs, **flags(named, train=train), **settings)
        return outputs, moved if train else state

    return Model(init, with_call_settings(apply, forward, "from_haiku"))
