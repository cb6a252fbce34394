"""Test functions: their known minima, and that a search over slots calls them as a search by hand would."""

import jax
import numpy as np
import pytest
from scipy.optimize import minimize

import vmaptune as vt
from vmaptune.proposers import PROPOSERS, Told
from vmaptune.tasks import TASKS

BOXES = {"branin": [(-5, 10), (0, 15)], "hartmann6": [(0, 1)] * 6, "rosenbrock": [(-2, 2), (-1, 3)]}
MINIMA = [  # Dixon & Szegö 1978
    ("branin", (-np.pi, 12.275), 0.397887),
    ("branin", (np.pi, 2.275), 0.397887),
    ("branin", (9.42478, 2.475), 0.397887),
    ("hartmann6", (0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573), -3.32237),
    ("rosenbrock", (1.0, 1.0), 0.0),
]


def value(name, x):
    task = TASKS[name]()
    return float(task.loss({"x": np.float32(x)}, {}, None, jax.random.key(0), train=False)[0])


@pytest.mark.parametrize(("name", "x", "least"), MINIMA)
def test_minima_are_where_and_what_they_are_known_to_be(name, x, least):
    assert value(name, x) == pytest.approx(least, abs=2e-5)
    lower = minimize(
        lambda y: value(name, y),
        x,
        method="Nelder-Mead",
        options={"initial_simplex": np.array(x) + 0.02 * np.eye(len(x) + 1, len(x))},
    )
    assert lower.fun == pytest.approx(least, abs=2e-4)


@pytest.mark.parametrize("name", BOXES)
def test_nothing_in_the_box_is_lower(name):
    task, (low, high) = TASKS[name](), np.array(BOXES[name], np.float32).T
    points = low + np.random.default_rng(0).random((20_000, len(low)), np.float32) * (high - low)
    values = jax.vmap(lambda x: task.loss({"x": x}, {}, None, jax.random.key(0), train=False)[0])(points)
    assert float(values.min()) >= min(least for other, _, least in MINIMA if other == name) - 1e-4


def tree(name, slots, trials, method):
    return {
        "task": {"name": name, "x": [{"low": float(low), "high": float(high)} for low, high in BOXES[name]]},
        "optimizer": {"name": "sgd", "learning_rate": 1.0, "momentum": 0.0},
        "population": {"size": slots, "segment_steps": 1, "generations": 1},
        "search": {"method": method, "trials": trials},
    }


@pytest.mark.parametrize(("name", "method"), [("branin", "tpe"), ("rosenbrock", "cmaes"), ("hartmann6", "sobol")])
def test_the_engine_calls_the_function_as_a_loop_of_ask_and_tell_does(name, method, tmp_path):
    """Two at a time: the same proposals from the same results, whoever computes the values."""
    run = vt.tune(tree(name, 2, 16, method), out=tmp_path / "run")
    space, propose = run.config.space, PROPOSERS[method]().propose
    rows, values = np.zeros((0, space.dimension), np.float32), np.zeros(0)
    for _ in range(8):
        ended = np.ones(len(rows), bool)
        told = Told(rows, values, ended.astype(np.int64), ended, 1)
        rows = np.concatenate([rows, propose(space, told, 2, 0)])
        points = jax.device_get(space.decode(rows[-2:]))
        x = np.stack([points[f"task.x.{i}"] for i in range(space.dimension)], axis=1)
        values = np.append(values, [-value(name, point) for point in x])
    history = run.history
    np.testing.assert_array_equal(history["trial"], np.arange(16))
    np.testing.assert_allclose(history["fitness"], values, rtol=1e-5, atol=1e-5)
    assert run.best.validation["loss"] == pytest.approx(-values.max(), rel=1e-5)
