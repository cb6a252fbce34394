import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.conftest import blobs
from vmaptune import models, tasks
from vmaptune.data.splits import Splits
from vmaptune.errors import ConfigError

KEY = jax.random.key(0)


def mlp(outputs=3, features=4):
    return models.from_nnx(lambda rngs: models.MLP(features, [8], outputs, rngs=rngs))


def test_classification_pays_cross_entropy_and_counts_hits(blob_task):
    params, state = blob_task.init(KEY, blob_task.sample)
    x, y = blob_task.splits.validation
    loss, (_, metrics) = blob_task.loss(params, state, (x, y), KEY, train=False)
    params = jax.device_get(params)
    logits = np.maximum(x @ params["hidden"][0]["kernel"] + params["hidden"][0]["bias"], 0) @ params["head"]["kernel"]
    logits = np.asarray(logits + params["head"]["bias"], np.float64)
    expected = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y])
    assert loss == pytest.approx(expected, rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(np.mean(logits.argmax(1) == y))


@pytest.mark.parametrize("name", ["digits", "digits_cnn", "breast_cancer", "diabetes", "linear_regression"])
def test_every_task_learns(name):
    task = tasks.TASKS[name]()
    params, state = task.init(KEY, task.sample)
    optimizer = optax.adam(3e-3)
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[:128]), task.splits.train)

    @jax.jit
    def step(carry, i):
        params, state, opt_state = carry
        (loss, (state, _)), gradient = jax.value_and_grad(task.loss, has_aux=True)(params, state, batch, KEY, train=True)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), state, opt_state), loss

    losses = jax.lax.scan(step, (params, state, optimizer.init(params)), jnp.arange(50))[1]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("model", "change", "sentence"),
    [
        (mlp(outputs=2), lambda x, y: (x, y), r"labels must be one of 0\.\.1, the model's outputs; given: 0\.\.2"),
        (mlp(), lambda x, y: (x, y - 1), r"given: -1\.\.1"),
        (mlp(), lambda x, y: (x, y.astype(np.float32)), "labels must be integers; given: float32 in the train split"),
        (mlp(features=5), lambda x, y: (x, y), r"the model cannot be traced on inputs of shape \(4,\)"),
    ],
)
def test_what_does_not_fit_is_refused(model, change, sentence):
    splits = Splits(*(change(*part) for part in blobs()))
    with pytest.raises(ConfigError, match=sentence):
        tasks.classification(model, splits)


def test_a_model_without_a_class_axis_is_refused():
    flat = models.Model(lambda key: ({"w": jnp.ones(1)}, {}), lambda params, state, x, key, *, train: (x.sum(-1), state))
    with pytest.raises(ConfigError, match=r"must return logits of shape \(batch, classes\); given: \(2,\)"):
        tasks.classification(flat, blobs())


def test_plain_functions_are_a_model():
    linear = models.Model(
        lambda key: ({"w": jax.random.normal(key, (4, 3))}, {}),
        lambda params, state, x, key, *, train: (x @ params["w"], state),
    )
    task = tasks.classification(linear, blobs())
    params, state = task.init(KEY, task.sample)
    assert jnp.isfinite(task.loss(params, state, task.splits.train, KEY, train=True)[0])


def test_a_task_is_found_in_a_file_of_the_users(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def build(*, width: int = 3):\n    return width\n")
    assert tasks.find_task(f"{path}:build")(width=4) == 4
    with pytest.raises(ConfigError, match="has no function 'built'"):
        tasks.find_task(f"{path}:built")


def test_a_task_is_found_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my_tasks_module.py").write_text("def build():\n    return 7\n")
    monkeypatch.chdir(tmp_path)
    assert tasks.find_task("my_tasks_module:build")() == 7


def test_a_metric_that_is_not_measured_is_refused(blob_task):
    assert tasks.check_task(blob_task) == ["loss", "accuracy"]
    with pytest.raises(ConfigError, match="mine: its loss returns no metric 'acuracy'; did you mean 'accuracy'"):
        tasks.check_task(blob_task._replace(metric="acuracy"), where="mine")
    with pytest.raises(ConfigError, match="direction must be 'max' or 'min'; given: 'up'"):
        tasks.check_task(blob_task._replace(direction="up"))


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        ({"loss": 0.0}, "a metric cannot be named 'loss'"),
        ({"accuracy": np.zeros(3)}, r"accuracy must be one number, the mean over a batch; given: shape \(3,\)"),
    ],
)
def test_metrics_that_cannot_be_recorded_are_refused(blob_task, metrics, sentence):
    def loss(params, model_state, batch, key, *, train):
        return blob_task.loss(params, model_state, batch, key, train=train)[0], (
            model_state,
            jax.tree.map(jnp.asarray, metrics),
        )

    with pytest.raises(ConfigError, match=sentence):
        tasks.check_task(blob_task._replace(loss=loss))


def test_a_loss_setting_without_a_default_is_refused(blob_task):
    def loss(params, model_state, batch, key, *, train, strength: float):
        return blob_task.loss(params, model_state, batch, key, train=train)

    with pytest.raises(ConfigError, match="setting 'strength' needs a default"):
        tasks.check_task(blob_task._replace(loss=loss))


def test_a_static_setting_of_the_loss_reaches_it(blob_task):
    from vmaptune.config import resolve

    def loss(params, model_state, batch, key, *, train, power: int = 2):
        value, rest = blob_task.loss(params, model_state, batch, key, train=train)
        return value**power, rest

    found = []
    for power in (1, 2):
        tree = {"task": {"power": power}, "batch": {"size": 8}, "population": {"size": 1}}
        task = resolve(tree, task=blob_task._replace(loss=loss))[1]
        params, state = task.init(KEY, task.sample)
        found.append(float(task.loss(params, state, task.sample, KEY, train=False)[0]))
    assert found[1] == pytest.approx(found[0] ** 2, rel=1e-5)


def test_a_task_file_is_run_once(tmp_path):
    path = tmp_path / "numpy.py"  # a name that another module has
    log = tmp_path / "numpy.log"
    path.write_text(f"with open({str(log)!r}, 'a') as f:\n    f.write('x')\ndef build():\n    pass\n")
    for _ in range(3):
        tasks.find_task(f"{path}:build")
    assert log.read_text() == "x"
    import numpy

    assert hasattr(numpy, "array")


def test_layers_of_units_are_a_list_of_widths():
    def shapes(**settings):
        task = tasks.digits(**settings)
        return jax.tree.map(jax.numpy.shape, jax.eval_shape(task.init, KEY, task.sample)[0])

    assert shapes(layers=3, units=5) == shapes(hidden=(5, 5, 5)) != shapes()
    assert shapes(layers=0, units=5) == shapes()
