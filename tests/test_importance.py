"""Importance on scores whose cause is known, and runs as Optuna studies."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from tests.histories import write_run
from vmaptune.analysis.facts import read_facts
from vmaptune.analysis.importance import MOST, importance_of
from vmaptune.analysis.optuna_study import study_of
from vmaptune.errors import StoreError

AXES = {
    "optimizer.learning_rate": {"low": 1e-4, "high": 1e-1, "scale": "log"},
    "task.dropout": {"low": 0.0, "high": 0.5},
    "task.layers": {"low": 1, "high": 4, "integer": True},
    "optimizer.b1": {"choices": [0.5, 0.9, 0.99]},
}


def sampled(n, generations=2, seed=0):
    """Values of each axis: the same in every generation."""
    rng = np.random.default_rng(seed)
    row = {
        "optimizer.learning_rate": 10 ** rng.uniform(-4, -1, n),
        "task.dropout": rng.uniform(0, 0.5, n),
        "task.layers": rng.integers(1, 5, n),
        "optimizer.b1": rng.choice([0.5, 0.9, 0.99], n),
    }
    return {name: np.tile(values, (generations, 1)) for name, values in row.items()}


def scored(folder, n, score, **more):
    values = sampled(n)
    loss = score(values)
    return write_run(folder, {"train.loss": loss, "validation.loss": loss}, axes=AXES, values=values, **more)


def far(values):
    """A loss that the learning rate alone decides."""
    return (np.log10(values["optimizer.learning_rate"]) + 2.5) ** 2


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    return scored(tmp_path_factory.mktemp("runs") / "causal", 60, far)


def test_the_axis_that_decides_has_the_largest_share(causal):
    found = importance_of(read_facts(causal))
    assert next(iter(found.shares)) == "optimizer.learning_rate"
    assert found.shares["optimizer.learning_rate"] > 0.8
    assert sum(found.shares.values()) == pytest.approx(1)
    assert (found.trials, found.of, found.reason) == (60, 60, "")


def test_the_same_question_has_the_same_answer(causal):
    assert importance_of(read_facts(causal)) == importance_of(read_facts(causal))


@pytest.mark.parametrize(
    ("n", "score", "reason"),
    [
        (6, far, "6 sound trials; it takes 10 to tell anything"),
        (12, lambda v: np.ones_like(far(v)), "all trials have the same score"),
    ],
)
def test_where_nothing_can_be_said_it_says_why(tmp_path, n, score, reason):
    found = importance_of(read_facts(scored(tmp_path / "run", n, score)))
    assert (found.shares, found.reason) == (None, reason)


def test_of_many_trials_an_even_sample_is_asked(tmp_path):
    found = importance_of(read_facts(scored(tmp_path / "run", MOST + 50, far)))
    assert (found.trials, found.of) == (MOST, MOST + 50)
    assert next(iter(found.shares)) == "optimizer.learning_rate"


# ------------------------------------------------------------------------------------------------------------- studies


def test_a_study_has_the_trials_of_the_history(causal):
    study, facts = study_of(causal), read_facts(causal)
    assert (study.study_name, study.direction.name, study.metric_names) == ("causal", "MINIMIZE", ["validation loss"])
    assert [t.user_attrs["trial"] for t in study.trials] == facts.trials["trial"].tolist()
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    assert study.best_trial.user_attrs["trial"] == facts.best["trial"]
    assert study.best_value == pytest.approx(facts.best["validation.loss"])
    first = study.trials[0]
    assert first.distributions == {
        "optimizer.learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
        "task.dropout": FloatDistribution(0.0, 0.5),
        "task.layers": IntDistribution(1, 4),
        "optimizer.b1": CategoricalDistribution((0.5, 0.9, 0.99)),
    }
    for name, value in first.params.items():
        assert value == pytest.approx(float(facts.columns[name][0]))
    assert isinstance(first.params["task.layers"], int)
    assert list(first.intermediate_values) == [2, 4]


def test_copies_are_pruned_or_complete_and_what_diverged_fails(tmp_path):
    score = np.array([[1.0, 2.0, 3.0], [0.5, 0.4, 9.0]])
    parents = [[0, 0, 2], [0, 1, 2]]
    failed = np.array([[False, False, False], [False, False, True]])
    axes = {"optimizer.learning_rate": AXES["optimizer.learning_rate"]}
    values = {"optimizer.learning_rate": np.full((2, 3), 0.01)}
    metrics = {"train.loss": score, "validation.loss": score}
    folder = write_run(tmp_path / "run", metrics, axes=axes, values=values, parents=parents, failed=failed)
    trials = study_of(folder).trials
    assert [t.state.name for t in trials] == ["COMPLETE", "PRUNED", "FAIL", "COMPLETE"]
    assert [t.value for t in trials] == pytest.approx([0.5, 2.0, None, 0.4])
    assert trials[3].user_attrs["parent"] == 0
    assert trials[3].intermediate_values == pytest.approx({4: 0.4})
    assert "parent" not in trials[0].user_attrs


def test_trials_of_a_going_run_are_running(tmp_path):
    folder = scored(tmp_path / "run", 4, far, status="running", planned=9)
    assert {t.state for t in study_of(folder).trials} == {TrialState.RUNNING}


def test_a_family_is_called_by_its_name(tmp_path):
    config = {"schedule": {"name": ["cosine", "linear"]}}
    values = {"schedule.family": np.array([[0.0, 1.0]])}
    loss = np.ones((1, 2))
    metrics = {"train.loss": loss, "validation.loss": loss}
    folder = write_run(tmp_path / "run", metrics, axes={"schedule.family": 0}, values=values, config=config)
    assert [t.params["schedule.family"] for t in study_of(folder).trials] == ["cosine", "linear"]


def test_a_storage_keeps_the_study_and_refuses_a_second_one_of_its_name(causal, tmp_path):
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log")))
    study_of(causal, storage=storage, name="kept")
    loaded = optuna.load_study(study_name="kept", storage=storage)
    assert [t.params for t in loaded.trials] == [t.params for t in study_of(causal).trials]
    with pytest.raises(StoreError, match="holds a study called 'kept' already"):
        study_of(causal, storage=storage, name="kept")


def test_a_storage_that_is_none_is_refused(causal):
    with pytest.raises(StoreError, match="cannot be used as an Optuna storage"):
        study_of(causal, storage="nonsense://x")
