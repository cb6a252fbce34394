"""A run's winner, ready to be used: raw data in, answers out. Reads no data that it was trained on, where the task is ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.analysis.raw_inputs import Inputs, inputs_from
from vmaptune.analysis.retraining import opened_again
from vmaptune.analysis.weights import as_trained, read_ensemble, shapes_of, tree_from
from vmaptune.cache import use_compilation_cache
from vmaptune.data.preparation import Preparation
from vmaptune.data.weights import read_weights
from vmaptune.errors import ConfigError, StoreError
from vmaptune.models import Model
from vmaptune.plan import prepare_backend
from vmaptune.precision import computed_in
from vmaptune.store.folder import RunFolder
from vmaptune.store.reading import read_run
from vmaptune.tasks import Task
from vmaptune.tasks.fitting import computed
from vmaptune.tasks.rebuilding import network_of

_AT_ONCE = 1024  # examples: bounds memory, and a rest is filled up to a power of two, so that few shapes are compiled

Apply = Callable[[Any, Any, Any], Any]


class Trained(NamedTuple):
    """One trained network.

    Attributes:
        weight: Its share of the answer, if there are several.
        params: Its weights.
        model_state: Its model state.
    """

    weight: float
    params: Any
    model_state: Any


@dataclass(frozen=True)
class Predictor:
    """A trained network with its preprocessing: called with raw data, it answers.

    Attributes:
        run: The run folder.
        apply: `(params, model_state, inputs) -> outputs`, a pure function of prepared inputs, for use in JAX.
        members: The winner, or the networks of an ensemble, whose probabilities or outputs are averaged.
        preparation: How raw data become inputs; None of a task that does not know.
        metric: What it was selected by.
        direction: "max" or "min".
        validation: Metrics of the run's winner.
        test: The same on the test split; None if that was not read.
    """

    run: Path
    apply: Apply = field(repr=False)
    members: tuple[Trained, ...] = field(repr=False)
    preparation: Preparation | None = field(repr=False)
    metric: str
    direction: str
    validation: Mapping[str, float]
    test: Mapping[str, float] | None

    @property
    def params(self) -> Any:
        """Weights of the winner, or of the first of an ensemble."""
        return self.members[0].params

    @property
    def model_state(self) -> Any:
        """Its model state."""
        return self.members[0].model_state

    @property
    def classes(self) -> np.ndarray:
        """What each class is called, in the order of the probabilities; empty for a regression."""
        return np.array(self.preparation.classes if self.preparation else ())

    def __call__(self, data: Any) -> np.ndarray:
        """The same as `predict`."""
        return self.predict(data)

    def predict(self, data: Any) -> np.ndarray:
        """Answers for raw data.

        Args:
            data: See `vmaptune.analysis.raw_inputs.inputs_from`.

        Returns:
            The most likely class of each example, by its name; of a text, what follows it; of a regression, numbers in the
            target's own units; outputs as they are, of a task that knows nothing of its answers.

        Raises:
            ConfigError: The data cannot be read, or do not fit.
        """
        return self.said(self.answers(inputs_from(data, self.preparation) if self.preparation else data))

    def predict_proba(self, data: Any) -> np.ndarray:
        """Probabilities f32[n, classes] for raw data, in the order of `classes`.

        Raises:
            ConfigError: The data cannot be read or do not fit, or the task has no classes.
        """
        if not len(self.classes):
            raise ConfigError(f"{self.run}: there are no probabilities: the task has no classes")
        return self.answers(inputs_from(data, self.preparation) if self.preparation else data)

    def said(self, answers: np.ndarray) -> np.ndarray:
        """What `predict` says, given the answers."""
        if self.preparation is None:
            return answers
        if self.preparation.classes:
            return self.classes[answers.argmax(axis=-1)]
        found = self.preparation.targets.restored(answers)
        return found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found

    def answers(self, inputs: Inputs | Any) -> np.ndarray:
        """Probabilities f32[n, classes], or outputs as they are trained, of prepared inputs: the mean over members."""
        if not isinstance(inputs, Inputs):
            return self._mean(jax.tree.map(jnp.asarray, inputs))
        values = inputs.values
        return np.concatenate([self._mean(part[i : i + _AT_ONCE]) for part in values for i in range(0, len(part), _AT_ONCE)])

    def _mean(self, inputs: Any) -> np.ndarray:
        """Of so many examples at once."""
        n = len(jax.tree.leaves(inputs)[0])
        if self.preparation is not None:
            inputs = np.concatenate([inputs, np.repeat(inputs[-1:], 2 ** (n - 1).bit_length() - n, axis=0)])
        total = sum(m.weight * np.asarray(self._answer(m.params, m.model_state, inputs)) for m in self.members)
        return np.asarray(total, np.float32)[:n]

    @cached_property
    def _answer(self) -> Any:
        of_classes = self.preparation is not None and bool(self.preparation.classes)
        of_text = self.preparation is not None and self.preparation.kind == "text"

        def answer(params: Any, model_state: Any, inputs: Any) -> jax.Array:
            outputs = self.apply(params, model_state, inputs)
            outputs = outputs[:, -1] if of_text else outputs
            return probabilities(outputs) if of_classes else outputs

        return jax.jit(answer)


def probabilities(outputs: jax.Array) -> jax.Array:
    """f32[..., classes] of logits f32[..., classes], or of class 1 alone, f32[n] or f32[n, 1]."""
    if outputs.ndim == 1 or outputs.shape[-1] == 1:
        logits = outputs.reshape(-1, 1)
        return jax.nn.sigmoid(jnp.concatenate([-logits, logits], axis=1))
    return jax.nn.softmax(outputs, axis=-1)


def load(run: str | Path, *, task: Task | None = None, ensemble: int = 0) -> Predictor:
    """A finished run's winner, ready to be used.

    Args:
        run: The run folder.
        task: The run's task, if it was passed from Python.
        ensemble: 0: the winner alone. Else the first so many picks of the ensemble that `vmaptune ensemble` has made.

    Raises:
        StoreError: Not a run folder, no winner yet, weights of another network, or no such ensemble.
        ConfigError: The task was passed from Python and is not given, or it does not say how to use its model.
    """
    prepare_backend()
    use_compilation_cache()
    folder = RunFolder(run)
    row = read_run(folder)
    require_winner(folder)
    used = _used(folder, row, task)
    file = str(folder.best / "weights.safetensors")
    members = read_ensemble(folder, ensemble) if ensemble else [(1.0, read_weights(file, "load").arrays)]
    result = row["result"] or {}
    return Predictor(
        run=folder.path,
        apply=used.apply,
        members=tuple(Trained(weight, *used.form(*tree_from(a, used.like, file))) for weight, a in members),
        preparation=used.preparation,
        metric=row["metric"],
        direction=row["direction"],
        validation=result.get("best", {}).get("validation", {}),
        test=result.get("test"),
    )


def answers_of(predictor: Predictor, path: str) -> dict[str, list[Any]]:
    """Answers for the data of a file or folder, as columns by name.

    Returns:
        `file`, of images that are files; `prediction`, or `prediction 1` and so on where an example has several numbers;
        `probability NAME` of each class.

    Raises:
        ConfigError: They cannot be read, or do not fit, or the task does not say what raw data are.
    """
    preparation = predictor.preparation
    if preparation is None:
        raise ConfigError(f"{predictor.run}: this run's task does not say what raw data are; use vmaptune.load in Python")
    inputs = inputs_from(Path(path) if preparation.kind == "text" else path, preparation, path)
    columns: dict[str, list[Any]] = {"file": list(inputs.names)} if inputs.names else {}
    answers = predictor.answers(inputs)
    found = predictor.said(answers)
    if found.ndim == 1:
        columns["prediction"] = _shortest(found)
    else:
        flat = found.reshape(len(found), -1)
        columns |= {f"prediction {i + 1}": _shortest(flat[:, i]) for i in range(flat.shape[1])}
    names = predictor.classes.tolist() if preparation.kind != "text" else []
    return columns | {f"probability {name}": _shortest(answers[:, i]) for i, name in enumerate(names)}


def _shortest(column: np.ndarray) -> list[Any]:
    """Python values; numbers as the shortest decimal that is still the same float32."""
    return [float(str(np.float32(value))) for value in column] if column.dtype.kind == "f" else column.tolist()


def require_winner(folder: RunFolder) -> None:
    """Raises `StoreError` if a run has left no winner."""
    if not (folder.best / "weights.safetensors").is_file():
        raise StoreError(f"{folder.path}: the run has left no winner yet; finish it (vmaptune resume {folder.path})")


class _Used(NamedTuple):
    """How a network is used: its function, the shapes of its weights and state, and what becomes of these two."""

    apply: Apply
    like: tuple[Any, Any]
    preparation: Preparation | None
    form: Callable[[Any, Any], tuple[Any, Any]] = lambda params, model_state: (params, model_state)


def _used(folder: RunFolder, row: Mapping[str, Any], task: Task | None) -> _Used:
    """A shipped network is built without its data; for one of the user's own, their task is."""
    config, file = row["config"], folder.best / "preprocessing.json"
    if task is None and file.is_file():
        preparation = Preparation.from_json(file.read_bytes(), str(file))
        model = network_of(config["task"]["name"], preparation.shape, preparation.outputs, config["task"])
        if model is not None:
            like = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)))
            return _Used(in_precision(_apply_of(model), config), like, preparation)
    _, task = opened_again(folder, row, task, "load")
    if task.serving is not None:
        return _Used(in_precision(task.serving.apply, config), shapes_of(task), task.serving.preparation)
    if task.predict is None:
        raise ConfigError(f"{folder.path}: this run's task has no predict, so nobody knows how its model is used")
    return _Used(task.predict, shapes_of(task), None, partial(as_trained, task))


def _apply_of(model: Model) -> Apply:
    return lambda params, state, inputs: computed(model, params, state, inputs, jax.random.key(0), train=False)[0]


def in_precision(apply: Apply, config: Mapping[str, Any]) -> Apply:
    """A network in the precision that it was trained and measured in.

    Args:
        apply: `(params, model_state, inputs) -> outputs`.
        config: The run's config as a tree.
    """
    asked = config.get("precision", {})
    return computed_in(apply, compute=asked.get("compute", "float32"), matmul=asked.get("matmul", "default"))
