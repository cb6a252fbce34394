"""The precision that a model is computed in, and what of it is kept for the way back.

Parameters, model state, gradients and the optimizer's state are float32 whatever a model is computed in: parameters are
cast inside of the function that is differentiated.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vmaptune.finetuning import as_loss
from vmaptune.tasks import Metrics, Task

Compute = Literal["float32", "bfloat16"]
Matmul = Literal["default", "high", "highest"]

_KEPT = frozenset({"dot_general", "conv_general_dilated"})  # what is costly to compute again


def precise(task: Task, *, compute: Compute = "float32", matmul: Matmul = "default", remat: bool = False) -> Task:
    """A task computed in another precision, or with less memory.

    Args:
        task: The task.
        compute: What parameters are cast to before the model is computed; a model computes in the type of its parameters.
            What it returns is cast back.
        matmul: Precision of matrix products and convolutions.
        remat: In training, keep the results of matrix products and convolutions alone for the way back, and compute the rest
            again.

    References:
        Micikevicius et al., Mixed Precision Training, https://arxiv.org/abs/1710.03740
        Chen et al., Training Deep Nets with Sublinear Memory Cost, https://arxiv.org/abs/1604.06174
    """
    predict = task.predict and computed_in(task.predict, compute=compute, matmul=matmul)

    def loss(
        params: Any, model_state: Any, batch: Any, key: jax.Array, *, train: bool, **settings: Any
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        def forward(params: Any, model_state: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, tuple[Any, Metrics]]:
            value, (state, metrics) = task.loss(_cast(params, compute), model_state, batch, key, train=train, **settings)
            return _cast(value, "float32"), (_as_before(state, model_state), _cast(metrics, "float32"))

        # Settings stay outside: a plain number must reach the loss as one.
        forward = jax.checkpoint(forward, policy=_costly) if remat and train else forward
        with _products(matmul):
            return forward(params, model_state, batch, key)

    return task._replace(loss=as_loss(loss, task.loss), predict=predict)


def computed_in(
    predict: Callable[[Any, Any, Any], Any], *, compute: Compute = "float32", matmul: Matmul = "default"
) -> Callable[[Any, Any, Any], Any]:
    """A function `(params, model_state, inputs) -> outputs` in another precision; what it returns is float32.

    Args:
        predict: The function.
        compute: As for `precise`.
        matmul: As for `precise`.
    """

    def predicted(params: Any, model_state: Any, inputs: Any) -> Any:
        with _products(matmul):
            return _cast(predict(_cast(params, compute), model_state, inputs), "float32")

    return predicted


def _products(matmul: Matmul) -> AbstractContextManager[Any]:
    return nullcontext() if matmul == "default" else jax.default_matmul_precision(matmul)


def _cast(tree: Any, dtype: str) -> Any:
    """Real numbers of a tree in another type; all else as it is."""

    def cast(leaf: Any) -> Any:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)


def _as_before(new: Any, old: Any) -> Any:
    return jax.tree.map(lambda n, o: n.astype(o.dtype), new, old)


_costly: Callable[..., bool] = lambda primitive, *_, **__: primitive.name in _KEPT  # noqa: E731
