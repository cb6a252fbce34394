import csv
import math

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import vmaptune as vt
from vmaptune.config import resolve
from vmaptune.store.folder import RunFolder
from vmaptune.store.reading import read_events, read_lineage, read_run
from vmaptune.toml import load_config, read_toml


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One finished run of 8 members over 6 generations, shared by the tests that only look at it."""
    from tests.conftest import SMALL

    tree = SMALL | {"population": {"size": 8, "segment_steps": 10, "generations": 6}}
    return vt.tune(tree, out=tmp_path_factory.mktemp("run") / "it")


def test_the_loop_spelled_out_gives_the_same_history(run):
    """The same run written with the public functions, as in the README: every number must be the same."""
    config, task = load_config(run.run / "config.toml")
    recipe = config.recipe(task)
    space, optimizer, selector = recipe.space, recipe.optimizer, config.selector()
    segment = vt.make_segment(task, space, optimizer, recipe.schedules, steps=10, horizon=60, batch_size=32)
    evaluate = vt.make_evaluate(task)
    newborn = vt.make_newborn(task, optimizer)
    population = vt.init_population(task, space, optimizer, size=8)
    state = selector.init(vt.stream_key(0, vt.Stream.SELECT), space, 8)
    for generation in range(6):
        population, train = segment(population, generation)
        fitness = evaluate(population)["accuracy"]
        record = run.history[run.history["generation"] == generation]
        np.testing.assert_array_equal(population.trial, record["trial"])
        np.testing.assert_allclose(fitness, record["fitness"], atol=1e-6)
        np.testing.assert_allclose(train["loss"], record["train.loss"], rtol=1e-4)
        np.testing.assert_allclose(
            space.decode(population.genotype)["optimizer.learning_rate"], record["optimizer.learning_rate"], rtol=1e-6
        )
        view = vt.View.of(population, horizon=60, segment_steps=10)
        state, offspring = selector.update(vt.stream_key(0, vt.Stream.SELECT, generation), state, view, fitness)
        if generation < 5:
            np.testing.assert_array_equal(offspring.parent, record["parent"])
            population = vt.inherit(population, offspring, newborn)


def test_the_best_is_the_best_of_the_finished_trials(run):
    finished = run.history[run.history["step"] == 60]
    top = finished[finished["fitness"] == finished["fitness"].max()]
    winner = top[np.argmin(top["validation.loss"])]
    assert (run.best.trial, run.best.generation) == (winner["trial"], winner["generation"])
    assert run.best.validation["accuracy"] == pytest.approx(winner["validation.accuracy"], rel=1e-7)


def test_test_metrics_are_the_winners_on_the_test_split(run):
    _, task = load_config(run.run / "config.toml")
    best = run.best
    loss, (_, metrics) = task.loss(best.params, best.model_state, task.splits.test, jax.random.key(0), train=False)
    assert best.test == {
        "loss": pytest.approx(float(loss), rel=1e-5),
        "accuracy": pytest.approx(float(metrics["accuracy"]), rel=1e-6),
    }


def test_the_test_split_is_read_once(run, monkeypatch):
    """Finishing again neither reads the test split again nor changes what was written."""
    import vmaptune.loop as loop

    before = {path: path.read_bytes() for path in (run.run / "best").iterdir()}
    monkeypatch.setattr(loop, "test_metrics", lambda *_: pytest.fail("the test split was read a second time"))
    again = vt.tune(run.run / "config.toml", out=run.run, resume=True)
    assert again.as_json()["test"] == run.as_json()["test"]
    assert before == {path: path.read_bytes() for path in (run.run / "best").iterdir()}


def test_selection_never_sees_the_test_split(run, tmp_path):
    """Another test split changes the test result and nothing else."""
    config, task = load_config(run.run / "config.toml")
    x, y = task.splits.test
    wrong = task._replace(splits=task.splits._replace(test=(x, (y + 1) % 10)))
    other = vt.tune(config, task=wrong, out=tmp_path / "other")
    np.testing.assert_array_equal(other.history, run.history)
    assert other.best.test["accuracy"] < 0.2 < run.best.test["accuracy"]


def test_hyperparameters_toml_is_a_config_of_the_winner(run, tmp_path):
    path = run.run / "best" / "hyperparameters.toml"
    config, _ = load_config(path)
    assert config.space.dimension == 0
    values = {name: np.float32(value) for name, value in config.space.constants.items()}
    for name, value in run.best.hyperparameters.items():
        assert values[name] == np.float32(value)
    assert config.population.horizon == run.config.population.horizon
    alone = vt.tune(path, out=tmp_path / "alone")
    assert alone.status == "finished"
    assert len(alone.history) == 6


def test_schedule_csv_is_what_each_step_of_the_winners_lineage_used(run):
    rows = list(csv.DictReader((run.run / "best" / "schedule.csv").read_text().splitlines()))
    lineage = read_lineage(run.run / "history.db", run.best.trial, run.best.generation)
    assert [int(row["step"]) for row in rows] == list(range(run.best.step))
    for ancestor in lineage:
        lr, wd, warmup = (ancestor.values[k] for k in ("optimizer.learning_rate", "optimizer.weight_decay", "schedule.warmup"))
        for row in rows[ancestor.step - 10 : ancestor.step]:
            t = int(row["step"]) / 60
            shape = t / warmup if t < warmup else 0.5 * (1 + math.cos(math.pi * (t - warmup) / (1 - warmup)))
            assert float(row["optimizer.learning_rate"]) == pytest.approx(lr * shape, rel=1e-4, abs=1e-9)
            assert float(row["optimizer.weight_decay"]) == pytest.approx(wd, rel=1e-6)
            assert int(row["trial"]) == ancestor.trial


def test_weights_load_anywhere_and_predict_the_same(run):
    tensors = load_file(run.run / "best" / "weights.safetensors")
    x = load_config(run.run / "config.toml")[1].splits.validation[0]
    hidden = np.maximum(x @ tensors["params.hidden.0.kernel"] + tensors["params.hidden.0.bias"], 0)
    logits = hidden @ tensors["params.head.kernel"] + tensors["params.head.bias"]
    y = load_config(run.run / "config.toml")[1].splits.validation[1]
    assert np.mean(logits.argmax(1) == y) == pytest.approx(run.best.validation["accuracy"])


def test_the_folder_holds_the_config_that_was_run(run):
    assert resolve(read_toml(run.run / "config.toml"))[0].tree == run.config.tree


def test_every_trial_is_on_record(run):
    facts = read_run(RunFolder(run.run))
    assert facts["status"] == "finished"
    assert facts["result"]["test"] == run.as_json()["test"]
    generations = [e["generation"] for e in read_events(run.run / "history.db") if e["kind"] == "generation"]
    assert generations == list(range(6))
    assert len(run.history) == 8 * 6
    assert set(run.history["step"]) == {10, 20, 30, 40, 50, 60}
    assert run.member_steps == 8 * 60
    assert run.compilations["generations"] == 1


def test_sinks_hear_of_every_generation_in_order(tmp_path, small):
    class Ear:
        heard = ()

        def write(self, record):
            self.heard += ((record.generation, record.fitness.shape),)

        def close(self):
            pass

    ear = Ear()
    vt.tune(small, out=tmp_path / "run", sinks=[ear])
    assert ear.heard == tuple((g, (8,)) for g in range(4))


def test_a_changed_config_is_refused_with_the_difference(tmp_path, small):
    vt.tune(small, out=tmp_path / "run")
    small["optimizer"]["b1"] = 0.8
    with pytest.raises(vt.StoreError, match=r"cannot go on with this one: optimizer.b1: 0.9 -> 0.8$"):
        vt.tune(small, out=tmp_path / "run", resume=True)


def test_a_run_is_never_overwritten(tmp_path, small):
    first = vt.tune(small, out=tmp_path / "run")
    with pytest.raises(vt.StoreError, match="holds a run already"):
        vt.tune(small, out=tmp_path / "run")
    np.testing.assert_array_equal(vt.tune(small, out=tmp_path / "run", resume=True).history, first.history)


def test_all_members_failing_ends_the_run_and_keeps_the_history(tmp_path, small):
    small["optimizer"] = {"name": "sgd", "learning_rate": 1e30}
    with pytest.raises(vt.AllMembersFailed, match="generation 1: all 8 members failed: the training loss became NaN"):
        vt.tune(small, out=tmp_path / "run")
    facts = read_run(RunFolder(tmp_path / "run"))
    assert (facts["status"], facts["generation"]) == ("failed", 0)


def test_members_that_diverge_are_replaced_and_the_run_goes_on(tmp_path, small):
    small["optimizer"] = {"name": "sgd", "learning_rate": {"low": 1e-3, "high": 1e30, "scale": "log"}}
    result = vt.tune(small, out=tmp_path / "run")
    failed = result.history[np.isnan(result.history["fitness"])]
    assert len(failed) > 0
    last = result.history["generation"].max()
    for row in failed[failed["generation"] < last]:
        assert row["parent"] != row["slot"]
        parent = result.history[(result.history["generation"] == row["generation"]) & (result.history["slot"] == row["parent"])]
        assert np.isfinite(parent["fitness"]).all()
    assert np.isfinite(result.best.validation["loss"])


def test_a_task_that_is_minimised(tmp_path, small, blob_task):
    small["task"] = {}
    result = vt.tune(small, task=blob_task._replace(metric="loss", direction="min"), out=tmp_path / "run")
    finished = result.history[result.history["step"] == 20]
    assert result.best.validation["loss"] == pytest.approx(finished["validation.loss"].min(), rel=1e-6)
    np.testing.assert_allclose(result.history["fitness"], -result.history["validation.loss"])


def test_one_member_and_nothing_to_search(tmp_path, blob_task):
    tree = {
        "optimizer": {"learning_rate": 0.01},
        "batch": {"size": 8},
        "population": {"size": 1, "segment_steps": 5, "generations": 3},
    }
    result = vt.tune(tree, task=blob_task, out=tmp_path / "run")
    assert result.best.hyperparameters == {}
    assert len(result.history) == 3


def test_a_sparse_checkpoint_resumes_to_the_same(tmp_path, small):
    whole = vt.tune(small, out=tmp_path / "whole")
    small["checkpoint"] = {"every": 3}
    stops = iter([False, True])
    part = vt.tune(small, out=tmp_path / "part", should_stop=lambda: next(stops))
    assert part.status == "interrupted"
    assert part.best.test is None
    part = vt.tune(small, out=tmp_path / "part", resume=True)
    np.testing.assert_array_equal(part.history, whole.history)


def test_the_result_is_strict_json(run):
    import json

    text = json.dumps(run.as_json(), allow_nan=False)
    assert json.loads(text)["best"]["hyperparameters"].keys() == run.best.hyperparameters.keys()


def test_history_becomes_a_data_frame(run):
    frame = run.history.to_pandas()
    assert frame.shape == (48, len(run.history.dtype.names))
    assert frame["validation.accuracy"].max() == run.history["validation.accuracy"].max()


def test_nothing_to_search_is_said(tmp_path, blob_task):
    tree = {"batch": {"size": 8}, "population": {"size": 2, "segment_steps": 2, "generations": 2}}
    with pytest.warns(vt.VmaptuneWarning, match="nothing is searched: all 2 members have the same settings"):
        vt.tune(tree, task=blob_task, out=tmp_path / "run")


def test_a_run_keeps_no_task_alive(tmp_path, small):
    """A notebook that calls tune again and again must not fill memory with data sets."""
    import gc
    import weakref

    from tests.conftest import blobs
    from vmaptune import models, tasks

    splits = blobs()
    inputs = splits.train[0]
    task = tasks.classification(models.from_nnx(lambda rngs: models.MLP(4, [8], 3, rngs=rngs)), splits)
    small["task"] = {}
    vt.tune(small, task=task, out=tmp_path / "run")
    alive = weakref.ref(inputs)
    del splits, inputs, task
    gc.collect()
    assert alive() is None
