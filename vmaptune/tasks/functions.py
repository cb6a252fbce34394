"""Test functions of optimisation as tasks: nothing to learn, so that a searcher is judged by its search alone.

A point is a trial's setting `x`. One step of plain SGD at learning rate 1 takes the weights there, and evaluation tells the
function's value: with one segment of one step, a trial is one call of the function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.data.splits import Splits
from vmaptune.tasks.contract import Metrics, Task

_ROWS = 128  # of nothing: as many as the usual batch has


def branin() -> Task:
    """Branin's function of two numbers, x0 in -5..10 and x1 in 0..15: three valleys, all 0.397887 deep.

    References:
        Dixon & Szegö, The global optimization problem: an introduction, Towards Global Optimisation 2, 1978
    """

    def value(x: jax.Array) -> jax.Array:
        bent = x[1] - 5.1 / (4 * np.pi**2) * x[0] ** 2 + 5 / np.pi * x[0] - 6
        return bent**2 + 10 * (1 - 1 / (8 * np.pi)) * jnp.cos(x[0]) + 10

    return minimised(value, 2)


def hartmann6() -> Task:
    """Hartmann's function of six numbers in 0..1: the least of its six valleys is -3.32237 deep.

    References:
        Dixon & Szegö, The global optimization problem: an introduction, Towards Global Optimisation 2, 1978
    """
    height = np.array([1.0, 1.2, 3.0, 3.2], np.float32)
    width = np.array(
        [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]], np.float32
    )
    place = 1e-4 * np.array(
        [
            [1312, 1696, 5569, 124, 8283, 5886],
            [2329, 4135, 8307, 3736, 1004, 9991],
            [2348, 1451, 3522, 2883, 3047, 6650],
            [4047, 8828, 8732, 5743, 1091, 381],
        ]
    )

    def value(x: jax.Array) -> jax.Array:
        distance = jnp.sum(width * (x[None] - place.astype(np.float32)) ** 2, axis=1)
        return -jnp.sum(height * jnp.exp(-distance))

    return minimised(value, 6)


def rosenbrock() -> Task:
    """Rosenbrock's function of two numbers: a bent valley with its lowest point, 0, at (1, 1).

    References:
        Rosenbrock, An Automatic Method for Finding the Greatest or Least Value of a Function, Computer Journal 3, 1960
    """
    return minimised(lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2, 2)


def minimised(function: Callable[[jax.Array], jax.Array], dimension: int) -> Task:
    """A function of several numbers as a task whose loss is its value.

    Args:
        function: `f32[D] -> f32[]`.
        dimension: D.
    """

    def init(key: jax.Array, sample: Any) -> tuple[Any, Any]:
        del key, sample
        return {"x": jnp.zeros(dimension)}, {}

    def loss(  # noqa: D417 (the rest is the contract's)
        params: Any,
        model_state: Any,
        batch: Any,
        key: jax.Array,
        *,
        train: bool,
        x: tuple[float, ...] = (0.0,) * dimension,
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        """The value at the weights; in training, half their squared distance to where they are to go.

        Args:
            x: The point, a number a dimension.
        """
        del batch, key
        value = function(params["x"])
        if train:
            value = jnp.sum((params["x"] - jnp.asarray(x, jnp.float32)) ** 2) / 2
        return value, (model_state, {})

    nothing = np.zeros((_ROWS, 1), np.float32)
    return Task(init, loss, Splits(nothing, nothing, nothing), "loss", "min")
