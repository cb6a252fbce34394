"""Adapters: one problem in every framework, against plain functions, a solo run, and what a user may get wrong."""

import sys

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import vmaptune as vt
from tests.conftest import blobs
from tests.solo import batches
from vmaptune import models, tasks
from vmaptune.data.splits import Splits
from vmaptune.errors import ConfigError
from vmaptune.models import adapters
from vmaptune.optimizers import sgd
from vmaptune.population import BIRTH, Offspring, Stream, inherit, init_population, make_newborn, stream_key
from vmaptune.schedules import constant
from vmaptune.settings import settings
from vmaptune.space import Axis, Space
from vmaptune.tasks.regularisation import transform_key
from vmaptune.train import make_segment

KEY = jax.random.key(0)
BLOBS = blobs()
MEMBERS, STEPS = 8, 6

# ------------------------------------------------------------------------------- the same plain network, five times over


class LinenPlain(linen.Module):
    @linen.compact
    def __call__(self, x, *, gain: float = 1.0):
        return gain * linen.Dense(3)(linen.relu(linen.Dense(8)(x)))


class NnxPlain(nnx.Module):
    def __init__(self, *, rngs):
        self.first, self.second = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x, *, gain: float = 1.0):
        return gain * self.second(nnx.relu(self.first(x)))


class EquinoxPlain(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.first, self.second = eqx.nn.Linear(4, 8, key=one), eqx.nn.Linear(8, 3, key=two)

    def __call__(self, x, *, gain: float = 1.0):
        return gain * self.second(jax.nn.relu(self.first(x)))


def haiku_plain(x, *, gain: float = 1.0):
    return gain * hk.Linear(3, name="second")(jax.nn.relu(hk.Linear(8, name="first")(x)))


def start(key):
    one, two = jax.random.split(key)
    return {"a": jax.random.normal(one, (4, 8)), "b": jnp.ones(8), "c": jax.random.normal(two, (8, 3)), "d": jnp.zeros(3)}


def plain(params, inputs, *, gain: float = 1.0):
    """Two layers.

    Args:
        params: Weights.
        inputs: Of a batch.
        gain: Of the logits.
    """
    return gain * (jax.nn.relu(inputs @ params["a"] + params["b"][None]) @ params["c"] + params["d"][None])


PLAIN = {  # a task, and the plain weights in its own form
    "functions": (lambda **how: vt.Task.from_functions(start, plain, BLOBS, **how), lambda w: w),
    "nnx": (
        lambda **how: vt.Task.from_nnx(lambda rngs: NnxPlain(rngs=rngs), BLOBS, **how),
        lambda w: {"first": {"kernel": w["a"], "bias": w["b"]}, "second": {"kernel": w["c"], "bias": w["d"]}},
    ),
    "linen": (
        lambda **how: vt.Task.from_linen(LinenPlain(), BLOBS, **how),
        lambda w: {"Dense_1": {"kernel": w["a"], "bias": w["b"]}, "Dense_0": {"kernel": w["c"], "bias": w["d"]}},
    ),
    "equinox": (
        lambda **how: vt.Task.from_equinox(EquinoxPlain, BLOBS, **how),
        lambda w: {"first.weight": w["a"].T, "first.bias": w["b"], "second.weight": w["c"].T, "second.bias": w["d"]},
    ),
    "haiku": (
        lambda **how: vt.Task.from_haiku(haiku_plain, BLOBS, **how),
        lambda w: {"first": {"w": w["a"], "b": w["b"]}, "second": {"w": w["c"], "b": w["d"]}},
    ),
}


def losses_of(task, params):
    """Of 20 steps of gradient descent on all training examples at gain 1.3, and of the validation split after them."""

    def step(params, _):
        loss = lambda params: task.loss(params, state, task.splits.train, KEY, train=True, gain=jnp.float32(1.3))[0]  # noqa: E731
        value, gradient = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda w, g: w - 0.1 * g, params, gradient), value

    state = task.init(KEY, task.sample)[1]
    params, paid = jax.lax.scan(step, params, None, length=20)
    return jnp.append(paid, task.loss(params, state, task.splits.validation, KEY, train=False)[0])


def test_every_framework_trains_the_same_network_alike():
    weights, expected = start(jax.random.key(3)), None
    for name, (build, translate) in PLAIN.items():
        task = build()
        assert tasks.check_task(task) == ["loss", "accuracy"], name
        assert {setting for setting, s in settings(task.loss).items() if s.traced} >= {"gain"}
        like = jax.eval_shape(task.init, KEY, task.sample)[0]
        jax.tree.map(lambda made, given: np.testing.assert_equal(made.shape, given.shape), like, translate(weights))
        found = jax.jit(lambda params, task=task: losses_of(task, params))(translate(weights))
        expected = found if expected is None else expected
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=name)
    assert expected[-1] < 0.3 * expected[0]
    assert settings(PLAIN["functions"][0]().loss)["gain"].help == "Of the logits."


# -------------------------------------------------- batch norm, dropout and a setting: whatever could leak between members


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x, train: bool, *, gain: float = 1.0):
        x = linen.relu(linen.BatchNorm(use_running_average=not train)(linen.Dense(8)(x)))
        kept = jax.random.bernoulli(self.make_rng("mine"), 0.9, x.shape) | (not train)
        return gain * linen.Dense(3)(linen.Dropout(0.3)(kept * x, deterministic=not train))


class EquinoxNet(eqx.Module):
    first: eqx.nn.Linear
    norms: list[eqx.nn.BatchNorm]
    drop: eqx.nn.Dropout
    second: eqx.nn.Linear
    shuffle: jax.Array

    def __init__(self, key):
        one, two, three = jax.random.split(key, 3)
        self.first, self.second = eqx.nn.Linear(4, 8, key=one), eqx.nn.Linear(8, 3, key=two)
        self.norms = [eqx.nn.BatchNorm(width, "batch", mode="batch") for width in (8, 8)]
        self.drop = eqx.nn.Dropout(0.3)
        self.shuffle = jax.random.permutation(three, 8)

    def __call__(self, x, state, *, key, gain: float = 1.0):
        x, state = self.norms[0](self.first(x), state)
        x, state = self.norms[1](jax.nn.relu(x)[self.shuffle], state)
        return gain * self.second(self.drop(x, key=key)), state


def haiku_net(x, is_training, *, gain: float = 1.0):
    x = jax.nn.relu(hk.BatchNorm(True, True, 0.9)(hk.Linear(8)(x), is_training))
    return gain * hk.Linear(3)(hk.dropout(hk.next_rng_key(), 0.3, x) if is_training else x)


def start_net(key, inputs):
    return {"w": jax.random.normal(key, (inputs.shape[1], 3))}, {"mean": jnp.zeros(3)}


def net(params, state, inputs, key, *, train, gain: float = 1.0):
    kept = jax.random.bernoulli(key, 0.7, inputs.shape) if train else 0.7
    outputs = (kept * inputs) @ params["w"]
    mean = 0.9 * state["mean"] + 0.1 * outputs.mean(0) if train else state["mean"]
    return gain * (outputs - mean[None]), {"mean": mean}


NETS = {
    "linen": lambda **how: vt.Task.from_linen(LinenNet(), BLOBS, **how),
    "equinox": lambda **how: vt.Task.from_equinox(EquinoxNet, BLOBS, **how),
    "haiku": lambda **how: vt.Task.from_haiku(haiku_net, BLOBS, **how),
    "functions": lambda **how: vt.Task.from_functions(start_net, net, BLOBS, **how),
}
SPACE = Space({"optimizer.learning_rate": Axis(1e-2, 3e-1, "log"), "task.gain": Axis(0.5, 2.0)})
DECODED = jax.jit(jax.vmap(SPACE.decode))


def solo(task, born, values):
    """Weights, state and mean loss of each trial, trained alone by plain optax; one compiled step for all."""

    @jax.jit
    def update(params, state, memory, batch, key, rate, gain):
        (loss, (state, _)), gradient = jax.value_and_grad(task.loss, has_aux=True)(
            params, state, batch, key, train=True, gain=gain
        )
        updates, memory = sgd(learning_rate=rate).update(gradient, memory, params)
        return optax.apply_updates(params, updates), state, memory, loss

    rows, ends = list(batches(0, 0, STEPS, 16, task.splits.size("train"))), []
    for trial in range(MEMBERS):
        params, state = jax.tree.map(lambda leaf, trial=trial: leaf[trial], (born.params, born.model_state))
        memory = sgd().init(params)
        rate, gain = (values[name][trial] for name in ("optimizer.learning_rate", "task.gain"))
        paid = []
        for s, row in enumerate(rows):
            batch = jax.tree.map(lambda leaf, row=row: leaf[row], task.splits.train)
            key = stream_key(0, Stream.STEP, trial, s)
            params, state, memory, loss = update(params, state, memory, batch, key, rate, gain)
            paid.append(float(loss))
        ends.append((params, state, np.mean(paid)))
    return ends


@pytest.mark.parametrize("name", NETS)
def test_a_population_is_eight_solo_runs(name):
    task = NETS[name]()
    born = init_population(task, SPACE, sgd, size=MEMBERS, seed=0)
    alone = solo(task, jax.device_get(born), jax.device_get(DECODED(born.genotype)))
    segment = make_segment(task, SPACE, sgd, constant, steps=STEPS, horizon=STEPS, batch_size=16)
    population, metrics = jax.device_get(segment(born, 0))
    for i, (params, state, paid) in enumerate(alone):
        assert metrics["loss"][i] == pytest.approx(paid, rel=1e-4)
        jax.tree.map(
            lambda one, all_, i=i: np.testing.assert_allclose(all_[i], one, rtol=2e-3, atol=2e-5),
            (params, state),
            (population.params, population.model_state),
        )
    for leaf in jax.tree.leaves(population.model_state):
        assert leaf.dtype != np.float32 or len(np.unique(leaf.reshape(MEMBERS, -1), axis=0)) == MEMBERS


def test_a_child_takes_over_its_parents_state():
    task = NETS["functions"]()
    population = init_population(task, SPACE, sgd, size=3)
    population = population._replace(model_state={"mean": jnp.arange(9.0).reshape(3, 3)})
    offspring = Offspring(jnp.array([0, 0, BIRTH]), population.genotype)
    children = inherit(population, offspring, make_newborn(task, sgd, space=SPACE))
    np.testing.assert_array_equal(children.model_state["mean"], [[0, 1, 2], [0, 1, 2], [0, 0, 0]])


@pytest.mark.parametrize("name", NETS)
def test_draws_come_from_the_key_and_state_moves_in_training_alone(name):
    task = NETS[name](metric="f1")
    batch, one = task.splits.train, jax.tree.map(lambda leaf: leaf[:1], task.splits.train)

    @jax.jit
    def measure(keys, gains):
        params, state = task.init(KEY, task.sample)

        def losses(train):
            return jax.vmap(lambda key, gain: task.loss(params, state, batch, key, train=train, gain=gain))(keys, gains)

        trained, rested = losses(True), losses(False)
        moved = jax.tree.map(lambda leaf: leaf[0], trained[1][0])
        return state, trained, rested, task.predict(params, moved, batch), task.predict(params, moved, one)

    keys, gains = jax.random.split(KEY, 3)[jnp.array([0, 0, 1, 0])], jnp.array([1.0, 1.0, 1.0, 2.0])
    state, (paid, (moved, _)), (rested, (kept, _)), logits, alone = jax.device_get(measure(keys, gains))
    assert paid[0] == paid[1]
    assert len({*paid.tolist()}) == 3
    assert rested[0] == rested[1] == rested[2] != rested[3]
    jax.tree.map(lambda before, after: np.testing.assert_array_equal(after, np.stack([before] * 4)), state, kept)
    assert any(jax.tree.leaves(jax.tree.map(lambda before, after: (after != before[None]).any(), state, moved)))
    np.testing.assert_allclose(alone, logits[:1], rtol=1e-4, atol=1e-5)  # an example's outputs are its own
    assert (logits.shape, logits.dtype) == ((72, 3), np.float32)


# ------------------------------------------------------------------------------------------- losses and metrics by function


def within(outputs, targets):
    return jnp.mean(jnp.abs(outputs.reshape(targets.shape) - targets) < 1.0)


def cubed(outputs, targets, *, power: float = 3.0):
    return jnp.abs(outputs.reshape(targets.shape) - targets) ** power


def brier(logits, labels, *, sharpness: float = 1.0):
    return jnp.sum((jax.nn.softmax(sharpness * logits) - jax.nn.one_hot(labels, logits.shape[-1])) ** 2, axis=-1)


def linear(outputs):
    return lambda params, inputs: inputs @ params["w"], lambda key: {"w": jax.random.normal(key, (4, outputs))}


def of(outputs, splits, **how):
    apply, init = linear(outputs)
    return vt.Task.from_functions(init, apply, splits, **how)


NUMBERS = Splits(*((x, x[:, 0] + 0.5) for x, _ in BLOBS))


def test_a_loss_and_a_metric_may_be_functions():
    task = of(1, NUMBERS, loss=cubed, metric=within, direction="max")
    x, y = NUMBERS.validation
    params, _ = task.init(KEY, task.sample)
    error = np.abs(np.asarray(x @ params["w"])[:, 0] - y)
    assert tasks.measured(task).validation == ["loss", "mae", "within"]
    assert (task.metric, task.direction) == ("within", "max")
    assert task.loss(params, {}, (x, y), KEY, train=False)[0] == pytest.approx(np.mean(error**3), rel=1e-4)
    assert task.loss(params, {}, (x, y), KEY, train=True, power=2.0)[0] == pytest.approx(np.mean(error**2), rel=1e-4)
    found = task.score(task.predict(params, {}, (x, y)), (x, y))["within"]
    assert found == pytest.approx(np.mean(error < 1.0))

    task = of(3, BLOBS, loss=brier, metric=lambda o, y: -o.max(), direction="min")
    assert tasks.measured(task).validation == ["loss", "accuracy", "metric"]
    logits = np.asarray(BLOBS.train[0] @ task.init(KEY, task.sample)[0]["w"], np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = np.mean(np.sum((shares - np.eye(3)[BLOBS.train[1]]) ** 2, axis=1))
    assert task.loss(task.init(KEY, task.sample)[0], {}, BLOBS.train, KEY, train=True)[0] == pytest.approx(expected, rel=1e-4)
    assert {"sharpness", "class_balance", "mixup"} <= set(settings(task.loss))


@pytest.mark.parametrize(
    ("how", "outputs", "splits", "metric"),
    [
        ({}, 3, BLOBS, "accuracy"),
        ({"loss": "huber"}, 1, NUMBERS, "rmse"),
        ({"loss": cubed, "metric": "r2"}, 1, NUMBERS, "r2"),
        ({"loss": lambda o, y: o.max(-1)}, 3, BLOBS, "accuracy"),
        ({"loss": lambda o, y: o[:, 0]}, 1, NUMBERS, "rmse"),
        ({"loss": lambda o, y: o[:, 0] * y}, 1, blobs(classes=2), "accuracy"),
        ({"loss": "mse", "metric": "loss"}, 1, NUMBERS, "loss"),
    ],
)
def test_the_loss_or_the_data_say_what_kind_of_task_it_is(how, outputs, splits, metric):
    task = of(outputs, splits, **how)
    assert task.metric == metric
    assert tasks.check_task(task)[1] == ("mae" if splits is NUMBERS else "accuracy")


def test_inputs_are_transformed_while_training_alone():
    def shifted(inputs, key, *, shift: float = 0.0):
        return inputs + shift * jax.random.normal(key, inputs.shape)

    task, bare = of(3, BLOBS, transform=shifted), of(3, BLOBS)
    params, _ = task.init(KEY, task.sample)
    x, y = BLOBS.train
    moved = (x + 0.7 * jax.random.normal(transform_key(KEY), x.shape), y)
    found = task.loss(params, {}, (x, y), KEY, train=True, shift=jnp.float32(0.7))[0]
    assert found == pytest.approx(float(bare.loss(params, {}, moved, KEY, train=True)[0]), rel=1e-5)
    rested = task.loss(params, {}, (x, y), KEY, train=False, shift=jnp.float32(0.7))[0]
    assert rested == bare.loss(params, {}, (x, y), KEY, train=False)[0]
    assert settings(task.loss)["shift"].traced


def test_narrow_weights_compute_narrow_and_are_judged_in_float32():
    seen = []

    def apply(params, inputs):
        seen.append((inputs.dtype, (inputs @ params["w"]).dtype))
        return inputs @ params["w"]

    task = vt.Task.from_functions(linear(3)[1], apply, BLOBS, metric="f1")

    @jax.jit
    def measure(noise):
        wide, _ = task.init(KEY, task.sample)
        narrow = jax.tree.map(lambda w: w.astype(jnp.bfloat16), wide)
        pay = jax.value_and_grad(lambda params: task.loss(params, {}, BLOBS.train, KEY, train=True, input_noise=noise)[0])
        return *pay(wide), *pay(narrow), task.predict(narrow, {}, BLOBS.test)

    seen.clear()
    wide, _, narrow, gradient, outputs = measure(jnp.float32(0))
    assert seen == [(jnp.float32, jnp.float32), *[(jnp.bfloat16, jnp.bfloat16)] * 2]
    assert 0 < abs(narrow - wide) < 2.0**-6 * wide  # a logit is right to 2^-8 of itself
    assert (narrow.dtype, outputs.dtype, gradient["w"].dtype) == (jnp.float32, jnp.float32, jnp.bfloat16)


def test_wide_data_are_trained_in_float32():
    wide = Splits(*((x.astype(np.float64), y.astype(np.int64)) for x, y in BLOBS))
    losses = []
    for task in (of(3, wide), of(3, BLOBS)):
        params, _ = task.init(KEY, task.sample)
        assert params["w"].dtype == jnp.float32
        losses.append(task.loss(params, {}, task.splits.train, KEY, train=True)[0])
    assert losses[0] == losses[1]


# ------------------------------------------------------------------------------------------------- what a user may get wrong


from_nnx, from_linen, from_equinox = vt.Task.from_nnx, vt.Task.from_linen, vt.Task.from_equinox
from_haiku, from_functions = vt.Task.from_haiku, vt.Task.from_functions


class Held(eqx.Module):
    key: jax.Array

    def __call__(self, x):
        return x


def weighed(outputs, labels, *, class_balance: float = 0.0):
    return outputs[:, 0]


def mixed(inputs, key, *, mixup: float = 0.0):
    return inputs


def changed(part, function):
    return BLOBS._replace(**{part: function(*getattr(BLOBS, part))})


def image(x, y):
    return np.tile(x[:, :, None, None], (1, 1, 4, 3)), y


IMAGES = Splits(*(image(*part) for part in BLOBS))
TWO = blobs(classes=2)
SINGLE = changed("train", lambda x, y: (x, np.zeros_like(y)))
NAN = changed("validation", lambda x, y: (np.where(x > 0, x, np.nan), y))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        # the model and the data
        (
            lambda: from_nnx(lambda rngs: NnxPlain(rngs=rngs), IMAGES),
            r"^task: the model cannot be traced on inputs of shape \(4, 4, 3\): ",
        ),
        (
            lambda: from_linen(linen.Conv(3, (3, 3)), BLOBS, where="mine"),
            r"^mine: the model cannot be traced on inputs of shape \(4,\): ",
        ),
        (lambda: from_equinox(EquinoxPlain, IMAGES), r"cannot be traced on inputs of shape \(4, 4, 3\): \w+: "),
        (lambda: from_haiku(lambda x: hk.Conv2D(3, 3)(x), BLOBS), r"cannot be traced on inputs of shape \(4,\): \w+: "),
        (lambda: of(2, IMAGES), r"cannot be traced on inputs of shape \(4, 4, 3\): TypeError: dot_general"),
        (lambda: of(2, BLOBS), r"labels must be one of 0\.\.1, the model's outputs; given: 0\.\.2"),
        (lambda: of(3, NUMBERS), "labels must be integers; given: float32 in the train split"),
        (lambda: of(3, BLOBS, loss="mse"), "targets must be real numbers; given: int32"),
        (lambda: of(3, NAN), "the validation split holds NaN or infinite values"),
        (lambda: from_linen(LinenPlain(), NAN), "the validation split holds NaN or infinite values"),
        (lambda: of(3, BLOBS._replace(test=(BLOBS.test[0][:0], BLOBS.test[1][:0]))), "the test split is empty"),
        (lambda: from_haiku(haiku_plain, BLOBS.train), r"splits must be a vmaptune\.Splits; given: tuple"),
        (lambda: of(3, Splits(*((x, y, y) for x, y in BLOBS))), r"each split must be a pair of arrays, \(inputs, targets\)"),
        (lambda: of(3, Splits(*((x.astype(str), y) for x, y in BLOBS))), r"inputs must be numbers; given: <U32"),
        # what is returned
        (lambda: from_functions(start, lambda p, x: (x, x), BLOBS), "must return an array of outputs; given: tuple"),
        (lambda: from_functions(start, lambda p, x, state: x, BLOBS), r"so init must return \(params, state\); given: dict"),
        (
            lambda: from_functions(lambda key: ({}, {}), lambda p, x, state: x, BLOBS),
            r"so apply must return \(outputs, state\); given: \w*Trace",
        ),
        (
            lambda: from_functions(lambda key: ({}, {}), lambda p, x, state: (x, {"n": x}), BLOBS),
            "must return its state in the shapes it was given",
        ),
        (
            lambda: from_functions(lambda key: jnp.arange(3), lambda p, x: x[:, :3] * p[None], BLOBS),
            "parameters must be real numbers; the parameter is int32",
        ),
        (
            lambda: from_functions(lambda key: {"w": 1.0}, lambda p, x: x[:, :3] * p["w"], BLOBS),
            "parameters must be arrays; w is float: use jnp.asarray",
        ),
        (lambda: from_haiku(lambda x: x[:, :3], BLOBS), "^task: the model has no parameters to train"),
        (
            lambda: from_functions(start, lambda p, x: plain(p, x) if x.sum() > 0 else x, BLOBS),
            r"the model cannot be traced on inputs of shape \(4,\): TracerBoolConversionError: ",
        ),
        (
            lambda: from_functions(start, lambda p, x: plain(p, x).T, BLOBS),
            r"must return one row an example; given: shape \(3, 8\) for a batch of 8",
        ),
        (
            lambda: from_functions(lambda key: {"w": jnp.ones((4, 7))}, lambda p, x: (x @ p["w"]).T, BLOBS),
            r"must return one row an example; given: shape \(7, 8\) for a batch of 8",
        ),
        (
            lambda: from_functions(lambda key: {"n": jnp.arange(3)}, lambda p, x: x[:, :3] * p["n"][None], BLOBS),
            "parameters must be real numbers; n is int32",
        ),
        (
            lambda: tasks.classification(models.Model(lambda key: 3, lambda *a, **k: 3), BLOBS),
            r"init must return \(params, state\); given: int",
        ),
        # the functions
        (lambda: from_functions(lambda: 1, plain, BLOBS), r"init must take \(key\) or \(key, inputs\); given: \(\)"),
        (lambda: from_functions(start, lambda params: 1, BLOBS), r"apply must take params and inputs, .*; given: \(params\)"),
        (lambda: from_functions(start, 3, BLOBS), "apply must be a function; given: int"),
        (lambda: adapters.from_functions(start_net, net), "init takes inputs too: give a batch of one example"),
        (lambda: from_functions(start, lambda p, x, *, rate=0.1: x, BLOBS), "setting 'rate' has no annotation"),
        (lambda: from_nnx(lambda rngs: 3, BLOBS), r"make must return a flax\.nnx\.Module"),
        (lambda: from_nnx(lambda rngs: nnx.Linear(4, rngs=rngs), BLOBS), "from_nnx: the module cannot be built: TypeError: "),
        (
            lambda: from_nnx(NnxPlain(rngs=nnx.Rngs(0)), BLOBS),
            "expected a function of rngs .*, such as the class; given: an instance of NnxPlain",
        ),
        (lambda: from_equinox(EquinoxPlain(KEY), BLOBS), "expected a function of a key .*; given: an instance of EquinoxPlain"),
        (lambda: from_linen(LinenPlain, BLOBS), "expected an instance of a flax.linen.Module; given: the class LinenPlain"),
        (lambda: from_equinox(lambda key: jax.nn.relu, BLOBS), r"make must return an equinox\.Module with a call"),
        (lambda: from_equinox(lambda: 3, BLOBS), "from_equinox: the module cannot be built: TypeError: "),
        (lambda: from_equinox(Held, BLOBS), "the module holds a random key, key; take it in the call instead"),
        (lambda: from_haiku(hk.transform(haiku_plain), BLOBS), r"the function itself; given: what haiku\.transform made of it"),
        (lambda: from_haiku(3, BLOBS), "expected a function of the inputs; given: int"),
        # loss and metric
        (lambda: of(3, BLOBS, loss="cross_entropi"), "no loss 'cross_entropi'; did you mean 'cross_entropy'"),
        (lambda: of(3, BLOBS, loss=3), "no loss 3"),
        (lambda: of(3, BLOBS, metric="rmse"), "no metric 'rmse'"),
        (lambda: of(3, BLOBS, metric=within), "a metric of your own needs a direction, 'max' or 'min'; given: None"),
        (lambda: of(3, BLOBS, metric="f1", direction="min"), "the direction of f1 is 'max'; given: 'min'"),
        (
            lambda: of(3, BLOBS, metric=lambda o, y: o[0], direction="max"),
            r"the metric must return one number; given: shape \(3,\)",
        ),
        (
            lambda: of(3, BLOBS, metric=lambda o, y: np.asarray(o).max(), direction="max"),
            "the metric cannot be traced for .*: TracerArrayConversionError",
        ),
        (lambda: of(3, BLOBS, loss=lambda o, y: o.mean()), r"the loss must return one number an example; given: shape \(\)"),
        (
            lambda: of(2, TWO, loss=lambda o, y: (o**2).mean(0)),
            r"the loss must return one number an example; given: shape \(2,\) for a batch of 7",
        ),
        (
            lambda: of(2, TWO, loss=lambda o, y: o @ y.astype(o.dtype)),
            "the loss cannot be traced for .*: TypeError: dot_general",
        ),
        (
            lambda: of(2, TWO, metric=lambda o, y: o @ y.astype(o.dtype), direction="max"),
            "the metric cannot be traced for .*: TypeError: dot_general",
        ),
        (lambda: of(3, BLOBS, losss="mse", where="mine"), "^mine: there is no argument 'losss'; did you mean 'loss'"),
        (lambda: of(3, SINGLE), "nothing to tell apart: all labels of the train split are 0"),
        (lambda: of(3, BLOBS, loss=lambda o: o), "the loss cannot be traced for .*: TypeError"),
        (lambda: of(3, BLOBS, loss=weighed), "the loss's setting 'class_balance' has the name of one of the task's"),
        (lambda: of(3, BLOBS, transform=lambda x: x), r"the transform cannot be traced for inputs \(7, 4\): TypeError: "),
        (
            lambda: of(3, BLOBS, transform=lambda x, key: x[:, :2]),
            r"the transform must return real numbers of the inputs' shape \(7, 4\); given: float32 of shape \(7, 2\)",
        ),
        (lambda: of(1, NUMBERS, loss="mse", transform=lambda x, key: x > 0), r"given: bool of shape \(7, 4\)"),
        (lambda: of(3, BLOBS, transform=lambda x, key: None), r"the inputs' shape \(7, 4\); given: NoneType"),
        (lambda: of(3, BLOBS, transform=mixed), "the transform's setting 'mixup' has the name of one of the task's"),
        (lambda: of(3, BLOBS, transform=lambda x, key, *, rate=0.1: x), "setting 'rate' has no annotation"),
    ],
)
def test_a_mistake_is_one_sentence(build, sentence):
    with pytest.raises(ConfigError, match=sentence) as raised:
        build()
    assert len(str(raised.value).splitlines()) == 1


def test_a_framework_that_is_not_installed_is_named_with_its_package(monkeypatch):
    for name, package, build in (("equinox", "equinox", from_equinox), ("haiku", "dm-haiku", from_haiku)):
        monkeypatch.setitem(sys.modules, name, None)  # what Python does for a module that is not there
        with pytest.raises(ConfigError, match=f"{name} is not installed; pip install {package}"):
            build(lambda x: x, BLOBS)
