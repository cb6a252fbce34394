"""Losses and regularisation of supervised tasks, against NumPy, SciPy and what the settings promise."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special, stats

from tests.conftest import blobs
from tests.test_dropout import primitives
from vmaptune import models, tasks
from vmaptune.data.splits import Splits
from vmaptune.data.subsample import subsampled
from vmaptune.errors import ConfigError
from vmaptune.settings import settings
from vmaptune.tasks import losses
from vmaptune.tasks.regularisation import gaussian, symmetric_beta

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
WEIGHTS = {"w": np.zeros(1, np.float32)}  # of a model that only looks on
P = 1e-4  # keys are fixed: a test of a distribution that passes will always pass


def mlp(outputs=3, features=4):
    return models.from_nnx(lambda rngs: models.MLP(features, [8], outputs, rngs=rngs))


def lines(n=90, features=4, outputs=1):
    """A noisy linear map."""
    x = RNG.normal(size=(n, features)).astype(np.float32)
    y = x @ RNG.normal(size=(features, outputs)) + 0.1 * RNG.normal(size=(n, outputs))
    y = y.astype(np.float32)[:, 0] if outputs == 1 else y.astype(np.float32)
    return Splits(*((x[rows], y[rows]) for rows in np.split(np.arange(n), [n // 2, 3 * n // 4])))


def skewed(classes=3):
    """Blobs of which class 0 has lost most of its training examples."""
    splits = blobs(classes=classes)
    x, y = splits.train
    keep = (y > 0) | (np.cumsum(y == 0) <= 4)
    return splits._replace(train=(x[keep], y[keep]))


def paid(task, batch=None, key=KEY, train=True, **chosen):
    """What a network of fixed weights pays, traced settings given as arrays."""

    @jax.jit
    def run(batch, key, traced):
        params, state = task.init(jax.random.key(1), task.sample)
        return task.loss(params, state, batch, key, train=train, **chosen | traced)[0]

    traced = {name: chosen.pop(name) for name, value in list(chosen.items()) if isinstance(value, jax.Array)}
    return run(task.splits.train if batch is None else batch, key, traced)


def outputs_of(model, x):
    params, state = model.init(jax.random.key(1))
    return np.asarray(model.apply(params, state, x, KEY, train=False)[0], np.float64)


# ----------------------------------------------------------------------------------------------------------- per example


@pytest.mark.parametrize("smoothing", [0.0, 0.2, 0.9])
def test_smoothed_cross_entropy(smoothing):
    logits, labels = RNG.normal(size=(20, 5)), RNG.integers(0, 5, 20)
    target = (1 - smoothing) * np.eye(5)[labels] + smoothing / 5
    expected = -np.sum(target * special.log_softmax(logits, axis=1), axis=1)
    found = losses.cross_entropy(jnp.float32(logits), jnp.int32(labels), label_smoothing=smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("shape", [(20,), (20, 1)])
def test_a_sigmoid_is_a_softmax_with_a_logit_of_zero(smoothing, shape):
    logits, labels = jnp.float32(RNG.normal(size=20)), jnp.int32(RNG.integers(0, 2, 20))
    two = jnp.stack([jnp.zeros(20), logits], axis=1)
    found = losses.binary_cross_entropy(logits.reshape(shape), labels, label_smoothing=smoothing)
    np.testing.assert_allclose(found, losses.cross_entropy(two, labels, label_smoothing=smoothing), rtol=1e-5)


@pytest.mark.parametrize("delta", [0.1, 1.0, 3.0])
@pytest.mark.parametrize(("given", "wanted"), [((20, 3), (20, 3)), ((20, 1), (20,)), ((20,), (20, 1)), ((20,), (20,))])
def test_errors_of_real_numbers(delta, given, wanted):
    found, target = 2 * RNG.normal(size=wanted), RNG.normal(size=wanted)
    error = np.abs(found - target)
    huber = np.where(error <= delta, error**2 / 2, delta * (error - delta / 2)).reshape(20, -1).mean(1)
    found, target = jnp.float32(found.reshape(given)), jnp.float32(target)
    np.testing.assert_allclose(losses.huber(found, target, huber_delta=delta), huber, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(losses.mse(found, target), (error**2).reshape(20, -1).mean(1), rtol=1e-4, atol=1e-6)


# -------------------------------------------------------------------------------------------------------- class balance


@pytest.mark.parametrize("balance", [0.0, 0.3, 1.0])
def test_class_balance_weighs_by_frequency(balance):
    labels = np.repeat([0, 1, 3], [2, 10, 50]).astype(np.int32)  # nobody is of class 2
    logits = jnp.float32(RNG.normal(size=(62, 4)))
    share = np.bincount(labels, minlength=4) / 62
    weight = np.where(share > 0, np.maximum(share, 1e-9) ** -balance, 0)[labels]
    weight /= weight.mean()
    objective = losses.balanced(losses.cross_entropy, labels, 4)
    found = objective(logits, jnp.asarray(labels), class_balance=jnp.float32(balance))
    np.testing.assert_allclose(found, weight * losses.cross_entropy(logits, jnp.asarray(labels)), rtol=1e-5)


def test_a_class_balance_of_one_makes_classes_alike():
    task = tasks.classification(mlp(), skewed())
    x, y = task.splits.train
    each = losses.cross_entropy(jnp.float32(outputs_of(mlp(), x)), jnp.asarray(y))
    expected = np.mean([each[y == c].mean() for c in range(3)])
    assert paid(task, class_balance=1.0) == pytest.approx(float(expected), rel=1e-5)
    assert paid(task) == pytest.approx(float(each.mean()), rel=1e-5)


def test_a_task_made_again_on_two_rare_classes_weighs_them_alike():
    x, y = RNG.normal(size=(100, 4)).astype(np.float32), np.repeat([0, 1, 2], [80, 10, 10]).astype(np.int32)
    splits = Splits(*[(x, y)] * 3)

    def sharper(outputs, labels, *, by: float = 1.0, power: int = 1):
        return losses.cross_entropy(by * outputs, labels) ** power

    task = tasks.classification(mlp(), splits, loss=sharper, metric="f1")._replace(features=("a", "b", "c", "d"))
    task = task._replace(loss=partial(task.loss, power=2))
    kept = subsampled(splits, fraction=1, classes=[1, 2], seed=0)
    again = task.remade(kept).remade(kept)
    assert again._replace(splits=splits, loss=task.loss) == task
    assert again.splits is kept
    each = losses.cross_entropy(jnp.float32(outputs_of(mlp(), kept.train[0])), jnp.asarray(kept.train[1])) ** 2
    assert paid(again, class_balance=1.0) == pytest.approx(float(each.mean()), rel=1e-5)  # weights of 1 and 1, not of 10/3
    with pytest.raises(ConfigError, match="all labels of the train split are 1"):
        task.remade(Splits(*[(x[80:90], y[80:90])] * 3))
    assert tasks.regression(mlp(1), lines()).remade is None
    assert task._replace(loss=lambda *a, **k: None).remade is None  # a loss of one's own is not replaced


# ---------------------------------------------------------------------------------------------------------------- mixup


@pytest.mark.parametrize("alpha", [0.02, 0.2, 0.5, 0.8, 1.0])
def test_shares_have_the_beta_distribution(alpha):
    keys = jax.random.split(jax.random.key(7), 20_000)
    draws = np.asarray(jax.jit(jax.vmap(lambda key: symmetric_beta(key, alpha)))(keys), np.float64)
    if alpha >= 0.1:  # below, float32 holds a part of the distribution as 0; near 1 it does always
        low = draws[draws < 0.5]
        assert abs(len(low) / len(draws) - 0.5) < 4 * 0.5 / np.sqrt(len(draws))
        assert stats.kstest(low, lambda x: 2 * stats.beta(alpha, alpha).cdf(x)).pvalue > P
    variance = 1 / (4 * (2 * alpha + 1))
    assert draws.mean() == pytest.approx(0.5, abs=4 * np.sqrt(variance / len(draws)))
    assert draws.var() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize("alpha", [0.0, 1e-30, 1e-6])
def test_shares_of_a_vanishing_alpha_are_whole(alpha):
    draws = np.asarray([symmetric_beta(jax.random.key(i), jnp.float32(alpha)) for i in range(20)])
    assert np.isin(draws, [0.0, 1.0]).all()
    assert alpha > 0 or (draws == 1.0).all()


@pytest.mark.parametrize(
    "task",
    [tasks.classification(mlp(), blobs()), tasks.regression(mlp(1), lines()), tasks.regression(mlp(2), lines(outputs=2))],
    ids=["classes", "one number", "two numbers"],
)
def test_mixup_mixes_inputs_and_both_losses_in_the_same_shares(task):
    seen = []
    spy = models.Model(lambda key: (WEIGHTS, {}), lambda p, s, x, key, *, train: (seen.append(x) or x[:, :width], s))
    x, y = task.splits.train
    other = np.roll(x, 1, axis=0)
    width = 3 if y.dtype == np.int32 else y.reshape(len(y), -1).shape[1]
    build = tasks.classification if y.dtype == np.int32 else tasks.regression
    spied = build(spy, task.splits)
    seen.clear()
    loss, (_, metrics) = spied.loss({}, {}, (x, y), KEY, train=True, mixup=0.7)
    share = np.linalg.lstsq((x - other).reshape(-1, 1), (seen[0] - other).ravel(), rcond=None)[0].item()
    assert 0 < share < 1
    np.testing.assert_allclose(seen[0], share * x + (1 - share) * other, atol=1e-4)
    halves = [spied.loss({}, {}, (seen[0], target), KEY, train=False) for target in (y, np.roll(y, 1, axis=0))]
    measured = [{"loss": value, **means} for value, (_, means) in halves]
    for name, value in {"loss": loss, **metrics}.items():
        assert float(value) == pytest.approx(
            share * float(measured[0][name]) + (1 - share) * float(measured[1][name]), rel=1e-3
        )


# ---------------------------------------------------------------------------------------------------------------- noise


def test_noise_is_standard_normal_and_without_memory():
    for seed in range(3):
        draws = np.asarray(gaussian(jax.random.key(seed), (512, 64)), np.float64)
        n = draws.size
        assert stats.kstest(draws.ravel(), stats.norm.cdf).pvalue > P
        assert abs(draws.mean()) < 4 / np.sqrt(n)
        assert abs(draws.var() - 1) < 4 * np.sqrt(2 / n)
        assert abs(np.mean(draws**4) - 3) < 4 * np.sqrt(96 / n)
        assert np.abs(draws).max() < 5.3
        for moved in (
            np.roll(draws, 1, axis=1),
            np.roll(draws, 1, axis=0),
            np.asarray(gaussian(jax.random.key(99), (512, 64))),
        ):
            assert abs(np.mean(draws * moved)) < 4 / np.sqrt(n)


def test_noise_is_added_to_the_inputs_at_its_strength():
    seen = []
    spy = models.Model(lambda key: (WEIGHTS, {}), lambda p, s, x, key, *, train: (seen.append(x) or x[:, :3], s))
    task = tasks.classification(spy, blobs(3000))
    x = task.splits.train[0]
    task.loss({}, {}, task.splits.train, KEY, train=True, input_noise=0.25)
    assert np.std(seen[-1] - x) == pytest.approx(0.25, rel=0.03)
    task.loss({}, {}, task.splits.train, jax.random.key(1), train=True, input_noise=0.25)
    assert abs(np.corrcoef((seen[-1] - x).ravel(), (seen[-2] - x).ravel())[0, 1]) < 4 / np.sqrt(x.size)


def test_what_a_model_draws_does_not_depend_on_the_regularisation():
    task = tasks.classification(mlp(), blobs())
    alone = float(paid(task, dropout=jnp.float32(0.5)))
    regularised = paid(task, dropout=jnp.float32(0.5), input_noise=jnp.float32(0), mixup=jnp.float32(0))
    assert float(regularised) == pytest.approx(alone, rel=1e-6)
    assert abs(float(paid(task)) - alone) > 1e-3


# -------------------------------------------------------------------------------------------------------------- settings


TASKS = {
    "classification": tasks.classification(mlp(), skewed()),
    "binary": tasks.classification(mlp(1), skewed(2), loss="binary_cross_entropy"),
    "regression": tasks.regression(mlp(1), lines()),
    "huber": tasks.regression(mlp(1), lines(), loss="huber"),
}
SETTINGS = [(name, setting) for name, task in TASKS.items() for setting in settings(task.loss)]


def test_each_loss_declares_its_own_settings():
    both = {"input_noise", "mixup", "dropout"}
    assert {name: {s for n, s in SETTINGS if n == name} for name in TASKS} == {
        "classification": both | {"label_smoothing", "class_balance"},
        "binary": both | {"label_smoothing", "class_balance"},
        "regression": both,
        "huber": both | {"huber_delta"},
    }


@pytest.mark.parametrize("name", TASKS)
def test_every_setting_is_explained_changes_the_loss_and_nothing_that_is_measured(name):
    task = TASKS[name]
    batch = jax.tree.map(lambda leaf: leaf[::2], task.splits.train)  # not the classes' shares of the whole split
    trained, measured = paid(task, batch), paid(task, batch, train=False)
    assert trained == pytest.approx(float(measured), rel=1e-5)
    for setting, declared in settings(task.loss).items():
        assert declared.traced
        assert declared.help
        assert abs(paid(task, batch, **{setting: jnp.float32(0.3)}) - trained) > 1e-4, setting
    assert paid(task, batch, train=False, **dict.fromkeys(settings(task.loss), jnp.float32(0.3))) == measured


@pytest.mark.parametrize("name", TASKS)
def test_settings_may_differ_per_member(name):
    task = TASKS[name]
    params, state = task.init(KEY, task.sample)
    rng = np.random.default_rng(0)
    chosen = {setting: jnp.float32(rng.uniform(0, 0.9, 4)) for setting in settings(task.loss)}

    @jax.jit
    def one(chosen, key):
        return task.loss(params, state, task.splits.train, key, train=True, **chosen)[0]

    keys = jax.random.split(KEY, 4)
    alone = [one({k: v[i] for k, v in chosen.items()}, keys[i]) for i in range(4)]
    np.testing.assert_allclose(jax.jit(jax.vmap(one))(chosen, keys), alone, rtol=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_settings_at_rest_cost_nothing(name):
    task = TASKS[name]
    params, state = task.init(KEY, task.sample)

    def used(**chosen):
        return primitives(lambda key: task.loss(params, state, task.sample, key, train=True, **chosen)[0], KEY)

    random = {"random_bits", "shift_right_logical", "erf_inv", "random_fold_in", "roll"}
    rest = {s.name: s.default for s in settings(task.loss).values()}
    assert used() == used(**rest)
    assert not used() & random - {"random_fold_in"}
    assert "erf_inv" in used(input_noise=jnp.float32(0))
    assert "random_bits" in used(mixup=jnp.float32(0))
    assert "while" not in used(mixup=jnp.float32(0.2), input_noise=jnp.float32(0.1))


@pytest.mark.parametrize("setting", ["mixup", "input_noise"])
def test_regularised_inputs_must_be_real(setting):
    embed = models.Model(lambda key: (WEIGHTS, {}), lambda p, s, x, key, *, train: (jax.nn.one_hot(x[:, 0], 3), s))
    task = tasks.classification(embed, Splits(*((x.astype(np.int32), y) for x, y in blobs())))
    assert np.isfinite(paid(task))
    with pytest.raises(ConfigError, match=rf"task\.{setting}: needs inputs that are real numbers; given: int32"):
        paid(task, **{setting: 0.1})


def test_bfloat16_stays_bfloat16():
    seen = []
    spy = models.Model(lambda key: (WEIGHTS, {}), lambda p, s, x, key, *, train: (seen.append(x.dtype) or x[:, :3], s))
    task = tasks.classification(spy, Splits(*((jnp.bfloat16(x), y) for x, y in blobs())))
    everything = dict.fromkeys(settings(task.loss), jnp.float32(0.2))
    assert np.isfinite(task.loss({}, {}, task.splits.train, KEY, train=True, **everything)[0])
    assert set(seen) == {jnp.dtype(jnp.bfloat16)}


def test_a_model_s_setting_of_the_same_name_is_refused():
    def apply(params, state, x, key, *, train, mixup: float = 0.0):
        return x[:, :3], state

    with pytest.raises(ConfigError, match="mine: the model's setting 'mixup' has the name of one of the task's"):
        tasks.classification(models.Model(lambda key: (WEIGHTS, {}), apply), blobs(), where="mine")


@pytest.mark.parametrize("name", TASKS)
def test_a_regularised_network_learns(name):
    task = TASKS[name]
    params, state = task.init(KEY, task.sample)
    optimizer = optax.adam(2e-2)
    chosen = dict.fromkeys(set(settings(task.loss)) - {"huber_delta"}, jnp.float32(0.1))

    @jax.jit
    def step(carry, i):
        params, state, opt_state = carry
        key = jax.random.fold_in(KEY, i)
        gradient, (state, _) = jax.grad(task.loss, has_aux=True)(params, state, task.splits.train, key, train=True, **chosen)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), state, opt_state), None

    def validation(params, state):
        return float(task.loss(params, state, task.splits.validation, KEY, train=False)[0])

    after = jax.lax.scan(step, (params, state, optimizer.init(params)), jnp.arange(200))[0]
    assert validation(*after[:2]) < 0.5 * validation(params, state)
