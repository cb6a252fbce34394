"""Metrics against scikit-learn's, and scores of whole splits through a task and the engine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as reference

from tests.conftest import blobs
from tests.test_losses import WEIGHTS, lines, mlp
from vmaptune import make_evaluate, models, tasks
from vmaptune.data.splits import Splits
from vmaptune.errors import ConfigError
from vmaptune.optimizers import OPTIMIZERS
from vmaptune.population import init_population
from vmaptune.space import Space
from vmaptune.tasks import metrics

MEMBERS = 5


def softmax(logits):
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def problem(classes, ties, absent=(), n=203, seed=0):
    """Labels i32[n] and logits f32[members, n, classes] that know something of them; rounded to halves where tied."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([c for c in range(classes) if c not in absent], n).astype(np.int32)
    logits = 2 * rng.normal(size=(MEMBERS, n, classes)) + np.eye(classes)[labels]
    return labels, (np.round(logits * 2) / 2 if ties else logits).astype(np.float32)


def each(metric, outputs, targets):
    """A metric of all members at once, compiled."""
    return np.asarray(jax.jit(jax.vmap(metric, in_axes=(0, None)))(outputs, targets))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("classes", "absent"), [(2, ()), (3, ()), (10, ()), (4, (1,)), (5, (0, 4))])
class TestClasses:
    def test_accuracies_and_f1(self, classes, absent, ties):
        labels, logits = problem(classes, ties, absent)
        found = logits.argmax(-1)
        average = "binary" if classes == 2 else "macro"
        present = [c for c in range(classes) if c not in absent]
        expected = {
            metrics.hits: [reference.accuracy_score(labels, f) for f in found],
            metrics.balanced_accuracy: [reference.recall_score(labels, f, labels=present, average="macro") for f in found],
            metrics.f1: [reference.f1_score(labels, f, average=average) for f in found],
        }
        for metric, scores in expected.items():
            np.testing.assert_allclose(each(lambda o, y, m=metric: m(o, y).mean(), logits, labels), scores, atol=1e-6)
        if not absent:
            scores = [reference.balanced_accuracy_score(labels, f) for f in found]
            np.testing.assert_allclose(each(metrics.balanced_accuracy, logits, labels), scores, atol=1e-6)

    def test_roc_auc(self, classes, absent, ties):
        labels, logits = problem(classes, ties, absent)
        if classes == 2:
            expected = [reference.roc_auc_score(labels, one[:, 1] - one[:, 0]) for one in logits]
            column = logits[:, :, 1] - logits[:, :, 0]
            for shaped in (column, column[:, :, None]):
                np.testing.assert_allclose(each(metrics.roc_auc, shaped, labels), expected, atol=1e-6)
        else:
            present = [c for c in range(classes) if c not in absent]
            scores = np.asarray(jax.jit(jax.nn.log_softmax)(logits))  # the same numbers: ties are ties of both
            expected = [np.mean([reference.roc_auc_score(labels == c, s[:, c]) for c in present]) for s in scores]
        np.testing.assert_allclose(each(metrics.roc_auc, logits, labels), expected, atol=1e-6)


def test_multiclass_auc_is_scikit_learn_s_own():
    labels, logits = problem(4, ties=False)
    expected = [reference.roc_auc_score(labels, softmax(one.astype(np.float64)), multi_class="ovr") for one in logits]
    np.testing.assert_allclose(each(metrics.roc_auc, logits, labels), expected, atol=1e-6)


def test_auc_is_the_share_of_pairs_in_order():
    labels, logits = problem(2, ties=True, n=4001)
    score = logits[0, :, 1] - logits[0, :, 0]
    apart = score[labels == 1][:, None] - score[labels == 0][None, :]
    assert metrics.roc_auc(jnp.asarray(logits[0]), labels) == pytest.approx(np.mean((apart > 0) + (apart == 0) / 2), abs=1e-6)


def test_scores_that_are_all_tied_tell_nothing():
    assert metrics.roc_auc(jnp.zeros((10, 2)), jnp.arange(10) % 2) == 0.5
    assert metrics.roc_auc(jnp.zeros((10, 5)), jnp.arange(10) % 5) == 0.5


def test_what_is_not_defined_is_not_a_number():
    assert jnp.isnan(metrics.roc_auc(jnp.arange(4.0), jnp.ones(4, jnp.int32)))
    assert jnp.isnan(metrics.roc_auc(jnp.array([0.0, jnp.nan, 1.0, 2.0]), jnp.arange(4) % 2))


def test_a_binary_f1_without_anything_to_find_is_zero():
    assert metrics.f1(jnp.full(4, -1.0), jnp.zeros(4, jnp.int32)) == 0.0


@pytest.mark.parametrize("outputs", [1, 3])
def test_real_numbers(outputs):
    rng = np.random.default_rng(0)
    targets = 10 + rng.normal(size=(203, outputs)).astype(np.float32)
    if outputs == 3:
        targets[:, 1] = 0.1  # a constant
    found = targets + rng.normal(size=(MEMBERS, 203, outputs)).astype(np.float32) * np.linspace(0, 2, MEMBERS)[:, None, None]
    found = found.astype(np.float32)
    expected = {
        metrics.absolute_errors: [reference.mean_absolute_error(targets, f) for f in found],
        metrics.rmse: [reference.root_mean_squared_error(targets, f) for f in found],
        metrics.r2: [reference.r2_score(targets.astype(np.float64), f) for f in found],
    }
    if outputs == 3:  # scikit-learn's mean of a constant in floating point is not the constant
        free = [reference.r2_score(targets[:, [0, 2]], f[:, [0, 2]]) * 2 for f in found]
        expected[metrics.r2] = [(one + (i == 0)) / 3 for i, one in enumerate(free)]
    for metric, scores in expected.items():
        for shaped in (targets, targets[:, 0]) if outputs == 1 else (targets,):
            values = each(lambda o, y, m=metric: m(o, y).mean(), found, shaped)
            np.testing.assert_allclose(values, scores, atol=1e-5, rtol=1e-5)


# --------------------------------------------------------------------------------------------------------------- a task


BINARY = blobs(classes=2)


@pytest.mark.parametrize(
    ("task", "train", "validation", "direction"),
    [
        (tasks.classification(mlp(), blobs()), ["loss", "accuracy"], [], "max"),
        (tasks.classification(mlp(), blobs(), metric="loss"), ["loss", "accuracy"], [], "min"),
        (tasks.classification(mlp(), blobs(), metric="f1"), ["loss", "accuracy"], ["f1"], "max"),
        (
            tasks.classification(mlp(1), BINARY, loss="binary_cross_entropy", metric="roc_auc"),
            ["loss", "accuracy"],
            ["roc_auc"],
            "max",
        ),
        (tasks.regression(mlp(1), lines()), ["loss", "mae"], ["rmse"], "min"),
        (tasks.regression(mlp(1), lines(), metric="mae"), ["loss", "mae"], [], "min"),
        (tasks.regression(mlp(1), lines(), metric="r2", loss="huber"), ["loss", "mae"], ["r2"], "max"),
    ],
    ids=lambda value: value.metric if isinstance(value, tasks.Task) else None,
)
def test_a_task_measures_means_always_and_its_score_on_whole_splits(task, train, validation, direction):
    assert tasks.measured(task) == (train, train + validation)
    assert tasks.check_task(task) == train
    assert task.direction == direction
    assert (task.predict is None, task.score is None) == (not validation, not validation)
    assert all((name in train) == (name == "loss" or name in ("accuracy", "mae")) for name in train)


@pytest.mark.parametrize("batch_size", [7, 18, 4096])
@pytest.mark.parametrize("metric", ["f1", "balanced_accuracy", "roc_auc"])
def test_evaluation_in_parts_scores_the_whole_split(metric, batch_size):
    task = tasks.classification(mlp(), blobs(90), metric=metric)
    population = init_population(task, Space({}), OPTIMIZERS["sgd"], size=3)
    found = make_evaluate(task, batch_size=batch_size)(population)
    assert set(found) == {"loss", "accuracy", metric}
    x, y = task.splits.validation
    for i in range(3):
        logits = task.predict(jax.tree.map(lambda leaf, i=i: leaf[i], population.params), {}, (x, y))
        assert found[metric][i] == pytest.approx(float(getattr(metrics, metric)(logits, y)), abs=1e-6)
        assert found["accuracy"][i] == pytest.approx(float(np.mean(logits.argmax(1) == y)), abs=1e-6)


def test_evaluation_of_a_regression_is_scikit_learn_s():
    task = tasks.regression(mlp(2), lines(outputs=2))
    population = init_population(task, Space({}), OPTIMIZERS["sgd"], size=3)
    found = make_evaluate(task, split="test", batch_size=10)(population)
    x, y = task.splits.test
    for i in range(3):
        outputs = task.predict(jax.tree.map(lambda leaf, i=i: leaf[i], population.params), {}, (x, y))
        assert found["rmse"][i] == pytest.approx(reference.root_mean_squared_error(y, outputs), rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"predict": None}, "predict and score go together; given: only score"),
        ({"score": None}, "predict and score go together; given: only predict"),
        ({"score": lambda o, d: {"loss": o.mean()}}, "a metric cannot be named 'loss'"),
        ({"score": lambda o, d: {"accuracy": o.mean()}}, "'accuracy' is measured twice, by the loss and by the score"),
        ({"score": lambda o, d: {"f1": o.mean(0)}}, r"f1 must be one number, of a whole split; given: shape \(3,\)"),
        ({"predict": lambda p, s, b: jnp.zeros(3)}, r"one row an example; given: shape \(3,\) for one example"),
        ({"metric": "f2"}, "neither its loss nor its score returns a metric 'f2'; known: accuracy, f1, loss"),
    ],
)
def test_scores_that_cannot_be_recorded_are_refused(fields, sentence):
    task = tasks.classification(mlp(), blobs(), metric="f1")._replace(**fields)
    if fields.get("predict"):
        task = task._replace(score=lambda o, d: {"f1": o.mean()})
    with pytest.raises(ConfigError, match=sentence):
        tasks.check_task(task)


def one_class(splits):
    x, y = splits.validation
    return splits._replace(validation=(x, np.zeros_like(y)))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: tasks.classification(mlp(), blobs(), metric="acuracy"), "no metric 'acuracy'; did you mean 'accuracy'"),
        (lambda: tasks.classification(mlp(), blobs(), loss="mse"), "no loss 'mse'"),
        (lambda: tasks.classification(mlp(), one_class(blobs()), metric="roc_auc"), "only label 0 in the validation split"),
        (
            lambda: tasks.classification(mlp(2), BINARY, loss="binary_cross_entropy"),
            r"shape \(batch,\) or \(batch, 1\); given: \(2, 2\) for a batch of 2",
        ),
        (
            lambda: tasks.classification(mlp(1), blobs(), loss="binary_cross_entropy"),
            r"labels must be 0 or 1; given: 0\.\.2",
        ),
        (lambda: tasks.regression(mlp(2), lines()), r"one number a target, shape \('batch',\); given: \(2, 2\)"),
        (lambda: tasks.regression(mlp(1), lines(outputs=2)), r"given: \(2, 1\) for a batch of 2, targets of shape \(45, 2\)"),
        (lambda: tasks.regression(mlp(1), blobs()), "targets must be real numbers; given: int32"),
    ],
)
def test_what_does_not_fit_is_refused(build, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build()


def test_predictions_change_no_state():
    seen = []
    spy = models.Model(lambda key: (WEIGHTS, {}), lambda p, s, x, key, *, train: (seen.append(train) or x[:, :3], s))
    task = tasks.classification(spy, Splits(*blobs()), metric="f1")
    seen.clear()
    task.predict({}, {}, task.splits.test)
    assert seen == [False]
    assert task.score(jnp.asarray(task.splits.test[0])[:, :3], task.splits.test).keys() == {"f1"}
