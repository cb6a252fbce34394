"""What every adapter makes, and how it reads the call of a model."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from vmaptune.errors import ConfigError, VmaptuneError
from vmaptune.settings import settings, with_settings

MODES = ("train", "training", "is_training", "deterministic")  # what frameworks call the flag of training


class Model(NamedTuple):
    """A network as two pure functions.

    Attributes:
        init: `key -> (params, state)`.
        apply: `(params, state, inputs, key, *, train: bool, <float settings>) -> (outputs, state)`.
    """

    init: Callable[..., tuple[Any, Any]]
    apply: Callable[..., tuple[Any, Any]]


def parameters_of(call: Callable[..., Any], where: str) -> dict[str, inspect.Parameter]:
    """The parameters of a model's call, in order.

    Raises:
        ConfigError: An annotation cannot be read.
    """
    try:
        return dict(inspect.signature(call, eval_str=True).parameters)
    except (NameError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: the parameters of the model's call cannot be read: {told(error)}") from error


def flags(parameters: Collection[str], *, train: bool) -> dict[str, bool]:
    """The mode, by the names that a call has for it: `train`, `training` and `is_training`, or their opposite."""
    return {name: train != (name == "deterministic") for name in MODES if name in parameters}


def with_call_settings(
    apply: Callable[..., Any], call: Callable[..., Any], where: str, filled: Collection[str] = ()
) -> Callable[..., Any]:
    """Gives `apply`, which takes `**settings`, the keyword-only floats of a model's call as its visible signature.

    Args:
        apply: Of the `Model`.
        call: Of the model, whose docstring explains them.
        where: What to call it in an error.
        filled: Parameters that the adapter fills in, whatever their kind.

    Raises:
        ConfigError: A keyword-only parameter has no annotation, so nobody could tell whether it is a setting.
    """

    def declared() -> None: ...

    named = parameters_of(call, where).values()
    known = [p for p in named if p.kind is p.KEYWORD_ONLY and p.name not in {*MODES, *filled}]
    declared.__name__, declared.__doc__ = where, inspect.getdoc(call)
    declared.__signature__ = inspect.Signature(known)  # type: ignore[attr-defined]
    own = settings(declared)  # of which those that are no floats keep their defaults: they are part of the model
    declared.__signature__ = inspect.Signature([p for p in known if own[p.name].traced])  # type: ignore[attr-defined]
    return with_settings(apply, declared)


def library(name: str, package: str, where: str) -> Any:
    """Imports a framework when it is first needed.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{where}: {name} is not installed; pip install {package}") from error


def attempt(build: Callable[[], Any], sentence: str) -> Any:
    """Runs what a user wrote; whatever it raises becomes one sentence, with the first line of what it said.

    Raises:
        ConfigError: It raised something.
    """
    try:
        return build()
    except VmaptuneError:
        raise
    except Exception as error:
        raise ConfigError(f"{sentence}: {told(error)}") from error


def told(error: Exception) -> str:
    """The first line of what an exception says, after its name."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}".removesuffix(": ")
