"""What members answer on a part of the data, and how good an answer is: anybody's, also the mean of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.analysis.predictor import in_precision, probabilities
from vmaptune.data.splits import Part
from vmaptune.errors import ConfigError
from vmaptune.tasks import Metrics, Task
from vmaptune.train import evaluation_batch
from vmaptune.winner import shortest

_LEAST = float(np.finfo(np.float32).tiny)


class Score(NamedTuple):
    """How good an answer is: by the run's metric, and where that is the same, by the loss. The larger tuple is better."""

    fitness: float
    less_loss: float


class Judge:
    """Answers and scores on one part of a task's data.

    An answer is what is averaged over members: probabilities of classes, or the outputs of a regression.

    Args:
        task: Of the run.
        config: The run's config as a tree.
        part: Of the data.
        where: What to call the run in an error.

    Raises:
        ConfigError: The task does not say how its model is used.
    """

    def __init__(self, task: Task, config: Mapping[str, Any], part: Part, where: str) -> None:
        """Compiles nothing yet."""
        if task.serving is None:
            raise ConfigError(f"{where}: this run's task does not say how its model is used, so no answers can be averaged")
        self._metric, self._sign = task.metric, 1.0 if task.direction == "max" else -1.0
        self._inputs, self._size = getattr(task.splits, part)[0], evaluation_batch(task)
        self._apply = in_precision(task.serving.apply, config)
        self._classes = bool(task.serving.preparation.classes)
        self._one = self._classes and task.serving.preparation.outputs == 1
        self._data = jax.device_put(getattr(task.splits, part))
        self._answer = jax.jit(self._answered)
        self._judge = jax.jit(partial(_judged, task.serving.judge, self._outputs))

    def _answered(self, params: Any, model_state: Any, inputs: Any) -> jax.Array:
        outputs = self._apply(params, model_state, inputs)
        return probabilities(outputs) if self._classes else outputs

    def _outputs(self, answer: jax.Array) -> jax.Array:
        """Logits that say the same as probabilities; of a regression, the answer itself."""
        if not self._classes:
            return answer
        logits = jnp.log(jnp.maximum(answer, _LEAST))
        return logits[:, 1] - logits[:, 0] if self._one else logits

    def answers(self, params: Any, model_state: Any) -> np.ndarray:
        """f32[n, ...], of one member."""
        starts = range(0, len(self._inputs), self._size)
        parts = [self._answer(params, model_state, self._inputs[i : i + self._size]) for i in starts]
        return np.concatenate(jax.device_get(parts))

    def measure(self, answers: Any) -> list[dict[str, float]]:
        """All metrics of several answers [m, n, ...], those of each."""
        found = jax.device_get(self._judge(self._data, answers))
        return [{name: shortest(values[i]) for name, values in found.items()} for i in range(len(answers))]

    def score(self, metrics: Mapping[str, float]) -> Score:
        """How good they are."""
        return Score(self._sign * metrics[self._metric], -metrics["loss"])


def _judged(
    judge: Callable[[Any, Any], Metrics], outputs: Callable[[jax.Array], jax.Array], data: Any, answers: Any
) -> Metrics:
    return jax.vmap(lambda answer: judge(outputs(answer), data))(answers)
