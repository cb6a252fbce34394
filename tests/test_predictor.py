"""Winners in use: raw data in, answers out, by the same numbers as in training, and without the data of the training."""

from __future__ import annotations

import csv
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest
from click.testing import CliRunner
from PIL import Image
from safetensors.numpy import load_file
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

import vmaptune as vt
from tests.winners import finished
from vmaptune.analysis.orbax_weights import export_orbax
from vmaptune.analysis.raw_inputs import inputs_from
from vmaptune.cli.main import main
from vmaptune.config import resolve
from vmaptune.data.columns import fitted, input_names, inputs_of
from vmaptune.data.preparation import Preparation
from vmaptune.data.splits import split_rows
from vmaptune.data.tables import frame_of
from vmaptune.errors import ConfigError, StoreError
from vmaptune.store.folder import RunFolder, write_text
from vmaptune.store.history import History
from vmaptune.store.reading import read_run
from vmaptune.toml import to_toml
from vmaptune.winner import write_preprocessing, write_weights

RNG = np.random.default_rng(0)
N = 60


def trained(folder, tree, task=None):
    """A run folder as a finished run leaves it, but with fresh weights: the config, the task and the weights."""
    config, task = resolve(tree, task=task)
    folder = RunFolder(folder)
    write_text(folder.config, to_toml(config, task))
    row = {"id": "x", "seed": 0, "metric": task.metric, "direction": task.direction, "size": 1, "segment_steps": 1}
    History.create(folder.history, row | {"generations": 1, "config": config.tree, "environment": {}}, [])
    params, state = jax.device_get(jax.jit(task.init)(jax.random.key(1), task.sample))
    write_preprocessing(folder, task)
    write_weights(folder, params, state)
    return task, params, state


@pytest.fixture(scope="module")
def run():
    """A finished run of digits, and what its history says of the result."""
    return finished(), read_run(RunFolder(finished()))["result"]


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)[0][:70]


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_weights_on_file_in_plain_jax_say_the_same(run, digits):
    w = load_file(run[0] / "best" / "weights.safetensors")
    inputs = jnp.asarray(digits / 16.0, jnp.float32)
    hidden = jax.nn.relu(inputs @ w["params.hidden.0.kernel"] + w["params.hidden.0.bias"][None])
    logits = np.asarray(hidden @ w["params.head.kernel"] + w["params.head.bias"][None], np.float64)
    predictor = vt.load(run[0])
    np.testing.assert_allclose(predictor.predict_proba(digits), softmax(logits), atol=1e-6)
    np.testing.assert_array_equal(predictor(digits), logits.argmax(axis=1))
    np.testing.assert_allclose(predictor.apply(predictor.params, predictor.model_state, inputs), logits, atol=1e-5)
    assert (predictor.metric, predictor.validation, predictor.test) == (
        "accuracy",
        run[1]["best"]["validation"],
        run[1]["test"],
    )


def test_its_score_on_test_is_the_one_on_record(run):
    inputs, labels = load_digits(return_X_y=True)
    rows = split_rows(len(labels), validation=0.2, test=0.2, seed=0, stratify=labels)[2]
    right = vt.load(run[0]).predict(inputs[rows]) == labels[rows]
    assert right.mean() == pytest.approx(run[1]["test"]["accuracy"], abs=1e-6)


def test_any_number_of_examples_is_answered_alike(run, digits):
    predictor = vt.load(run[0])
    whole = predictor.predict_proba(np.tile(digits, (16, 1)))  # 1,120: more than are computed at once
    for some in (slice(0, 1), slice(0, 3), slice(0, 70), slice(1050, 1120)):
        np.testing.assert_allclose(predictor.predict_proba(np.tile(digits, (16, 1))[some]), whole[some], atol=1e-6)
    np.testing.assert_allclose(predictor.predict_proba(digits.reshape(-1, 8, 8)), whole[:70], atol=1e-6)


def test_weights_as_orbax_are_those_on_file(run, tmp_path):
    import orbax.checkpoint as ocp

    where = export_orbax(run[0], tmp_path / "orbax")
    with ocp.StandardCheckpointer() as reader:
        found = reader.restore(where.resolve())
    expected = load_file(run[0] / "best" / "weights.safetensors")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    with pytest.raises(StoreError, match="is there already"):
        export_orbax(run[0], tmp_path / "orbax")


def table(folder):
    """Files of people: training, and another that is the test split."""
    for name in ("people", "others"):
        frame = pl.DataFrame(
            {
                "age": [None if u < 0.1 else float(u * 60) for u in RNG.random(N)],
                "city": RNG.choice(["Bern", "Oslo"], N),
                "ill": RNG.choice(["no", "yes"], N),
                "pay": RNG.normal(3e4, 1e4, N),
            }
        )
        frame.write_csv(folder / f"{name}.csv")
    return {"path": str(folder / "people.csv"), "test_path": str(folder / "others.csv")}


def arrays(folder, images=False, real=False):
    shape = (5, 4) if images else (3,)
    x = {p: RNG.integers(0, 256, (N, *shape)).astype(np.uint8) if images else RNG.normal(7, 3, (N, *shape)) for p in "ab"}
    y = {p: RNG.normal(50, 9, (N, 2)).astype(np.float32) if real else np.arange(N) % 3 * 10 for p in "ab"}
    x = {p: v if images else v.astype(np.float32) for p, v in x.items()}
    np.savez(folder / "data.npz", x_train=x["a"], y_train=y["a"], x_test=x["b"], y_test=y["b"])
    return x["b"], y["b"]


def case(kind, folder):
    """A task, raw data that are its test split, and the names of its classes, or the raw targets of that split."""
    if kind == "table":
        tree = {"name": "table", **table(folder), "target": "ill", "hidden": [4]}
        return tree, pl.read_csv(folder / "others.csv").drop("ill"), ["no", "yes"]
    if kind == "binary table":
        tree = {"name": "table", **table(folder), "target": "ill", "loss": "binary_cross_entropy", "hidden": [4]}
        return tree, pd.read_csv(folder / "others.csv"), ["no", "yes"]
    if kind == "numbers of a table":
        tree = {"name": "table", **table(folder), "target": "pay", "hidden": [4]}
        return tree, pl.read_csv(folder / "others.csv").to_dicts(), pl.read_csv(folder / "others.csv")["pay"].to_numpy()
    if kind == "numbers of arrays":
        raw = arrays(folder, real=True)[0]
        return {"name": "arrays", "path": str(folder / "data.npz"), "hidden": [4]}, raw, np.load(folder / "data.npz")["y_test"]
    if kind == "pixels":
        tree = {"name": "arrays", "path": str(folder / "data.npz"), "channels": [2], "norm": "batch"}
        return tree, arrays(folder, images=True)[0], [0, 10, 20]
    if kind == "images":
        for part in ("train", "test"):
            for i in range(20):
                path = folder / "data" / part / ("cat", "dog")[i % 2] / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(RNG.integers(0, 256, (6, 5), np.uint8)).save(path)
        files = sorted((folder / "data" / "test").rglob("*.png"))
        tree = {"name": "images", "path": str(folder / "data"), "channels": [2], "size": 4}
        return tree, files, ["cat", "dog"]
    if kind == "breast_cancer":
        x, y = load_breast_cancer(return_X_y=True)
        rows = split_rows(len(y), validation=0.2, test=0.2, seed=0, stratify=y)[2]
        return {"name": "breast_cancer", "hidden": [4]}, x[rows], ["malignant", "benign"]
    x, y = load_diabetes(return_X_y=True, scaled=False)
    parts = split_rows(len(y), validation=0.2, test=0.2, seed=0)
    return {"name": "diabetes", "hidden": [4]}, x[parts[2]], y[parts[2]]


KINDS = ["table", "binary table", "numbers of a table", "numbers of arrays", "pixels", "images", "breast_cancer"]


@pytest.mark.parametrize("kind", [*KINDS, "diabetes"])
def test_raw_data_become_the_inputs_of_the_training(tmp_path, kind):
    tree, raw, known = case(kind, tmp_path)
    task, params, state = trained(tmp_path / "run", {"task": tree, "batch": {"size": 4}})
    inputs, targets = task.splits.test
    outputs = np.asarray(jax.jit(task.serving.apply)(params, state, inputs))
    held = tmp_path / "data"
    for file in [*tmp_path.glob("*.csv"), *tmp_path.glob("*.npz"), *([held / "train"] if held.is_dir() else [])]:
        shutil.rmtree(file) if file.is_dir() else file.unlink()  # what it was trained on is gone
    predictor = vt.load(tmp_path / "run")
    found = predictor.predict(raw)
    assert len(found) == len(targets)
    if isinstance(known, list):
        assert predictor.classes.tolist() == known
        logits = outputs if outputs.shape[1] > 1 else np.concatenate([-outputs / 2, outputs / 2], axis=1)
        np.testing.assert_allclose(predictor.predict_proba(raw), softmax(logits), atol=1e-5)
        assert found.tolist() == [known[i] for i in predictor.predict_proba(raw).argmax(axis=1)]
    else:
        scale = known.std(axis=0) / targets.std(axis=0)  # from the raw targets of the test split and those of the task
        expected = outputs * scale + known.mean(axis=0) - scale * targets.mean(axis=0)
        np.testing.assert_allclose(found.reshape(outputs.shape), expected, rtol=1e-3)
        with pytest.raises(ConfigError, match="there are no probabilities: the task has no classes"):
            predictor.predict_proba(raw)


def test_pixels_are_pixels_also_as_other_whole_numbers():
    preparation = Preparation("arrays", (3,), 2, pixels=True)
    raw = np.array([[0, 51, 255]])
    for given in (raw, raw.astype(np.uint8), pd.DataFrame(raw), (raw / 255).astype(np.float32)):
        np.testing.assert_allclose(inputs_from(given, preparation).values[0], [[0, 0.2, 1]], rtol=1e-6)
    with pytest.raises(ConfigError, match=r"data: pixels must lie in 0..255; given: 0..256"):
        inputs_from(np.array([[0, 3, 256]]), preparation)


def test_few_rows_of_a_file_are_read_as_those_of_the_training_were(tmp_path):
    kinds = [("01", "2024-01-02", "True"), ("A3", "", "false")] * 20
    rows = [f"{','.join(kind)},{i}" for i, kind in enumerate(kinds)]
    header = "code,day,flag,size"
    (tmp_path / "all.csv").write_text("\n".join([header, *rows]))
    frame = frame_of(tmp_path / "all.csv", "all")
    learnt = fitted(frame, frame.columns)
    assert [category.name for category in learnt.categories] == ["code", "flag"]
    preparation = Preparation("table", (len(input_names(learnt)),), 2, table=learnt)
    expected = inputs_of(frame, learnt)
    for i in (0, 1):  # alone, one looks as if code were a number, the other as if day were no date
        (tmp_path / "one.csv").write_text(f"{header}\n{rows[i]}\n")
        np.testing.assert_array_equal(inputs_from(tmp_path / "one.csv", preparation).values[0], expected[i : i + 1])
    (tmp_path / "none.csv").write_text(f"{header}\n")
    with pytest.raises(ConfigError, match="none: holds no example"):
        inputs_from(tmp_path / "none.csv", preparation, "none")


def test_texts_among_numbers_are_missing_and_that_is_said():
    frame = pl.DataFrame({"age": [1.0, 2.0, None, 4.0], "pay": [3.0, 1.0, 2.0, 5.0]})
    learnt = fitted(frame, frame.columns)
    preparation = Preparation("table", (len(input_names(learnt)),), 2, table=learnt)
    odd = {"age": ["7", "abc", "?"], "pay": [1.0, 1.0, 1.0]}
    with pytest.warns(vt.VmaptuneWarning, match=r"new\.csv: column 'age' .* but also 'abc': 2 values taken for missing"):
        found = inputs_from(odd, preparation, "new.csv").values[0]
    np.testing.assert_array_equal(found, inputs_of(pl.DataFrame(odd | {"age": [7.0, None, None]}), learnt))


def test_a_series_is_gone_on_from_every_window(tmp_path):
    t = np.arange(300.0)
    pl.DataFrame({"day": t, "wind": np.sin(t) * 4 + 9, "rain": np.cos(t / 3) - 5}).write_csv(tmp_path / "s.csv")
    tree = {"name": "series", "path": str(tmp_path / "s.csv"), "target": "wind", "drop": ["day"], "window": 6, "horizon": 2}
    task, params, state = trained(tmp_path / "run", {"task": tree | {"model": "mlp", "width": 4}, "batch": {"size": 4}})
    last = pl.read_csv(tmp_path / "s.csv")[270:]
    last.write_csv(tmp_path / "last.csv")
    (tmp_path / "s.csv").unlink()
    outputs = np.asarray(jax.jit(task.serving.apply)(params, state, task.splits.test[0]))
    predictor = vt.load(tmp_path / "run")
    of_file = predictor.predict(tmp_path / "last.csv")
    assert of_file.shape == (30 - 6 + 1, 2)  # the windows of the test split, and two whose future nobody knows
    mean, std = (np.sin(t[:240]) * 4 + 9).mean(), (np.sin(t[:240]) * 4 + 9).std()
    np.testing.assert_allclose(of_file[:-2], outputs * std + mean, rtol=1e-4)
    np.testing.assert_allclose(predictor.predict(last.select("wind", "rain").to_numpy()), of_file, rtol=1e-6)
    with pytest.raises(ConfigError, match="there is no column 'rain'"):
        predictor.predict(last.drop("rain"))
    with pytest.raises(ConfigError, match="expected 6 steps or more of 2 columns; given: 5 of 2"):
        predictor.predict(np.zeros((5, 2)))


def test_what_follows_a_text(tmp_path):
    (tmp_path / "t.txt").write_text("the cat sat on the mat. " * 20)
    tree = {"name": "text", "path": str(tmp_path / "t.txt"), "length": 8, "width": 4, "embedding": 3}
    task, params, state = trained(tmp_path / "run", {"task": tree, "batch": {"size": 4}})
    (tmp_path / "t.txt").unlink()
    predictor = vt.load(tmp_path / "run")
    window, _ = task.splits.test
    raw = ["".join(predictor.classes[i] for i in row) for row in window[:3].tolist()]
    outputs = np.asarray(jax.jit(task.serving.apply)(params, state, window[:3]))[:, -1]
    np.testing.assert_allclose(predictor.predict_proba(raw), softmax(outputs), atol=1e-5)
    assert predictor.predict(["xxxxx" + raw[0]]).tolist() == predictor.predict(raw[0]).tolist()  # the last 8 are seen
    with pytest.raises(ConfigError, match="a text is empty"):
        predictor.predict([""])


def test_a_task_passed_from_python_is_passed_again(tmp_path, blob_task):
    trained(tmp_path / "run", {"batch": {"size": 4}, "init": {"freeze": "head.*"}}, blob_task)
    inputs = blob_task.splits.test[0]
    with pytest.raises(ConfigError, match=r"this run's task was passed from Python; go on there: vmaptune.load\("):
        vt.load(tmp_path / "run")
    found = vt.load(tmp_path / "run", task=blob_task).predict_proba(inputs)
    frozen = load_file(tmp_path / "run" / "best" / "weights.safetensors")
    assert {"params.head.kernel", "params.hidden.0.kernel"} <= frozen.keys()
    hidden = np.maximum(inputs @ frozen["params.hidden.0.kernel"] + frozen["params.hidden.0.bias"], 0)
    np.testing.assert_allclose(found, softmax(hidden @ frozen["params.head.kernel"] + frozen["params.head.bias"]), atol=1e-5)
    plain = blob_task._replace(serving=None, predict=lambda p, s, batch: blob_task.serving.apply(p, s, batch[0]))
    plain = plain._replace(score=lambda outputs, data: {"first": outputs[0, 0]})
    assert vt.load(tmp_path / "run", task=plain).predict((inputs,)).shape == (len(inputs), 3)


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (np.zeros((2, 63)), r"expected an array of shape \('n', 64\); given: \(2, 63\)"),
        (np.zeros(64), r"given: \(64,\): for one example alone, data\[None\]"),
        (np.full((1, 64), np.nan), "holds NaN or infinite values"),
        (np.full((1, 64), "a"), "expected numbers; given: <U1"),
        ("nowhere.npz", "no such file or folder: nowhere.npz"),
        ("nowhere.csv", "there is no file 'nowhere.csv'"),
        ({"a": [1.0]}, r"given: \(1, 1\)"),
        (np.zeros((0, 64)), "holds no example"),
    ],
)
def test_data_that_do_not_fit_are_refused_in_a_sentence(run, raw, sentence):
    with pytest.raises(ConfigError, match=sentence):
        vt.load(run[0]).predict(raw)


def test_other_weights_and_unfinished_runs_are_refused(run, tmp_path):
    other = tmp_path / "run"
    shutil.copytree(run[0], other)
    (other / "config.toml").unlink()
    with pytest.raises(StoreError, match="not a run folder"):
        vt.load(other)
    shutil.copy(run[0] / "config.toml", other)
    with pytest.raises(StoreError, match="there is no ensemble yet"):
        vt.load(other, ensemble=2)
    text = (other / "best" / "preprocessing.json").read_text()
    (other / "best" / "preprocessing.json").write_text(text.replace('"outputs": 10', '"outputs": 11'))
    with pytest.raises(
        StoreError, match=r"of another network: expected params.head.bias of shape \(11,\); given: shape \(10,\)"
    ):
        vt.load(other)
    (other / "best" / "preprocessing.json").write_text("{")
    with pytest.raises(ConfigError, match="does not say how the winner's data were prepared"):
        vt.load(other)
    (other / "best" / "weights.safetensors").unlink()
    with pytest.raises(StoreError, match="the run has left no winner yet"):
        vt.load(other)


def test_predictions_as_a_file(run, tmp_path, digits):
    np.savez(tmp_path / "new.npz", x=digits[:4])
    command = ["predict", str(run[0]), str(tmp_path / "new.npz")]
    result = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "out.csv")])
    assert result.exit_code == 0, result.output
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["prediction", *(f"probability {i}" for i in range(10))]
    expected = vt.load(run[0]).predict_proba(digits[:4])
    np.testing.assert_array_equal([[np.float32(row[f"probability {i}"]) for i in range(10)] for row in rows], expected)
    assert CliRunner().invoke(main, command).output == (tmp_path / "out.csv").read_text()
    wrong = CliRunner().invoke(main, ["predict", str(run[0]), str(tmp_path / "out.csv")])
    assert (wrong.exit_code, "given: (4, 11)" in wrong.output) == (2, True)
