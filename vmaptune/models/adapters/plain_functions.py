"""Plain pairs of functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vmaptune.errors import ConfigError
from vmaptune.models.adapters.contract import Model, parameters_of, with_call_settings

_GIVEN = ("state", "key", "train")


def from_functions(init: Callable[..., Any], apply: Callable[..., Any], inputs: Any = None) -> Model:
    """Adapts a plain pair of functions.

    Args:
        init: `init(key) -> params`, or with a second parameter `init(key, inputs)`, inputs a batch of one example. If `apply`
            has a state, it returns `(params, state)`.
        apply: `apply(params, inputs) -> outputs`. It gets what it has a parameter for, in any place, by these very names:
            `key`, a key of the member's step; `train`, True while training; `state`, and then it returns
            `(outputs, state)`. Its keyword-only floats become settings of the task: traced, one value a member, and
            searchable.
        inputs: A batch of one example, [1, ...]; not needed where `init` takes a key alone.

    Returns:
        The pair in the form of a `Model`; a model without state has an empty dict.

    Raises:
        ConfigError: A function has other parameters than these, or returns something else.
    """
    wanted, required = _required(init, "init"), [name for name in _required(apply, "apply") if name not in _GIVEN]
    if len(wanted) not in (1, 2):
        raise ConfigError(f"from_functions: init must take (key) or (key, inputs); given: ({', '.join(wanted)})")
    sampled, named = len(wanted) == 2, parameters_of(apply, "from_functions")
    if len(required) != 2:
        takes = "params and inputs, and by name state, key and train"
        raise ConfigError(f"from_functions: apply must take {takes}; given: ({', '.join(named)})")
    if sampled and inputs is None:
        raise ConfigError("from_functions: init takes inputs too: give a batch of one example")
    stateful = "state" in named

    def start(key: jax.Array) -> tuple[Any, Any]:
        made = init(key, jnp.asarray(inputs)) if sampled else init(key)
        return _pair(made, "init", "(params, state)") if stateful else (made, {})

    def run(params: Any, state: Any, inputs: Any, key: jax.Array, *, train: bool, **settings: Any) -> tuple[Any, Any]:
        known = dict(zip(required, (params, inputs), strict=True)) | {"state": state, "key": key, "train": train}
        placed = [known.pop(name) for name, p in named.items() if p.kind is p.POSITIONAL_ONLY and name in known]
        outputs = apply(*placed, **{name: value for name, value in known.items() if name in named}, **settings)
        return _pair(outputs, "apply", "(outputs, state)") if stateful else (outputs, state)

    return Model(start, with_call_settings(run, apply, "from_functions", filled=_GIVEN))


def _required(function: Callable[..., Any], name: str) -> list[str]:
    """Names of what must be given by position."""
    if not callable(function):
        raise ConfigError(f"from_functions: {name} must be a function; given: {type(function).__name__}")
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = parameters_of(function, "from_functions").values()
    return [p.name for p in parameters if p.kind in kinds and p.default is p.empty]


def _pair(value: Any, name: str, expected: str) -> tuple[Any, Any]:
    if not isinstance(value, tuple) or len(value) != 2:
        given = f"{len(value)} values" if isinstance(value, tuple) else type(value).__name__
        raise ConfigError(f"from_functions: apply takes a state, so {name} must return {expected}; given: {given}")
    return value
