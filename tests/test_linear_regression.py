"""The oracle: thousands of simulated members against the exact recursion, and the recursion against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmaptune import Space, make_evaluate, make_segment, tasks
from vmaptune.errors import ConfigError
from vmaptune.optimizers import OPTIMIZERS
from vmaptune.population import init_population
from vmaptune.tasks.linear_regression import expected_loss, linear_regression, problem

STATICS = {"dimension": 6, "decay_percent": 100, "noise_percent": 40}
BATCH, STEPS, HORIZON, MEMBERS, RATE = 4, 5, 40, 2000, 0.4
Z = 4.0


def constant(t):
    """The multiplier 1."""
    return jnp.ones_like(t)


def linear(t):
    """Down to 0."""
    return 1.0 - t


def step_down(t):
    """A third from the middle on."""
    return jnp.where(t < 0.5, 1.0, 1 / 3)


SCHEDULES = [constant, linear, step_down]


def rates_of(schedule):
    return RATE * schedule(jnp.arange(HORIZON, dtype=jnp.float32) / HORIZON)


def covariances(rates, batch=BATCH, dimension=6, decay_percent=100, noise_percent=40):
    """The same by the whole matrix E[e e^T] in float64, its fourth moment written out as Isserlis has it: four sums."""
    s = np.arange(1, dimension + 1) ** (-decay_percent / 100)
    h, noise = np.diag(s), noise_percent / 100
    a = np.full((dimension, dimension), 1 / dimension)
    losses = [np.trace(h @ a) / 2]
    for rate in np.asarray(rates, np.float64):
        fourth = h @ a @ h + h @ a.T @ h + h * np.trace(h @ a)
        a = a - rate * (h @ a + a @ h) + rate**2 * ((1 - 1 / batch) * h @ a @ h + fourth / batch + noise**2 * h / batch)
        losses.append(np.trace(h @ a) / 2)
    return np.array(losses)


def scores(losses, expected):
    """z of the mean of members [steps, members]."""
    losses = np.asarray(losses, np.float64)
    return (losses.mean(1) - expected) / (losses.std(1, ddof=1) / np.sqrt(losses.shape[1]))


@pytest.fixture(scope="module", params=SCHEDULES, ids=lambda schedule: schedule.__name__)
def simulated(request):
    """Validation losses [steps, members] of the engine, and the training losses of segments."""
    task = linear_regression(**STATICS)
    space = Space({"optimizer.learning_rate": RATE, "optimizer.momentum": 0.0, "optimizer.weight_decay": 0.0})
    population = init_population(task, space, OPTIMIZERS["sgd"], size=MEMBERS)
    segment = make_segment(
        task, space, OPTIMIZERS["sgd"], request.param, steps=STEPS, horizon=HORIZON, batch_size=BATCH, order="shared"
    )
    evaluate = make_evaluate(task)
    measured, trained = [np.asarray(evaluate(population)["loss"])], []
    for generation in range(HORIZON // STEPS):
        population, metrics = segment(population, generation)
        trained.append(np.asarray(metrics["loss"]))
        measured.append(np.asarray(evaluate(population)["loss"]))
    return request.param, np.array(measured), np.array(trained)


def test_members_agree_with_the_recursion_at_every_generation(simulated):
    schedule, measured, _ = simulated
    expected = np.asarray(expected_loss(rates_of(schedule), batch_size=BATCH, **STATICS))[::STEPS]
    np.testing.assert_allclose(measured[0], expected[0], rtol=1e-6)
    assert np.abs(scores(measured[1:], expected[1:])).max() < Z


def test_training_loss_is_the_same_and_the_noise_s_floor(simulated):
    schedule, _, trained = simulated
    expected = np.asarray(expected_loss(rates_of(schedule), batch_size=BATCH, **STATICS))[:-1].reshape(-1, STEPS).mean(1)
    assert np.abs(scores(trained, expected + 0.4**2 / 2)).max() < Z


def test_the_test_would_see_a_missing_term(simulated):
    """Without the fourth moment of the inputs, as for a batch drawn from a fixed set of orthogonal ones."""
    schedule, measured, _ = simulated
    s, p, wrong = 1 / np.arange(1, 7), np.full(6, 1 / 6), []
    for rate in np.asarray(rates_of(schedule), np.float64):
        p = (1 - rate * s) ** 2 * p + rate**2 / BATCH * 0.4**2 * s
        wrong.append(np.sum(s * p) / 2)
    assert np.abs(scores(measured[1:], np.array(wrong)[STEPS - 1 :: STEPS])).max() > 2 * Z


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("batch", [1, 4, 64])
@pytest.mark.parametrize(("dimension", "decay", "noise"), [(1, 0, 0), (6, 100, 40), (16, 0, 10), (30, 250, 100)])
def test_the_recursion_is_that_of_the_whole_covariance(schedule, batch, dimension, decay, noise):
    statics = {"dimension": dimension, "decay_percent": decay, "noise_percent": noise}
    rates = rates_of(schedule) / (1 + dimension / batch)
    found = expected_loss(rates, batch_size=batch, **statics)
    np.testing.assert_allclose(found, covariances(rates, batch, **statics), rtol=1e-4)


def test_numpy_s_own_sgd_agrees():
    """An independent simulation in float64, to the formula and not to the engine."""
    rng, trials, rates = np.random.default_rng(0), 20_000, np.asarray(rates_of(linear), np.float64)
    deviation, target = np.arange(1, 7) ** -0.5, np.full(6, 6**-0.5)
    w, losses = np.zeros((trials, 6)), []
    for rate in rates:
        x = rng.normal(size=(trials, BATCH, 6)) * deviation
        y = x @ target + 0.4 * rng.normal(size=(trials, BATCH))
        w -= rate * np.einsum("tbd,tb->td", x, np.einsum("tbd,td->tb", x, w) - y) / BATCH
        losses.append(((w - target) ** 2) @ deviation**2 / 2)
    expected = np.asarray(expected_loss(rates, batch_size=BATCH, **STATICS))[1:]
    assert np.abs(scores(losses, expected)).max() < Z


def test_many_schedules_at_once_and_their_gradients():
    rates = jnp.stack([rates_of(schedule) for schedule in SCHEDULES])
    many = jax.jit(jax.vmap(lambda r: expected_loss(r, batch_size=BATCH, **STATICS)))(rates)
    assert many.shape == (3, HORIZON + 1)
    for row, one in zip(many, rates, strict=True):
        np.testing.assert_allclose(row, expected_loss(one, batch_size=BATCH, **STATICS), rtol=1e-6)
    slope = jax.grad(lambda r: expected_loss(r, batch_size=BATCH, **STATICS)[-1])(rates[1])
    for t in (0, 20, 39):
        ahead, behind = (covariances(np.asarray(rates[1], np.float64) + e * np.eye(HORIZON)[t])[-1] for e in (1e-5, -1e-5))
        assert slope[t] == pytest.approx((ahead - behind) / 2e-5, rel=1e-3)


def test_too_high_a_rate_diverges_and_a_rate_of_zero_stands_still():
    assert expected_loss(jnp.full(200, 2.5), batch_size=BATCH, **STATICS)[-1] > 1e3
    still = expected_loss(jnp.zeros(3), batch_size=BATCH, **STATICS)
    np.testing.assert_array_equal(still, still[:1].repeat(4))


def test_validation_draws_nothing_and_knows_the_risk():
    task = linear_regression(**STATICS)
    h, target, _ = problem(**STATICS)
    params, state = task.init(jax.random.key(0), task.sample)
    for k in range(3):
        risk = task.loss(params, state, task.splits.validation, jax.random.key(k), train=False)[0]
        assert float(risk) == pytest.approx(np.sum(h * target**2) / 2)
    assert task.loss({"w": jnp.asarray(target)}, state, task.splits.test, jax.random.key(0), train=False)[0] == 0.0


def test_each_member_and_step_draws_its_own_examples():
    task = linear_regression(**STATICS)
    params, state = task.init(jax.random.key(0), task.sample)
    batch = task.splits.train[:BATCH]
    gradient = jax.grad(lambda p, key: task.loss(p, state, batch, key, train=True)[0])
    one, same, other = (np.asarray(gradient(params, jax.random.key(k))["w"]) for k in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.isclose(one, other).any()


def test_the_target_has_length_one_and_the_spectrum_decays():
    h, target, noise = problem(dimension=9, decay_percent=150, noise_percent=25)
    assert np.linalg.norm(target) == pytest.approx(1)
    np.testing.assert_allclose(h, np.arange(1, 10) ** -1.5, rtol=1e-6)
    assert noise == 0.25
    assert tasks.measured(tasks.TASKS["linear_regression"]()) == (["loss"], ["loss"])


def test_a_spectrum_that_vanishes_is_refused():
    with pytest.raises(ConfigError, match=r"task\.decay_percent: the least variance, 100\^-40, is no float32; given: 4000"):
        linear_regression(dimension=100, decay_percent=4000)
