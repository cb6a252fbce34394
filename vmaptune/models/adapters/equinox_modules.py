"""Modules of Equinox."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vmaptune.errors import ConfigError
from vmaptune.models.adapters.contract import Model, attempt, library, parameters_of, with_call_settings


def from_equinox(make: Callable[[jax.Array], Any]) -> Model:
    """Adapts an Equinox module.

    Its call is for one example, as is usual there, and is mapped over the batch under the axis name `"batch"`, which is what
    a `BatchNorm` must be told. Arrays of real numbers become the parameters, other arrays and the module's
    `equinox.nn.State` the state; what is no array (an activation, a dropout rate) is the same for all members.

    Args:
        make: Builds the module from a key, such as `lambda key: eqx.nn.MLP(64, 10, 32, 2, key=key)`. The call is
            `module(x)`, or `module(x, state) -> (outputs, state)` if it has state; a parameter named `key` gets a key of the
            example's own. Keyword-only float parameters of the call become settings of the task: traced, one value a member,
            and searchable. `inference` of all layers is set by the engine.

    Returns:
        The pair of pure functions. `params` is a dict of arrays by dotted path, such as `layers.0.weight`.

    Raises:
        ConfigError: Equinox is not installed, or the module cannot be built, is built already or holds a key.

    References:
        Kidger & Garcia, Equinox: neural networks in JAX via callable PyTrees, https://arxiv.org/abs/2111.00254
    """
    eqx = library("equinox", "equinox", "from_equinox")
    # An `equinox.Partial` of a class is a module too, but has no arrays.
    if isinstance(make, eqx.Module) and any(map(eqx.is_array, jax.tree.leaves(make))):
        given = f"given: an instance of {type(make).__name__}"
        raise ConfigError(f"from_equinox: expected a function of a key that builds the module, such as the class; {given}")
    make_both = eqx.nn.make_with_state(make)
    abstract, memory = attempt(
        lambda: eqx.filter_eval_shape(make_both, jax.random.key(0)), "from_equinox: the module cannot be built"
    )
    if not isinstance(abstract, eqx.Module) or not callable(abstract):
        raise ConfigError(f"from_equinox: make must return an equinox.Module with a call; given: {type(abstract).__name__}")
    call, stateful = type(abstract).__call__, bool(jax.tree.leaves(memory))
    takes_key = "key" in parameters_of(call, "from_equinox")
    leaves, tree = jax.tree.flatten(abstract)
    names, arrays = _names(abstract), {}
    for name, leaf in zip(names, leaves, strict=True):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                raise ConfigError(f"from_equinox: the module holds a random key, {name}; take it in the call instead")
            arrays[name] = jnp.issubdtype(leaf.dtype, jnp.inexact)

    def init(key: jax.Array) -> tuple[Any, Any]:
        module, state = make_both(key)
        made = {name: _settled(leaf) for name, leaf in zip(names, jax.tree.leaves(module), strict=True) if name in arrays}
        fixed = {name: leaf for name, leaf in made.items() if not arrays[name]}
        moving = dict(zip(_names(state), map(_settled, jax.tree.leaves(state)), strict=True))
        return {name: leaf for name, leaf in made.items() if arrays[name]}, {"arrays": fixed, "state": moving}

    def apply(params: Any, state: Any, inputs: Any, key: jax.Array, *, train: bool, **settings: Any) -> tuple[Any, Any]:
        own = params | state["arrays"]
        module = jax.tree.unflatten(tree, [own.get(name, leaf) for name, leaf in zip(names, leaves, strict=True)])
        module = eqx.nn.inference_mode(module, value=not train)
        before = jax.tree.unflatten(jax.tree.structure(memory), [state["state"][name] for name in _names(memory)])

        def one(x: Any, before: Any, key: Any) -> tuple[Any, Any]:
            given = settings | ({"key": key} if takes_key else {})
            return module(x, before, **given) if stateful else (module(x, **given), before)

        keys = jax.random.split(key, len(inputs)) if takes_key else None
        each = jax.vmap(one, in_axes=(0, None, 0), out_axes=(0, None), axis_name="batch")
        outputs, after = each(inputs, before, keys)
        if not train:
            return outputs, state
        after = jax.tree.map(lambda _, leaf: leaf, memory, after)  # in the order of the names
        return outputs, state | {"state": dict(zip(_names(memory), jax.tree.leaves(after), strict=True))}

    return Model(init, with_call_settings(apply, call, "from_equinox", filled=("key",)))


def _names(tree: Any) -> list[str]:
    """Dotted path of each leaf."""
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def _settled(leaf: Any) -> jax.Array:
    """The array, of a type of its own: a Python number's would bend to whatever it met first."""
    return jax.lax.convert_element_type(leaf, leaf.dtype)
