"""The model edge: a module becomes a pair of pure functions, and past this room all is arrays and pytrees.

The module is split once, into parameters, random streams and other state (batch statistics). Parameters and state belong
to a member. Random streams do not: on every call their keys are derived afresh from the key that is passed in, one a
stream, so that a copied member can never share randomness with its parent, and no key is ever stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from vmaptune.settings import with_settings


class Model(NamedTuple):
    """A network as two pure functions.

    Attributes:
        init: `key -> (params, state)`.
        apply: `(params, state, inputs, key, *, train: bool, <float settings>) -> (outputs, state)`.
    """

    init: Callable[..., tuple[Any, Any]]
    apply: Callable[..., tuple[Any, Any]]


def from_nnx(make: Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """Adapts a Flax NNX module.

    Args:
        make: Builds the module from its random streams, such as `lambda rngs: MLP(64, [32], 10, rngs=rngs)`. Keyword-only
            float parameters of the module's `__call__` become settings of the task: traced, one value a member, and
            searchable. `train()` and `eval()` modes are set by the engine.

    Returns:
        The pair of pure functions. `params` and `state` are nested dicts of arrays.
    """
    abstract = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    call = type(abstract).__call__
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
        outputs = module(inputs, **settings)
        return outputs, nnx.to_pure_dict(nnx.split(module, nnx.Param, nnx.RngState, ...)[3])

    return Model(init, with_settings(apply, call))
