"""Fine-tuning: weights taken over from a file, parameters that are not trained, and groups of parameters.

Both of the first two turn a task into a task, so that nothing else knows of them. What is not trained stands in the model
state: no optimizer sees it, so it is neither clipped nor decayed and has no momentum, and it follows its member.

Parameters and numbers of the model state are named by dotted path, `hidden.0.kernel`, and chosen by glob patterns of these
names, `hidden.*`, where a star stands for dots too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.data.weights import Weights, read_weights
from vmaptune.errors import ConfigError, did_you_mean
from vmaptune.settings import show, with_settings
from vmaptune.tasks import Loss, Metrics, Task

Patterns = str | tuple[str, ...]
_SHOWN = 5  # paths that an error lists


class Frozen(NamedTuple):
    """The model state of a task some of whose parameters are not trained.

    Attributes:
        params: Those parameters; None in the place of each that is trained.
        state: The model's own state.
    """

    params: Any
    state: Any


def whole(params: Any, model_state: Any) -> tuple[Any, Any]:
    """Weights and model state as the model itself has them, whatever of its parameters is frozen."""
    if not isinstance(model_state, Frozen):
        return params, model_state
    return _joined(params, model_state.params), model_state.state


# --------------------------------------------------------------------------------------------------------- from a file


def finetuned(task: Task, source: str, *, part: Patterns = "*", freeze: Patterns = "", sha256: str = "") -> tuple[Task, str]:
    """A task that begins with weights from a file, or trains some of its parameters only.

    Args:
        task: The task.
        source: See `read_weights`; empty: members begin as they do.
        part: See `started_from`.
        freeze: See `frozen`; empty: everything is trained.
        sha256: What the file must have, if it is not empty.

    Returns:
        The task, and the file's sha256.

    Raises:
        ConfigError: The file is not there, is another one, or does not fit.
    """
    if source:
        weights = read_weights(source)
        if sha256 not in ("", weights.sha256):
            raise ConfigError(f"init.sha256: {weights.path} has changed: it is {weights.sha256}; given: {show(sha256)}")
        task, sha256 = started_from(task, weights, part), weights.sha256
    elif sha256 or part != "*":
        raise ConfigError(f"init.{'sha256' if sha256 else 'part'}: there are no weights that it could be of; give init.from")
    return frozen(task, freeze) if freeze else task, sha256


def started_from(task: Task, weights: Weights, part: Patterns = "*", where: str = "init") -> Task:
    """A task whose members begin with weights from a file, all with the same; what is not taken over is drawn as before.

    Args:
        task: The task.
        weights: What they begin with.
        part: Names of the parameters, and of numbers of the model state, that are taken over.
        where: What to call the section in an error.

    Raises:
        ConfigError: A pattern that fits nothing, or something to take over that the file lacks, or has in another shape or
            type.
    """
    rooms = dict(zip(("params", "model_state"), map(named, _born(task)), strict=True))
    chosen = _matching([*rooms["params"], *rooms["model_state"]], part, f"{where}.part")
    taken: dict[str, np.ndarray] = {}
    for room, leaves in rooms.items():
        for name, leaf in leaves.items():
            if name in chosen:
                array = taken[f"{room}.{name}"] = _found(weights, f"{room}.{name}", where)
                if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
                    raise ConfigError(
                        f"{where}.from: {room}.{name} does not fit: expected {leaf.dtype}{list(leaf.shape)}, found "
                        f"{array.dtype}{list(array.shape)} in {weights.path}; {where}.part can leave it out"
                    )

    if not taken:
        raise ConfigError(f"{where}.part: nothing is taken over; leave out {where}.from, or name some; given: {show(part)}")

    def init(key: jax.Array, sample: Any) -> tuple[Any, Any]:
        def replaced(room: str, tree: Any) -> Any:
            return _map(lambda name, leaf: jnp.asarray(taken.get(f"{room}.{name}", leaf)), tree)

        params, model_state = task.init(key, sample)
        return replaced("params", params), replaced("model_state", model_state)

    return task._replace(init=init)


def _found(weights: Weights, name: str, where: str) -> np.ndarray:
    if name not in weights.arrays:
        hint = did_you_mean(name, weights.arrays) if len(weights.arrays) <= _SHOWN else ""
        raise ConfigError(f"{where}.from: {weights.path} has no {name}{hint}; {where}.part can leave it out")
    return weights.arrays[name]


# -------------------------------------------------------------------------------------------------------- not trained


def frozen(task: Task, patterns: Patterns, where: str = "init.freeze") -> Task:
    """A task of which some parameters are not trained: they stand in the model state, as `Frozen`.

    Batch statistics are no parameters: they go on following the data.

    Args:
        task: The task.
        patterns: Names of these parameters.
        where: What to call the setting in an error.

    Raises:
        ConfigError: A pattern that fits no parameter, or nothing is left to train.
    """
    names = named(_born(task)[0])
    still = _matching(names, patterns, where)
    if len(still) == len(names):
        raise ConfigError(f"{where}: freezes all {len(names)} parameters, so nothing is left to train; given: {show(patterns)}")
    predict = task.predict

    def init(key: jax.Array, sample: Any) -> tuple[Any, Frozen]:
        params, state = task.init(key, sample)
        trained = _map(lambda name, leaf: None if name in still else leaf, params)
        return trained, Frozen(_map(lambda name, leaf: leaf if name in still else None, params), state)

    def loss(
        params: Any, model_state: Frozen, batch: Any, key: jax.Array, *, train: bool, **settings: Any
    ) -> tuple[jax.Array, tuple[Frozen, Metrics]]:
        everything, state = whole(params, model_state)
        value, (state, metrics) = task.loss(everything, state, batch, key, train=train, **settings)
        return value, (Frozen(model_state.params, state), metrics)

    def predicted(params: Any, model_state: Frozen, batch: Any) -> Any:
        return predict(*whole(params, model_state), batch) if predict else None

    return task._replace(init=init, loss=as_loss(loss, task.loss), predict=predicted if predict else None)


def as_loss(loss: Callable[..., Any], of: Loss) -> Loss:
    """A loss that is wrapped around another, with the other's settings as its own."""
    documented: Any = of
    while hasattr(documented, "func"):  # a partial has no docstring of its own
        documented = documented.func
    return with_settings(loss, of, documented)


# ------------------------------------------------------------------------------------------------------------- groups


def one_group_each(task: Task, groups: Mapping[str, Patterns]) -> None:
    """Checks that no parameter is in two groups, given as patterns by name.

    Raises:
        ConfigError: A pattern that fits no trained parameter, or a parameter in two groups.
    """
    names = named(_born(task)[0])
    owner: dict[str, str] = {}
    for group, patterns in groups.items():
        for name in sorted(_matching(names, patterns, f"groups.{group}.match")):
            if name in owner:
                raise ConfigError(f"groups.{group}.match: {name} is in [groups.{owner[name]}] already; it can be in one group")
            owner[name] = group


def scaled(updates: Any, factors: Iterable[tuple[Patterns, jax.Array]]) -> Any:
    """Updates of parameters, those of each group times its factor, in the dtypes that they have."""

    def scale(name: str, update: jax.Array) -> jax.Array:
        factor = next((factor for patterns, factor in factors if _fits(name, patterns)), None)
        return update if factor is None else (factor * update).astype(update.dtype)

    factors = list(factors)
    return _map(scale, updates) if factors else updates


# -------------------------------------------------------------------------------------------------------------- names


def named(tree: Any) -> dict[str, Any]:
    """Leaves of a tree by dotted path."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _map(fn: Callable[[str, Any], Any], tree: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, leaf: fn(_name(path), leaf), tree)


def _joined(some: Any, others: Any) -> Any:
    """Two trees of one structure, of which one has None where the other has a leaf."""
    return jax.tree.map(lambda one, other: other if one is None else one, some, others, is_leaf=lambda leaf: leaf is None)


def _born(task: Task) -> tuple[Any, Any]:
    """Shapes and types of a task's parameters and model state."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(task.init, key, task.sample)


def _each(patterns: Patterns) -> tuple[str, ...]:
    return tuple(filter(None, (patterns,) if isinstance(patterns, str) else patterns))


def _fits(name: str, patterns: Patterns) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in _each(patterns))


def _matching(names: Iterable[str], patterns: Patterns, where: str) -> set[str]:
    """The names that fit a pattern; raises `ConfigError` if a pattern fits none."""
    names = list(dict.fromkeys(names))
    for pattern in _each(patterns):
        if not any(fnmatchcase(name, pattern) for name in names):
            more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
            known = ", ".join(names[:_SHOWN]) + more
            close = did_you_mean(pattern, [*names, *(f"{name.partition('.')[0]}.*" for name in names)])
            close = close if close.startswith("; did") else ""
            raise ConfigError(f"{where}: fits no parameter{close}; there are: {known or 'none'}; given: {show(pattern)}")
    return {name for name in names if _fits(name, patterns)}
