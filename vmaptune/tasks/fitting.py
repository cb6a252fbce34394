"""Whether a model, its data, its loss and its metric fit together, told before anything is compiled."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from vmaptune import models
from vmaptune.data.splits import Splits, check_splits
from vmaptune.errors import ConfigError
from vmaptune.models.adapters.contract import attempt


def computed(model: models.Model, params: Any, state: Any, inputs: Any, key: jax.Array, **given: Any) -> tuple[Any, Any]:
    """What a model makes of inputs, in the precision of its weights: `(outputs, state)`; outputs are float32 at least."""
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(params) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    if len(dtypes) == 1 and jnp.issubdtype(inputs.dtype, jnp.floating):
        (dtype,) = dtypes
        inputs = inputs.astype(dtype) if dtype.itemsize == 2 else inputs
    outputs, state = model.apply(params, state, inputs, key, **given)
    return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32)), state


def outputs_of(model: models.Model, splits: Splits, where: str) -> Any:
    """Shape and type of a model's outputs for two examples. Traces the model, computes nothing.

    Raises:
        ConfigError: The splits are unusable, or the model does not take their inputs, has nothing to train, or does not
            return what it should.
    """
    check_splits(splits, where)
    if not isinstance(splits.train, tuple | list) or len(splits.train) != 2 or len(jax.tree.leaves(splits.train)) != 2:
        raise ConfigError(f"{where}: each split must be a pair of arrays, (inputs, targets)")
    inputs, targets = splits.train
    if not jnp.issubdtype(inputs.dtype, jnp.number) and inputs.dtype != bool:
        raise ConfigError(f"{where}: inputs must be numbers; given: {inputs.dtype}")

    def forward(key: jax.Array, batch: Any) -> Any:
        params, state = _pair(model.init(key), "init must return (params, state)", where)
        _check_parameters(params, where)
        for train in (True, False):
            outputs, moved = _pair(
                model.apply(params, state, batch, key, train=train), "apply must return (outputs, state)", where
            )
            _check_array(outputs, where)
            if _shapes(moved) != _shapes(state):
                raise ConfigError(f"{where}: the model must return its state in the shapes it was given, {_shapes(state)[1]}")
        if not jax.tree.leaves(params):
            raise ConfigError(f"{where}: the model has no parameters to train")
        return computed(model, params, state, batch, key, train=False)[0]

    def traced(size: int) -> Any:
        sentence = f"{where}: the model cannot be traced on inputs of shape {inputs.shape[1:]}"
        return attempt(lambda: jax.eval_shape(forward, jax.random.key(0), _batch(inputs, size)), sentence)

    outputs = traced(size := _size_apart(inputs, targets))
    if size in outputs.shape[1:]:
        outputs = traced(size := _size_apart(inputs, targets, outputs))
    if outputs.shape[:1] != (size,):
        raise ConfigError(
            f"{where}: the model must return one row an example; given: shape {outputs.shape} for a batch of {size}"
        )
    return _batch(outputs, 2)


def check_transform(transform: Any, inputs: Any, where: str) -> None:
    """Raises `ConfigError` if what is done to the inputs while training does not return inputs."""
    batch = _batch(inputs, _size_apart(inputs))
    sentence = f"{where}: the transform cannot be traced for inputs {batch.shape}"
    found = attempt(lambda: jax.eval_shape(transform, batch, jax.random.key(0)), sentence)
    if isinstance(found, jax.ShapeDtypeStruct):
        if found.shape == batch.shape and (found.dtype == batch.dtype or jnp.issubdtype(found.dtype, jnp.floating)):
            return
        given = f"{found.dtype} of shape {found.shape}"
    else:
        given = type(found).__name__
    raise ConfigError(f"{where}: the transform must return real numbers of the inputs' shape {batch.shape}; given: {given}")


def check_functions(loss: Any, metric: Any, splits: Splits, outputs: Any, where: str) -> None:
    """Raises `ConfigError` if a loss or a metric of the user's own does not return what it should."""
    size = _size_apart(outputs, splits.train[1])
    outputs, targets = _batch(outputs, size), _batch(splits.train[1], size)
    for function, what, shape, expected in (
        (loss, "loss", (size,), "one number an example"),
        (metric, "metric", (), "one number"),
    ):
        if callable(function):
            sentence = f"{where}: the {what} cannot be traced for outputs {outputs.shape} and targets {targets.shape}"
            found = attempt(partial(jax.eval_shape, function, outputs, targets), sentence)
            if getattr(found, "shape", None) != shape:
                given = f"shape {found.shape} for a batch of {size}" if hasattr(found, "shape") else type(found).__name__
                raise ConfigError(f"{where}: the {what} must return {expected}; given: {given}")


def check_labels(splits: Splits, logits: Any, *, binary: bool, where: str) -> int:
    """Raises `ConfigError` if labels and logits do not fit together; returns the number of classes."""
    if binary and logits.shape not in ((2,), (2, 1)):
        raise ConfigError(
            f"{where}: with the binary loss, the model must return logits of shape (batch,) or (batch, 1); "
            f"given: {logits.shape} for a batch of 2"
        )
    if not binary and len(logits.shape) != 2:
        raise ConfigError(
            f"{where}: the model must return logits of shape (batch, classes); given: {logits.shape} for a batch of 2"
        )
    classes = 2 if binary else logits.shape[1]
    expected = "0 or 1" if binary else f"one of 0..{classes - 1}, the model's outputs"
    for part in Splits._fields:
        found = getattr(splits, part)[1]
        if not jnp.issubdtype(found.dtype, jnp.integer):
            raise ConfigError(f"{where}: labels must be integers; given: {found.dtype} in the {part} split")
        if found.ndim != 1 or found.min() < 0 or found.max() >= classes:
            raise ConfigError(
                f"{where}: labels must be {expected}; "
                f"given: {found.min()}..{found.max()}, shape {found.shape}, in the {part} split"
            )
    if (only := splits.train[1].min()) == splits.train[1].max():
        raise ConfigError(f"{where}: there is nothing to tell apart: all labels of the train split are {only}")
    return classes


def check_two_classes(splits: Splits, where: str) -> None:
    """Raises `ConfigError` if there is nothing to tell apart in the validation or the test split."""
    for part in ("validation", "test"):
        labels = getattr(splits, part)[1]
        if labels.min() == labels.max():
            raise ConfigError(
                f"{where}: roc_auc compares classes; given: only label {labels.min()} in the {part} split; stratify the splits"
            )


def check_targets(splits: Splits, outputs: Any, where: str) -> None:
    """Raises `ConfigError` if targets and outputs do not fit together."""
    targets = splits.train[1]
    if not jnp.issubdtype(targets.dtype, jnp.floating):
        raise ConfigError(f"{where}: targets must be real numbers; given: {targets.dtype} in the train split")
    width = targets.shape[1:] or (1,)
    if outputs.shape not in ((2, *width), *([(2,)] if width == (1,) else [])):
        raise ConfigError(
            f"{where}: the model must return one number a target, shape {('batch', *targets.shape[1:])}; "
            f"given: {outputs.shape} for a batch of 2, targets of shape {targets.shape}"
        )


def _pair(value: Any, sentence: str, where: str) -> tuple[Any, Any]:
    if not isinstance(value, tuple) or len(value) != 2:
        given = f"{len(value)} values" if isinstance(value, tuple) else type(value).__name__
        raise ConfigError(f"{where}: the model's {sentence}; given: {given}")
    return value


def _check_parameters(params: Any, where: str) -> None:
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "the parameter"
        if not hasattr(leaf, "dtype"):
            raise ConfigError(f"{where}: parameters must be arrays; {name} is {type(leaf).__name__}: use jnp.asarray")
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ConfigError(f"{where}: parameters must be real numbers; {name} is {leaf.dtype}: keep it in the state")


def _size_apart(*arrays: Any) -> int:
    """A size for a batch that nothing else has, so that no other axis is taken for the batch's."""
    taken = {length for array in arrays for length in array.shape}
    return next(size for size in itertools.count(7) if size not in taken)


def _batch(like: Any, size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((size, *like.shape[1:]), jax.dtypes.canonicalize_dtype(like.dtype))


def _check_array(outputs: Any, where: str) -> None:
    if not isinstance(outputs, jax.Array):
        raise ConfigError(f"{where}: the model must return an array of outputs; given: {type(outputs).__name__}")


def _shapes(tree: Any) -> tuple[Any, Any]:
    return jax.tree.structure(tree), jax.tree.map(jnp.shape, tree)
