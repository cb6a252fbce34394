"""What a task is: data and pure functions, whatever framework the model came from, and the checks they must pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypedDict, Unpack

import jax

from vmaptune.data.preparation import Preparation
from vmaptune.data.splits import Splits, check_splits
from vmaptune.errors import ConfigError, did_you_mean
from vmaptune.lowering import has_convolutions, has_loops
from vmaptune.settings import settings

if TYPE_CHECKING:
    from flax import linen, nnx

Metrics = dict[str, jax.Array]
"""f32[] a metric, by name."""


class Loss(Protocol):
    """What one member pays on one batch: `loss(params, model_state, batch, key, *, train, <float settings>)`.

    Keyword-only floats beyond `train` are settings: traced, one value a member, and may be axes. One that rests at its
    default for good is not passed: the loss then sees the plain number, and can leave out what that number turns off.

    A loss that depends on the data, on how rare each class is, say, has an attribute `remade`: `splits -> loss`, the same
    loss for other splits.
    """

    def __call__(self, *args: Any, **settings: Any) -> tuple[jax.Array, tuple[Any, Metrics]]:
        """Returns `(loss f32[], (model_state, {metric: f32[]}))`, means over the batch's examples.

        With `train=False` there is no randomness and no regularisation, so that members with different settings are
        measured alike.
        """
        ...


class Judged(TypedDict, total=False):
    """What a model is trained for and judged by, in `Task.from_nnx` and its like.

    Attributes:
        loss: What is paid in training: "cross_entropy" (the default), "binary_cross_entropy", "mse", "huber", or a function
            `(outputs, targets, *, <float settings>) -> f32[batch]`, whose settings become the task's.
        metric: What members are selected by: "accuracy" (the default of a classification), "balanced_accuracy", "f1",
            "roc_auc", "rmse" (the default of a regression), "mae", "r2", "loss", or a function
            `(outputs, targets) -> f32[]` of a whole split.
        direction: "max" or "min", of a metric function.
        transform: `(inputs, key, *, <float settings>) -> inputs`, what is done to a batch's inputs while training.
        where: What to call the task in an error.
    """

    loss: str | Callable[..., jax.Array]
    metric: str | Callable[[jax.Array, jax.Array], jax.Array]
    direction: Literal["max", "min"]
    transform: Callable[..., jax.Array]
    where: str


class Serving(NamedTuple):
    """How a trained model is used: on inputs alone, and on raw data.

    Attributes:
        apply: `(params, model_state, inputs) -> outputs`, one row an example. Draws nothing and regularises nothing.
        judge: `(outputs, data) -> {metric: f32[]}`, of a whole split at once: all that is measured of a member on it, from
            outputs that may be anybody's.
        preparation: What raw data and answers are.
    """

    apply: Callable[[Any, Any, Any], Any]
    judge: Callable[[Any, Any], Metrics]
    preparation: Preparation


class Task(NamedTuple):
    """A training problem.

    `from_nnx`, `from_linen`, `from_equinox`, `from_haiku` and `from_functions` make one of examples with a known answer from
    a model of your own: a classification if the loss is one of classes, a regression if it is one of numbers. For a loss
    function, the metric's name decides, and else the data: integer targets are classes. Keyword-only float parameters of the
    model's call and of the loss become settings of the task, one value a member. float64 data are trained in float32, as
    everything in JAX, unless its x64 mode is on.

    What is a mean over examples, the loss measures, batch by batch. What is not (F1, AUC, the root of a mean square)
    needs a whole split at once: `predict` gives the outputs of each example, `score` is called once with those of all.

    Attributes:
        init: `(key, sample) -> (params, model_state)`; sample is a batch of one example.
        loss: See `Loss`.
        splits: The data, examples on the leading axis.
        metric: What a member is selected by: "loss", or one of the metrics that `loss` or `score` returns.
        direction: "max" or "min".
        predict: `(params, model_state, batch) -> outputs`, a pytree with the batch's examples on the leading axis. Draws
            nothing and regularises nothing, as the loss with `train=False`.
        score: `(outputs, data) -> {metric: f32[]}`, of a whole split at once: its outputs from `predict`, and the split.
            Measured on validation and test, never while training. The outputs of a split are held in memory, for as many
            members as are evaluated side by side. Given together with `predict`, or not at all.
        features: Names of the inputs' columns, where they have any.
        serving: How a trained model is used on data without targets, where the task knows: `vmaptune.load` and ensembles ask.
    """

    init: Callable[[jax.Array, Any], tuple[Any, Any]]
    loss: Loss
    splits: Splits
    metric: str
    direction: Literal["max", "min"]
    predict: Callable[[Any, Any, Any], Any] | None = None
    score: Callable[[Any, Any], Metrics] | None = None
    features: tuple[str, ...] = ()
    serving: Serving | None = None

    def prepared(self, **facts: Any) -> Task:
        """The same task, with more said about its raw data: fields of a `Preparation`."""
        if self.serving is None:
            return self
        return self._replace(serving=self.serving._replace(preparation=replace(self.serving.preparation, **facts)))

    @property
    def sample(self) -> Any:
        """A batch of one training example."""
        return jax.tree.map(lambda leaf: leaf[:1], self.splits.train)

    @property
    def remade(self) -> Callable[[Splits], Task] | None:
        """`splits -> task`, the same task on other splits, whose fit is checked; None: its loss does not depend on them."""
        loss: Any = self.loss
        static: dict[str, Any] = {}
        while isinstance(loss, partial):  # of settings that are the same for all members
            loss, static = loss.func, loss.keywords | static
        remade = getattr(loss, "remade", None)
        if remade is None:
            return None
        return lambda splits: self._replace(splits=splits, loss=partial(remade(splits), **static) if static else remade(splits))

    @staticmethod
    def from_nnx(make: Callable[[nnx.Rngs], nnx.Module], splits: Splits, **judged: Unpack[Judged]) -> Task:
        """A task of a Flax NNX module.

        Args:
            make: Builds the module, see `vmaptune.models.from_nnx`.
            splits: Parts of `(inputs, targets)`.
            **judged: See `Judged`.

        Raises:
            ConfigError: Something does not fit together; nothing is compiled before that is known.
        """
        from vmaptune.models.adapters import from_nnx
        from vmaptune.tasks.adapting import supervised

        return supervised(from_nnx(make), splits, **judged)

    @staticmethod
    def from_linen(module: linen.Module, splits: Splits, **judged: Unpack[Judged]) -> Task:
        """A task of a Flax Linen module.

        Args:
            module: An instance, see `vmaptune.models.from_linen`.
            splits: Parts of `(inputs, targets)`.
            **judged: See `Judged`.

        Raises:
            ConfigError: As `from_nnx` does.
        """
        from vmaptune.models.adapters import from_linen
        from vmaptune.tasks.adapting import example, supervised

        return supervised(from_linen(module, example(splits, judged.get("where", "task"))), splits, **judged)

    @staticmethod
    def from_equinox(make: Callable[[jax.Array], Any], splits: Splits, **judged: Unpack[Judged]) -> Task:
        """A task of an Equinox module.

        Args:
            make: Builds the module from a key, see `vmaptune.models.from_equinox`.
            splits: Parts of `(inputs, targets)`.
            **judged: See `Judged`.

        Raises:
            ConfigError: As `from_nnx` does, or Equinox is not installed.
        """
        from vmaptune.models.adapters import from_equinox
        from vmaptune.tasks.adapting import supervised

        return supervised(from_equinox(make), splits, **judged)

    @staticmethod
    def from_haiku(forward: Callable[..., Any], splits: Splits, **judged: Unpack[Judged]) -> Task:
        """A task of a Haiku function.

        Args:
            forward: Not transformed yet, see `vmaptune.models.from_haiku`.
            splits: Parts of `(inputs, targets)`.
            **judged: See `Judged`.

        Raises:
            ConfigError: As `from_nnx` does, or Haiku is not installed.
        """
        from vmaptune.models.adapters import from_haiku
        from vmaptune.tasks.adapting import example, supervised

        return supervised(from_haiku(forward, example(splits, judged.get("where", "task"))), splits, **judged)

    @staticmethod
    def from_functions(init: Callable[..., Any], apply: Callable[..., Any], splits: Splits, **judged: Unpack[Judged]) -> Task:
        """A task of a plain pair of functions.

        Args:
            init: `init(key)` or `init(key, inputs)`, see `vmaptune.models.from_functions`.
            apply: `apply(params, inputs)`, with `state`, `key` and `train` if it wants them.
            splits: Parts of `(inputs, targets)`.
            **judged: See `Judged`.

        Raises:
            ConfigError: As `from_nnx` does.
        """
        from vmaptune.models.adapters import from_functions
        from vmaptune.tasks.adapting import example, supervised

        return supervised(from_functions(init, apply, example(splits, judged.get("where", "task"))), splits, **judged)


class Measured(NamedTuple):
    """Names of what is measured, by the part of the data; the test split is measured as validation is.

    Attributes:
        train: While training: "loss", then the loss's metrics.
        validation: The same, then the score's.
    """

    train: list[str]
    validation: list[str]


def measured(task: Task, where: str = "task") -> Measured:
    """Names of what a task measures. Traces its functions on one example, computes nothing.

    Args:
        task: The task.
        where: What to call it in an error.

    Raises:
        ConfigError: A metric is not one number or has a taken name, or `predict` and `score` do not go together.
    """
    if (task.predict is None) != (task.score is None):
        raise ConfigError(f"{where}: predict and score go together; given: only {'predict' if task.score is None else 'score'}")

    def measure() -> tuple[jax.Array, Metrics, Metrics, Any]:
        key, sample = jax.random.key(0), task.sample
        params, model_state = task.init(key, sample)
        loss, (_, metrics) = task.loss(params, model_state, sample, key, train=False)
        if task.predict is None or task.score is None:
            return loss, metrics, {}, ()
        outputs = task.predict(params, model_state, sample)
        return loss, metrics, task.score(outputs, sample), outputs

    loss, metrics, scores, outputs = jax.eval_shape(measure)
    for name in {**metrics, **scores}:
        if name == "loss":
            raise ConfigError(f"{where}: a metric cannot be named 'loss'; the loss itself is recorded under that name")
        if name in metrics and name in scores:
            raise ConfigError(f"{where}: {name!r} is measured twice, by the loss and by the score; rename one of them")
    for name, value in {"loss": loss, **metrics, **scores}.items():
        if value.shape:
            over = "of a whole split" if name in scores else "the mean over a batch"
            raise ConfigError(f"{where}: {name} must be one number, {over}; given: shape {value.shape}")
    for leaf in jax.tree.leaves(outputs):
        if leaf.shape[:1] != (1,):
            raise ConfigError(f"{where}: predict must return one row an example; given: shape {leaf.shape} for one example")
    return Measured(["loss", *metrics], ["loss", *metrics, *scores])


def check_task(task: Task, where: str = "task") -> list[str]:
    """Checks a task before anything is compiled or written. Traces its functions on one example, computes nothing.

    Returns:
        Names of what it measures on every part of the data: "loss", then the metrics that its loss returns. What its score
        adds on validation and test, `measured` knows.

    Raises:
        ConfigError: A split is unusable, a setting of the loss has no default, a metric is not one number or has a taken
            name, or members cannot be selected by the task's metric and direction.
    """
    check_splits(task.splits, where)
    if missing := [s.name for s in settings(task.loss).values() if s.required]:
        raise ConfigError(f"{where}: the loss's setting {missing[0]!r} needs a default: it is measured without settings")
    names = measured(task, where)
    if task.metric not in names.validation:
        measures = "its loss returns no metric" if task.score is None else "neither its loss nor its score returns a metric"
        raise ConfigError(f"{where}: {measures} {task.metric!r}{did_you_mean(task.metric, names.validation)}")
    if task.direction not in ("max", "min"):
        raise ConfigError(f"{where}: direction must be 'max' or 'min'; given: {task.direction!r}")
    return names.train


def is_convolutional(task: Task) -> bool:
    """True if there is a convolution in the task's loss."""
    return has_convolutions(*_of_one_example(task))


def is_recurrent(task: Task) -> bool:
    """True if there is a loop in the task's loss, such as that of a recurrent layer over time."""
    return has_loops(*_of_one_example(task))


def _of_one_example(task: Task) -> tuple[Any, ...]:
    """The loss as a function of arrays, and the shapes of its arguments for one example."""

    def value(params: Any, model_state: Any, batch: Any, key: jax.Array) -> Any:
        return task.loss(params, model_state, batch, key, train=True)

    sample = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), task.sample)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return value, *jax.eval_shape(task.init, key, sample), sample, key
