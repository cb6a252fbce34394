"""Linear regression on a stream of fresh examples: the one task whose training is known in closed form.

Nothing else tells whether a learning-rate schedule was trained and searched as it should be without training it: here the
mean loss of SGD after every step is a short recursion, `expected_loss`, so it is the oracle of tests and studies.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vmaptune.data.splits import Splits
from vmaptune.errors import ConfigError
from vmaptune.settings import Count, Natural
from vmaptune.tasks.contract import Metrics, Task

_ROWS = 4096  # of the training split: the largest batch, and what an epoch is called


class Problem(NamedTuple):
    """What is regressed.

    Attributes:
        spectrum: f32[d], variance s_i of each input; the eigenvalues of the Hessian.
        target: f32[d], the weights w* that make the labels; of length 1.
        noise: Standard deviation of the labels' noise.
    """

    spectrum: np.ndarray
    target: np.ndarray
    noise: float


def problem(*, dimension: Count = 16, decay_percent: Natural = 100, noise_percent: Natural = 10) -> Problem:
    """The numbers of a linear regression.

    Args:
        dimension: d, number of inputs and of weights.
        decay_percent: 100 times the exponent a of the spectrum, s_i = i^-a. 0: all inputs vary alike.
        noise_percent: 100 times the standard deviation of the labels' noise; the target's length is 1.

    Raises:
        ConfigError: The least variance is too small for a float32.
    """
    spectrum = np.arange(1, dimension + 1, dtype=np.float64) ** (-decay_percent / 100)
    if spectrum[-1] < np.finfo(np.float32).tiny:
        raise ConfigError(
            f"task.decay_percent: the least variance, {dimension}^-{decay_percent / 100:g}, is no float32; "
            f"given: {decay_percent} with {dimension} dimensions"
        )
    target = np.full(dimension, dimension**-0.5, np.float32)
    return Problem(spectrum.astype(np.float32), target, noise_percent / 100)


def linear_regression(*, dimension: Count = 16, decay_percent: Natural = 100, noise_percent: Natural = 10) -> Task:
    """Linear regression by SGD on an endless stream: the mean loss of every schedule is known exactly (`expected_loss`).

    Inputs are x ~ N(0, diag(s)) with s_i = i^-a, labels y = x.w* + sigma e with e ~ N(0, 1), weights start at 0. A step
    pays half the mean squared error of as many fresh examples as its batch has; the data only counts them. Validation
    and test loss are the exact excess risk, sum_i s_i (w_i - w*_i)^2 / 2: nothing is sampled, and the floor sigma^2 / 2
    that nobody can go below, which the training loss has, is left out.

    Args:
        dimension: d, number of inputs and of weights.
        decay_percent: 100 times the exponent a of the spectrum. 0: all inputs vary alike.
        noise_percent: 100 times sigma, the standard deviation of the labels' noise; the length of w* is 1.

    References:
        Bach & Moulines, Non-strongly-convex smooth stochastic approximation with convergence rate O(1/n), NeurIPS 2013
        Naganuma et al., What do near-optimal learning rate schedules look like?, https://arxiv.org/abs/2603.10301
    """
    spectrum, target, noise = problem(dimension=dimension, decay_percent=decay_percent, noise_percent=noise_percent)
    deviation = np.sqrt(spectrum)

    def init(key: jax.Array, sample: Any) -> tuple[Any, Any]:
        del key, sample
        return {"w": jnp.zeros(dimension, jnp.float32)}, {}

    def loss(
        params: Any, model_state: Any, batch: Any, key: jax.Array, *, train: bool
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        wrong = params["w"] - target
        if not train:
            return 0.5 * jnp.sum(spectrum * wrong**2), (model_state, {})
        # The inputs' deviations go to the weights: the same numbers, and d products instead of batch x d.
        drawn = jax.random.normal(key, (len(batch), dimension + 1))
        errors = drawn[:, :dimension] @ (deviation * wrong) - noise * drawn[:, dimension]
        return 0.5 * jnp.mean(errors**2), (model_state, {})

    rows = np.arange(_ROWS, dtype=np.int32)
    return Task(init, loss, Splits(rows, rows[:1], rows[:1]), "loss", "min")


def expected_loss(
    rates: jax.Array,
    *,
    batch_size: int,
    dimension: Count = 16,
    decay_percent: Natural = 100,
    noise_percent: Natural = 10,
) -> jax.Array:
    """The exact mean over all streams of the validation loss of `linear_regression`, at every step of plain SGD.

    With H = diag(s) and the error e = w - w*, a step of rate r on B examples is e' = e - r mean_b(x_b x_b^T e - sigma
    x_b eps_b). Of A = E[e e^T] that makes

        A' = A - r (H A + A H) + r^2 ((1 - 1/B) H A H + E[x x^T A x x^T] / B + sigma^2 H / B)

    and for Gaussian x the fourth moment is 2 H A H + H tr(H A) (Isserlis). Its diagonal p needs nothing else of A:

        p_i' = (1 - r s_i)^2 p_i + (r^2 / B) (s_i^2 p_i + s_i sum_j s_j p_j + sigma^2 s_i)

    The mean loss is sum_i s_i p_i / 2. Without momentum and weight decay; a pure function of the rates, so it can be
    differentiated by them, and mapped over many schedules with `jax.vmap`.

    Args:
        rates: f32[T], the learning rate of each step.
        batch_size: B.
        dimension: Of the task.
        decay_percent: Of the task.
        noise_percent: Of the task.

    Returns:
        f32[T + 1]: before the first step, and after each.

    References:
        Bach & Moulines, Non-strongly-convex smooth stochastic approximation with convergence rate O(1/n), NeurIPS 2013
        Naganuma et al., What do near-optimal learning rate schedules look like?, https://arxiv.org/abs/2603.10301; code:
            init2winit, projects/optlrschedule/workload/linear_regression.py (sampling from a finite set, second moments)
    """
    spectrum, target, noise = problem(dimension=dimension, decay_percent=decay_percent, noise_percent=noise_percent)

    def step(p: jax.Array, rate: jax.Array) -> tuple[jax.Array, jax.Array]:
        sampling = spectrum**2 * p + spectrum * jnp.sum(spectrum * p) + noise**2 * spectrum
        p = (1.0 - rate * spectrum) ** 2 * p + rate**2 / batch_size * sampling
        return p, 0.5 * jnp.sum(spectrum * p)

    p = jnp.asarray(target**2)
    losses = jax.lax.scan(step, p, jnp.asarray(rates, jnp.float32))[1]
    return jnp.concatenate([0.5 * jnp.sum(spectrum * p)[None], losses])
