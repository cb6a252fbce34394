"""Modules of Flax Linen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from vmaptune.errors import ConfigError
from vmaptune.models.adapters.contract import Model, flags, parameters_of, with_call_settings

if TYPE_CHECKING:
    from flax import linen


def from_linen(module: linen.Module, inputs: Any) -> Model:
    """Adapts a Flax Linen module.

    The collection `params` becomes the parameters, all others (`batch_stats`, or your own) the state. Every random stream
    (`dropout`, or your own) is drawn from the key of the call, which changes with member and step.

    Args:
        module: An instance, such as `MLP([32], 10)`. Keyword-only float parameters of its `__call__` become settings of
            the task: traced, one value a member, and searchable. A parameter of the call that is named `train`, `training`,
            `is_training` or `deterministic` is set by the engine; weights are made with `train=False`.
        inputs: A batch of one example, [1, ...], for which weights are made.

    Returns:
        The pair of pure functions. `params` and `state` are nested dicts of arrays.

    Raises:
        ConfigError: It is no such module, but a class of them, say.

    References:
        Flax Linen, https://flax-linen.readthedocs.io
    """
    from flax import linen

    if not isinstance(module, linen.Module):
        given = f"the class {module.__name__}" if isinstance(module, type) else type(module).__name__
        raise ConfigError(f"from_linen: expected an instance of a flax.linen.Module; given: {given}")
    call = type(module).__call__
    named = parameters_of(call, "from_linen")

    def init(key: jax.Array) -> tuple[Any, Any]:
        made = linen.unbox(module.init(key, jnp.asarray(inputs), **flags(named, train=False)))
        return made.get("params", {}), {name: tree for name, tree in made.items() if name != "params"}

    def apply(params: Any, state: Any, inputs: Any, key: jax.Array, *, train: bool, **settings: Any) -> tuple[Any, Any]:
        given = flags(named, train=train) | settings
        # One key for all: Linen draws the streams that it was given no key for from this one, each call another number.
        outputs, moved = module.apply({"params": params, **state}, inputs, rngs=key, mutable=[*state], **given)
        return outputs, {name: moved[name] for name in state} if train else state

    return Model(init, with_call_settings(apply, call, "from_linen"))
