"""Ensembles: no worse than the best on validation by construction, made of the run's own weights, and read once on test."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing

import jax
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

import vmaptune as vt
from tests.winners import finished
from vmaptune import models, tasks
from vmaptune.analysis.ensemble import relatives
from vmaptune.analysis.judging import Judge, Score
from vmaptune.analysis.picking import mix_greedily, pick_greedily
from vmaptune.analysis.weights import Candidate, read_candidates
from vmaptune.cli.main import main
from vmaptune.data import embedded
from vmaptune.errors import ConfigError, StoreError
from vmaptune.store.folder import RunFolder
from vmaptune.store.reading import read_generation
from vmaptune.store.reading import test_reads as reads_of
from vmaptune.toml import load_config


@pytest.fixture(scope="module")
def run():
    """A finished run of digits whose members are relatives."""
    return finished()


@pytest.fixture
def copy(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


# ------------------------------------------------------------------------------------------------------------- choosing


def scores_of(targets):
    """Minus the squared error of mean answers."""
    return lambda several: [Score(-float(np.mean((a - targets) ** 2)), 0.0) for a in several]


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 9))
def test_picks_are_those_of_the_greedy_choice_and_no_worse_than_the_best(seed, m, size):
    rng = np.random.default_rng(seed)
    targets, score = rng.normal(size=8), None
    answers = rng.normal(size=(m, 8)).astype(np.float32)
    score = scores_of(targets)
    answers = answers[np.argsort([-s.fitness for s in score(answers)])]
    found = pick_greedily(answers, score, size)
    assert len(found.picks) == len(found.scores) == size
    for i in range(size):
        together = score([answers[found.picks[: i + 1]].mean(axis=0)])[0]
        assert found.scores[i].fitness == pytest.approx(together.fitness, abs=1e-5)
        if found.picks[:i] != list(range(i)):  # the best few are behind it: each pick is the best there is
            others = score([(answers[found.picks[:i]].sum(axis=0) + a) / (i + 1) for a in answers])
            assert found.scores[i].fitness >= max(others).fitness - 1e-5
    assert found.scores[found.best - 1] == max(found.scores) >= score(answers[:1])[0]


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_a_soup_is_the_mean_of_its_members_and_never_worse(seed, m):
    rng = np.random.default_rng(seed)
    targets = {"w": rng.normal(size=4), "b": {"c": rng.normal(size=(2, 2))}}
    members = [jax.tree.map(lambda t: (t + rng.normal(size=t.shape)).astype(np.float32), targets) for _ in range(m)]

    def score(params):
        errors = jax.tree.map(lambda p, t: float(np.sum((p - t) ** 2)), params, targets)
        return Score(-sum(jax.tree.leaves(errors)), 0.0)

    members.sort(key=score, reverse=True)
    found, mean = mix_greedily(members, score, 4)
    assert found.scores == sorted(found.scores)
    assert len(found.picks) == len({*found.picks}) <= 4
    expected = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *[members[i] for i in found.picks])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), mean, expected)
    for i, member in enumerate(members):  # those that are not in it would not have helped, when they were asked
        if i not in found.picks and len(found.picks) < 4:
            before = [j for j in found.picks if j < i]
            mixed = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *[members[j] for j in before], member)
            assert score(mixed).fitness <= found.scores[len(before) - 1].fitness + 1e-5


# -------------------------------------------------------------------------------------------------------------- judging


def test_members_of_the_checkpoint_are_those_of_the_record(run):
    config, task = load_config(run / "config.toml")
    folder = RunFolder(run)
    judge = Judge(task, config.tree, "validation", "run")
    candidates = read_candidates(folder, config, task)
    rows = {(row["trial"], row["step"]): row for row in read_generation(folder.history, 3)}
    assert {(c.trial, c.step) for c in candidates} == rows.keys()  # the winner is among the last generation's
    for candidate in candidates:
        found = judge.measure(judge.answers(candidate.params, candidate.model_state)[None])[0]
        for name in ("loss", "accuracy"):
            assert found[name] == pytest.approx(rows[candidate.trial, candidate.step][f"validation.{name}"], abs=1e-5)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_mean_probabilities_are_judged_as_scikit_learn_does(loss):
    outputs = 2 if loss == "cross_entropy" else 1
    model = models.from_nnx(lambda rngs: models.MLP(30, [4], outputs, rngs=rngs))
    task = tasks.classification(model, embedded.breast_cancer(), loss=loss, metric="roc_auc")
    judge = Judge(task, {}, "validation", "run")
    answers = np.stack([judge.answers(*jax.jit(task.init)(jax.random.key(i), None)) for i in range(2)])
    mean = answers.mean(axis=0)
    labels = task.splits.validation[1]
    found = judge.measure(mean[None])[0]
    assert found["roc_auc"] == pytest.approx(roc_auc_score(labels, mean[:, 1]), abs=1e-5)
    assert found["loss"] == pytest.approx(log_loss(labels, mean), abs=1e-4)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, mean[:, 1] > 0.5), abs=1e-6)
    assert judge.score(found) == (found["roc_auc"], -found["loss"])


def test_outputs_of_a_regression_are_averaged_as_they_are():
    model = models.from_nnx(lambda rngs: models.MLP(10, [4], 1, rngs=rngs))
    task = tasks.regression(model, embedded.diabetes(), metric="rmse")
    judge = Judge(task, {}, "validation", "run")
    answers = np.random.default_rng(0).normal(size=(1, len(task.splits.validation[1]), 1)).astype(np.float32)
    found = judge.measure(answers)[0]
    error = answers[0, :, 0] - task.splits.validation[1]
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
    assert judge.score(found).fitness == -found["rmse"]  # less is better


# ------------------------------------------------------------------------------------------------------------ of a run


def test_an_ensemble_is_no_worse_on_validation_and_test_is_read_once_for_it(copy):
    history = RunFolder(copy).history
    assert [read["what"] for read in reads_of(history)] == ["best"]
    found = vt.ensemble(copy, size=6)
    single, both = (found.validation[name] for name in ("single", "ensemble"))
    assert (both["accuracy"], -both["loss"]) >= (single["accuracy"], -single["loss"])
    assert 1 <= found.best <= len(found.picks) == 6
    assert sum(found.members.values()) == found.best
    assert len(found.members) > 1  # else nothing would be read
    last = reads_of(history)[-1]
    assert (found.test_reads, last["what"], last["metrics"]) == (2, "ensemble", found.test["ensemble"])
    assert found.test["single"] == reads_of(history)[0]["metrics"]
    predictions_are_the_mean_of_the_files(copy)
    assert vt.ensemble(copy, size=6).as_json() == found.as_json()  # the same is not read twice
    with closing(sqlite3.connect(history)) as db, db:  # as if it had been another one
        db.execute("""UPDATE event SET detail = json_set(detail, '$.members', '[0]') WHERE detail LIKE '%"ensemble"%'""")
    assert (vt.ensemble(copy, size=6).test, len(reads_of(history))) == (None, 2)
    assert vt.ensemble(copy, size=6, again=True).test_reads == 3


def test_only_the_winner_itself_needs_no_reading(copy):
    alone = vt.ensemble(copy, size=1)
    assert (alone.test["ensemble"], alone.test_reads) == (alone.test["single"], 1)
    with closing(sqlite3.connect(RunFolder(copy).history)) as db, db:  # as if the winner were its trial at another step
        db.execute("UPDATE run SET result = json_set(result, '$.best.step', 1)")
    assert vt.ensemble(copy, size=1).test_reads == 2


def predictions_are_the_mean_of_the_files(copy):
    raw = load_digits().data[:20]
    facts = json.loads((copy / "ensemble" / "ensemble.json").read_text())

    def alone(name):
        w = load_file(copy / "ensemble" / f"{name}.safetensors")
        hidden = np.maximum((raw / 16) @ w["params.hidden.0.kernel"] + w["params.hidden.0.bias"], 0)
        e = np.exp(hidden @ w["params.head.kernel"] + w["params.head.bias"])
        return e / e.sum(axis=1, keepdims=True)

    for k in (1, 3, 6):
        expected = np.mean([alone(name) for name in facts["picks"][:k]], axis=0)
        np.testing.assert_allclose(vt.load(copy, ensemble=k).predict_proba(raw), expected, atol=1e-6)
    with pytest.raises(StoreError, match=r"has 6 picks; for 7: vmaptune ensemble .* --method greedy --size 7"):
        vt.load(copy, ensemble=7)


def test_a_soup_is_one_network(copy):
    found = vt.ensemble(copy, method="soup")
    assert found.validation["ensemble"]["accuracy"] >= found.validation["single"]["accuracy"]
    predictor = vt.load(copy, ensemble=1)
    inputs, labels = embedded.digits().validation
    outputs = np.asarray(predictor.apply(predictor.params, predictor.model_state, inputs))
    assert (outputs.argmax(axis=1) == labels).mean() == pytest.approx(found.validation["ensemble"]["accuracy"], abs=1e-6)
    assert [path.name for path in sorted((copy / "ensemble").iterdir())] == ["ensemble.json", "soup.safetensors"]


def test_unrelated_weights_are_not_mixed(copy):
    with closing(sqlite3.connect(RunFolder(copy).history)) as db, db:
        db.execute("UPDATE trial SET parent = NULL")
    with pytest.raises(StoreError, match="no other member descends from the founder of trial"):
        vt.ensemble(copy, method="soup")


def test_batch_statistics_are_not_mixed(run):
    members = [Candidate(0, 1, {}, {"mean": np.zeros(2, np.float32)})] * 2
    with pytest.raises(StoreError, match="such as batch statistics, and a mean of that belongs to no network"):
        relatives(RunFolder(run), members)


def test_what_cannot_be_is_refused_in_a_sentence(copy, blob_task):
    with pytest.raises(ConfigError, match=r"method: expected greedy or soup; given: 'soups'; did you mean 'soup'\?"):
        vt.ensemble(copy, method="soups")
    with pytest.raises(ConfigError, match="size: expected int >= 1; given: 0"):
        vt.ensemble(copy, size=0)
    with pytest.raises(ConfigError, match="does not say how its model is used"):
        Judge(blob_task._replace(serving=None), {}, "validation", "run")
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(StoreError, match="there is no checkpoint, so only the winner's weights are left"):
        vt.ensemble(copy)
    with RunFolder(copy).locked(), pytest.raises(StoreError, match="in use by"):
        vt.ensemble(copy)


def test_on_the_command_line(copy):
    def told(*arguments):
        return CliRunner().invoke(main, ["ensemble", str(copy), *arguments])

    result = told("--size", "4")
    assert result.exit_code == 0, result.output
    assert "greedy, of 8 members" in result.output
    shutil.rmtree(copy / "best")
    assert (told().exit_code, "the run has left no winner yet" in told().output) == (2, True)
