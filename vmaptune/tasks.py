"""What is trained: a model, data and a loss, bound into a `Task`.

A task is data and two pure functions, whatever framework the model came from. The settings of a task are read from two
signatures: those of the function that builds it (`int`, `bool`, `str`: static) and those of its loss (`float`: traced,
one value a member).

To ship a task, write a builder and add a row to `TASKS`. A task of your own needs no row: name it
`package.module:function` or `path/to/file.py:function` in the config, or pass the `Task` to `vmaptune.tune`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from vmaptune import models
from vmaptune.data import embedded
from vmaptune.data.splits import Splits, check_splits
from vmaptune.errors import ConfigError, did_you_mean
from vmaptune.lowering import has_convolutions
from vmaptune.settings import Count, settings, with_settings

Metrics = dict[str, jax.Array]


class Loss(Protocol):
    """What one member pays on one batch. Keyword-only floats beyond `train` are settings: traced, and may be axes."""

    def __call__(
        self, params: Any, model_state: Any, batch: Any, key: jax.Array, *, train: bool, **settings: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        """Returns `(loss f32[], (model_state, {metric: f32[]}))`, means over the batch's examples.

        With `train=False` there is no randomness and no regularisation, so that members with different settings are
        measured alike.
        """
        ...


class Task(NamedTuple):
    """A training problem.

    Attributes:
        init: `(key, sample) -> (params, model_state)`; sample is a batch of one example.
        loss: See `Loss`.
        splits: The data, examples on the leading axis.
        metric: What a member is selected by: "loss", or one of the metrics that `loss` returns.
        direction: "max" or "min".
    """

    init: Callable[[jax.Array, Any], tuple[Any, Any]]
    loss: Loss
    splits: Splits
    metric: str
    direction: Literal["max", "min"]

    @property
    def sample(self) -> Any:
        """A batch of one training example."""
        return jax.tree.map(lambda leaf: leaf[:1], self.splits.train)


def check_task(task: Task, where: str = "task") -> list[str]:
    """Checks a task before anything is compiled or written. Traces its loss on one example, computes nothing.

    Returns:
        Names of what it measures: "loss", then the metrics that its loss returns.

    Raises:
        ConfigError: A split is unusable, a setting of the loss has no default, a metric is not one number or has a taken
            name, or members cannot be selected by the task's metric and direction.
    """
    check_splits(task.splits, where)
    if missing := [s.name for s in settings(task.loss).values() if s.required]:
        raise ConfigError(f"{where}: the loss's setting {missing[0]!r} needs a default: it is measured without settings")

    def measure() -> tuple[jax.Array, Metrics]:
        key = jax.random.key(0)
        params, model_state = task.init(key, task.sample)
        loss, (_, metrics) = task.loss(params, model_state, task.sample, key, train=False)
        return loss, metrics

    loss, metrics = jax.eval_shape(measure)
    if "loss" in metrics:
        raise ConfigError(f"{where}: a metric cannot be named 'loss'; the loss itself is recorded under that name")
    for name, value in {"loss": loss, **metrics}.items():
        if value.shape:
            raise ConfigError(f"{where}: {name} must be one number, the mean over a batch; given: shape {value.shape}")
    names = ["loss", *metrics]
    if task.metric not in names:
        raise ConfigError(f"{where}: its loss returns no metric {task.metric!r}{did_you_mean(task.metric, names)}")
    if task.direction not in ("max", "min"):
        raise ConfigError(f"{where}: direction must be 'max' or 'min'; given: {task.direction!r}")
    return names


def is_convolutional(task: Task) -> bool:
    """True if there is a convolution in the task's loss."""

    def value(params: Any, model_state: Any, batch: Any, key: jax.Array) -> Any:
        return task.loss(params, model_state, batch, key, train=True)

    sample = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), task.sample)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return has_convolutions(value, *jax.eval_shape(task.init, key, sample), sample, key)


def classification(model: models.Model, splits: Splits, *, where: str = "task") -> Task:
    """A task that maps inputs to one of several classes: cross-entropy loss, accuracy as the metric.

    Args:
        model: Pure functions whose outputs are logits f32[batch, classes], from `vmaptune.models.from_nnx` or your own.
        splits: Parts of `(inputs, integer labels)`.
        where: What to call the task in an error.

    Raises:
        ConfigError: A split is empty, ragged or non-finite, or labels and logits do not fit together.
    """
    check_splits(splits, where)

    def init(key: jax.Array, sample: Any) -> tuple[Any, Any]:
        del sample  # the model knows its own input shape
        return model.init(key)

    def loss(
        params: Any, model_state: Any, batch: Any, key: jax.Array, *, train: bool, **settings: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        inputs, labels = batch
        logits, model_state = model.apply(params, model_state, inputs, key, train=train, **settings)
        value = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return value, (model_state, {"accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == labels)})

    _check_labels(model, splits, where)
    return Task(init, with_settings(loss, model.apply), splits, "accuracy", "max")


def _check_labels(model: models.Model, splits: Splits, where: str) -> None:
    inputs = splits.train[0]

    def forward(key: jax.Array, batch: Any) -> jax.Array:
        params, state = model.init(key)
        return model.apply(params, state, batch, key, train=False)[0]

    try:
        logits = jax.eval_shape(forward, jax.random.key(0), inputs[:2])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: the model does not take inputs of shape {inputs.shape[1:]}: {error}") from error
    if len(logits.shape) != 2:
        raise ConfigError(
            f"{where}: the model must return logits of shape (batch, classes); given: {logits.shape} for a batch of 2"
        )
    for part in Splits._fields:
        found = getattr(splits, part)[1]
        if not jnp.issubdtype(found.dtype, jnp.integer):
            raise ConfigError(f"{where}: labels must be integers; given: {found.dtype} in the {part} split")
        if found.ndim != 1 or found.min() < 0 or found.max() >= logits.shape[1]:
            raise ConfigError(
                f"{where}: labels must be one of 0..{logits.shape[1] - 1}, the model's outputs; "
                f"given: {found.min()}..{found.max()}, shape {found.shape}, in the {part} split"
            )


def digits(*, model: Literal["mlp"] = "mlp", hidden: tuple[Count, ...] = (64, 64)) -> Task:
    """Handwritten digits (scikit-learn, embedded): 1,797 images of 8x8, ten classes, classified by a small network.

    Args:
        model: The network.
        hidden: Width of each hidden layer.

    References:
        Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998
    """
    networks = {"mlp": lambda rngs: models.MLP(64, hidden, 10, rngs=rngs)}
    return classification(models.from_nnx(networks[model]), embedded.digits(), where="task digits")


def digits_cnn(*, channels: tuple[Count, ...] = (16, 32)) -> Task:
    """The handwritten digits as images, classified by a small convolutional network.

    Args:
        channels: Of each convolution; at most three, because each halves the 8x8 pixels.

    References:
        Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998
    """
    if not 1 <= len(channels) <= 3:
        raise ConfigError(f"task.channels: expected one to three widths, for images of 8x8; given: {list(channels)}")
    flat = embedded.digits()
    images = Splits(*((inputs.reshape(-1, 8, 8, 1), labels) for inputs, labels in flat))
    network = models.from_nnx(lambda rngs: models.CNN((8, 8, 1), channels, 10, rngs=rngs))
    return classification(network, images, where="task digits_cnn")


TaskBuilder = Callable[..., Task]

TASKS: dict[str, TaskBuilder] = {
    "digits": digits,
    "digits_cnn": digits_cnn,
}


def find_task(name: str) -> TaskBuilder:
    """Finds the builder of a task by its name in a config.

    Args:
        name: A row of `TASKS`, `package.module:function` (the current folder is searched too), or
            `path/to/file.py:function`.

    Raises:
        ConfigError: There is no such row, module, file or function.
    """
    if name in TASKS:
        return TASKS[name]
    place, colon, attribute = name.rpartition(":")
    if not colon:
        raise ConfigError(
            f"task.name: no task {name!r}{did_you_mean(name, TASKS)} (or give package.module:function, or file.py:function)"
        )
    try:
        module = _load_file(place) if place.endswith(".py") else None
        if module is None:
            if "" not in sys.path:
                sys.path.insert(0, "")  # as `python -m` does: a task of your own lies in the current folder
            return pkgutil.resolve_name(name)
        return getattr(module, attribute)
    except (ImportError, FileNotFoundError, SyntaxError, ValueError) as error:
        raise ConfigError(f"task.name: cannot load {name!r}: {error}") from error
    except AttributeError:
        raise ConfigError(f"task.name: {place} has no function {attribute!r}") from None


def _load_file(path: str) -> Any:
    """Runs a Python file as a module, once a process, under a name that no other module has."""
    file = Path(path).resolve()
    name = f"_vmaptune_task_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a Python file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # flax and dataclasses look a class's module up by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
