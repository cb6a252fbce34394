"""Modules of Flax NNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vmaptune.errors import ConfigError
from vmaptune.models.adapters.contract import Model, attempt, flags, parameters_of, with_call_settings


def from_nnx(make: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """Adapts a Flax NNX module.

    It is split once, into parameters, random streams and other state.

    Args:
        make: Builds the module from its random streams, such as `lambda rngs: MLP(64, [32], 10, rngs=rngs)`. Keyword-only
            float parameters of the module's `__call__` become settings of the task: traced, one value a member, and
            searchable. `train()` and `eval()` modes are set by the engine, and so is a parameter of the call that is
            named `train`, `training`, `is_training` or `deterministic`.

    Returns:
        The pair of pure functions. `params` and `state` are nested dicts of arrays.

    Raises:
        ConfigError: The module cannot be built, or is built already.

    References:
        Flax NNX, https://flax.readthedocs.io
    """
    if isinstance(make, nnx.Module):
        given = f"given: an instance of {type(make).__name__}"
        raise ConfigError(f"from_nnx: expected a function of rngs that builds the module, such as the class; {given}")
    abstract = attempt(lambda: nnx.eval_shape(lambda: make(nnx.Rngs(0))), "from_nnx: the module cannot be built")
    if not isinstance(abstract, nnx.Module):
        raise ConfigError(f"from_nnx: make must return a flax.nnx.Module; given: {type(abstract).__name__}")
    call = type(abstract).__call__
    named = parameters_of(call, "from_nnx")
    graph, params_like, streams, state_like = nnx.split(abstract, nnx.Param, nnx.RngState, ...)
    params_tree, state_tree = jax.tree.structure(params_like), jax.tree.structure(state_like)
    stream_leaves, stream_tree = jax.tree.flatten(streams)

    def init(key: jax.Array) -> tuple[Any, Any]:
        _, params, _, state = nnx.split(make(nnx.Rngs(key)), nnx.Param, nnx.RngState, ...)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(state)

    def apply(params: Any, state: Any, inputs: Any, key: jax.Array, *, train: bool, **settings: Any) -> tuple[Any, Any]:
        fresh = [
            jax.random.fold_in(key, i) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jnp.zeros(leaf.shape, leaf.dtype)
            for i, leaf in enumerate(stream_leaves)
        ]
        module = nnx.merge(
            graph,
            jax.tree.unflatten(params_tree, jax.tree.leaves(params)),
            jax.tree.unflatten(stream_tree, fresh),
            jax.tree.unflatten(state_tree, jax.tree.leaves(state)),
            copy=True,
        )
        module.train() if train else module.eval()
        outputs = module(inputs, **flags(named, train=train), **settings)
        return outputs, nnx.to_pure_dict(nnx.split(module, nnx.Param, nnx.RngState, ...)[3])

    return Model(init, with_call_settings(apply, call, "from_nnx"))
