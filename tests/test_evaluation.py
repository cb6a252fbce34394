"""What members are judged by, in whole runs: averaged weights, several batches to an update, metrics of a whole split."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import f1_score, roc_auc_score

from tests.solo import batches
from vmaptune import models, tasks
from vmaptune.data.splits import split_classification
from vmaptune.loop import tune
from vmaptune.population import Stream, stream_key, take_member
from vmaptune.store.checkpoints import flatten
from vmaptune.train import make_evaluate

BASE = {
    "batch": {"size": 16},
    "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.8},
    "population": {"size": 3, "segment_steps": 4, "generations": 3},
    "search": {"method": "random"},
}
STEPS, MEMBERS = 12, 3


def with_optimizer(**settings):
    return BASE | {"optimizer": BASE["optimizer"] | settings}


def courses(task, trial, every=1):
    """Weights of a trial after each step, by plain optax: an update after so many steps, from their mean gradient."""
    gradient_of = jax.jit(lambda *arguments: jax.grad(task.loss, has_aux=True)(*arguments, train=True)[0])
    params, state = task.init(stream_key(0, Stream.INIT, trial), task.sample)
    optimizer = optax.sgd(0.1, momentum=0.8)
    opt_state, gathered, course = optimizer.init(params), [], []
    for step, row in enumerate(batches(0, 0, STEPS, 16, task.splits.size("train"))):
        batch = jax.tree.map(lambda leaf, row=row: leaf[row], task.splits.train)
        gathered.append(gradient_of(params, state, batch, stream_key(0, Stream.STEP, trial, step)))
        if len(gathered) == every:
            mean = jax.tree.map(lambda *gradients: sum(gradients) / every, *gathered)
            updates, opt_state = optimizer.update(mean, opt_state, params)
            params, gathered = optax.apply_updates(params, updates), []
        course.append(params)
    return course


def average(course, decay):
    """Weights of m updates ago count in proportion to decay^m."""
    shares = decay ** np.arange(len(course))[::-1]
    shares = shares / shares.sum()
    return jax.tree.map(lambda *leaves: sum(s * leaf for s, leaf in zip(shares, leaves, strict=True)), *course)


def validated(task, params):
    loss, (_, metrics) = task.loss(params, {}, task.splits.validation, jax.random.key(0), train=False)
    return {"loss": float(loss), "accuracy": float(metrics["accuracy"])}


def assert_close(tree, other, rtol=1e-3, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), tree, other)


# ------------------------------------------------------------------------------------------------------ averaged weights

DECAYS = [0.5, 0.8, 0.95]


@pytest.fixture(scope="module")
def averaged(blob_task, tmp_path_factory):
    """A run whose members remember more or less of their weights."""
    tree = with_optimizer(average={"low": 0.5, "high": 0.99})
    out = tmp_path_factory.mktemp("averaged") / "run"
    return tune(tree, task=blob_task, out=out, start={"optimizer.average": DECAYS})


@pytest.fixture(scope="module")
def alone(blob_task):
    return [courses(blob_task, trial) for trial in range(MEMBERS)]


def test_validation_is_of_the_averaged_weights_and_raw_of_the_last_ones(averaged, alone, blob_task):
    history = averaged.history
    assert averaged.compilations["generations"] == 1
    for row in history:
        course = alone[row["trial"]][: row["step"]]
        mean, last = (validated(blob_task, params) for params in (average(course, DECAYS[row["trial"]]), course[-1]))
        for name in ("loss", "accuracy"):
            np.testing.assert_allclose(row[f"validation.{name}"], mean[name], rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(row[f"validation.raw.{name}"], last[name], rtol=1e-3, atol=1e-5)
    assert (np.abs(history["validation.loss"] - history["validation.raw.loss"]) > 1e-3).any()
    np.testing.assert_array_equal(history["fitness"], history["validation.accuracy"])


def test_members_go_on_from_their_last_weights(averaged, alone):
    for trial in range(MEMBERS):
        assert_close(take_member(averaged.population, trial).params, alone[trial][-1])


def test_the_winner_is_handed_over_averaged(averaged, alone, blob_task):
    best = averaged.best
    course = alone[best.trial][: best.step]
    expected = average(course, DECAYS[best.trial])
    assert_close(best.params, expected)
    assert np.abs(best.params["head"]["kernel"] - course[-1]["head"]["kernel"]).max() > 1e-3
    weights = load_file(averaged.run / "best" / "weights.safetensors")
    for path, array in flatten({"params": best.params, "model_state": best.model_state}).items():
        np.testing.assert_array_equal(weights[path], array)
    assert {"loss", "accuracy", "raw.loss", "raw.accuracy"} == set(best.validation)
    assert validated(blob_task, best.params)["loss"] == pytest.approx(best.validation["loss"], rel=1e-4)
    loss, (_, metrics) = blob_task.loss(best.params, {}, blob_task.splits.test, jax.random.key(0), train=False)
    assert best.test == pytest.approx({"loss": float(loss), "accuracy": float(metrics["accuracy"])}, rel=1e-4)


def test_a_fixed_average_is_evaluated_too_and_none_leaves_no_column(averaged, alone, blob_task, tmp_path):
    one = {"population": BASE["population"] | {"size": 1}}
    fixed = tune(with_optimizer(average=DECAYS[0]) | one, task=blob_task, out=tmp_path / "fixed")
    among_others = averaged.history[averaged.history["trial"] == 0]
    np.testing.assert_allclose(fixed.history["validation.loss"], among_others["validation.loss"], rtol=1e-3)
    none = tune(BASE | one, task=blob_task, out=tmp_path / "none")
    assert not [name for name in none.history.dtype.names if ".raw." in name]
    assert none.best.validation["loss"] == pytest.approx(validated(blob_task, alone[0][-1])["loss"], rel=1e-3)


# ------------------------------------------------------------------------------------------- several batches to an update


def test_how_many_batches_make_an_update_is_searched_in_one_program(blob_task, tmp_path):
    counts = [1, 2, 4]
    tree = with_optimizer(accumulate={"low": 1, "high": 4, "integer": True})
    result = tune(tree, task=blob_task, out=tmp_path / "run", start={"optimizer.accumulate": counts})
    assert result.compilations["generations"] == 1
    np.testing.assert_array_equal(result.history["optimizer.accumulate"], np.array(counts)[result.history["trial"]])
    for trial, every in enumerate(counts):
        course = courses(blob_task, trial, every)
        assert_close(take_member(result.population, trial).params, course[-1])
        for row in result.history[result.history["trial"] == trial]:
            expected = validated(blob_task, course[row["step"] - 1])
            assert row["validation.loss"] == pytest.approx(expected["loss"], rel=1e-3)


# --------------------------------------------------------------------------------------------- metrics of a whole split


@pytest.fixture(scope="module")
def faint():
    """Three classes of different sizes that overlap: no measure of them is near its best."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, size=300, p=[0.6, 0.3, 0.1])
    inputs = rng.normal(size=(300, 4)) + rng.normal(size=(3, 4))[labels]
    return split_classification(inputs.astype(np.float32), labels.astype(np.int32))


def by_scikit_learn(metric, logits, labels):
    if metric == "f1":
        return f1_score(labels, logits.argmax(axis=1), average="macro")
    return roc_auc_score(labels, np.asarray(jax.nn.softmax(logits.astype(np.float64))), multi_class="ovr")


@pytest.mark.parametrize("metric", ["f1", "roc_auc"])
def test_members_are_selected_by_a_metric_of_the_whole_split(metric, faint, tmp_path):
    network = models.from_nnx(lambda rngs: models.MLP(4, [8], 3, rngs=rngs))
    task = tasks.classification(network, faint, metric=metric)
    tree = {
        "batch": {"size": 32},
        "optimizer": {"learning_rate": {"low": 1e-3, "high": 0.3, "scale": "log"}},
        "population": {"size": 6, "segment_steps": 8, "generations": 4},
        "search": {"method": "truncation", "quantile": 0.34},
    }
    result = tune(tree, task=task, out=tmp_path / "run")
    history, best = result.history, result.best
    np.testing.assert_array_equal(history["fitness"], history[f"validation.{metric}"])
    finished = history[history["step"] == 32]
    assert best.validation[metric] == pytest.approx(finished[f"validation.{metric}"].max(), rel=1e-6)
    assert f"train.{metric}" not in history.dtype.names  # it is no mean over batches
    for part, measured in (("validation", best.validation), ("test", best.test)):
        inputs, labels = getattr(faint, part)
        logits = np.asarray(task.predict(best.params, best.model_state, (jnp.asarray(inputs), labels)))
        assert measured[metric] == pytest.approx(by_scikit_learn(metric, logits, labels), rel=1e-5)
        assert measured["accuracy"] == pytest.approx((logits.argmax(axis=1) == labels).mean(), rel=1e-5)
        assert measured[metric] != pytest.approx(measured["accuracy"], abs=1e-5)
    in_parts = make_evaluate(task, batch_size=7)(result.population)  # of parts of the split, as of the whole
    last = history[history["generation"] == 3]
    np.testing.assert_allclose(in_parts[metric], last[np.argsort(last["slot"])][f"validation.{metric}"], rtol=1e-5)
