"""Verdicts on curves whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.histories import write_run
from vmaptune.analysis.facts import read_facts
from vmaptune.analysis.verdict import Curves, judge_fit, verdicts

G = 20
TIME = np.arange(G)
FALLING = 2.0 * np.exp(-TIME / 4) + 0.05
RISING = np.where(TIME < 8, FALLING, FALLING[8] + 0.05 * (TIME - 8))
RATE = {"low": 1e-4, "high": 1e-1, "scale": "log"}


def judged(train, validation, share=None):
    name = "accuracy" if share is not None else ""
    return judge_fit(Curves(np.arange(len(train)), np.asarray(train), np.asarray(validation), share, name), "the winner")


def test_validation_loss_that_rises_while_training_loss_falls_is_overfitting():
    verdict = judged(FALLING, RISING)
    assert verdict.kind == "overfits"
    assert verdict.numbers["lowest_in_generation"] == 9
    assert verdict.numbers["rise"] == pytest.approx((RISING[-1] - RISING[8]) / RISING[8])
    assert "rising since generation 9" in verdict.sentence
    assert "dropout" in verdict.advice


def test_a_wide_gap_without_a_rise_is_only_a_gap():
    assert judged(FALLING, FALLING + 0.3).kind == "gap"


def test_curves_that_agree_fit():
    verdict = judged(FALLING, 1.1 * FALLING)
    assert verdict.kind == "fits"
    assert not verdict.worry


def test_training_values_worse_than_validation_are_no_overfitting():
    """Dropout does that: validation loss may even rise a little."""
    assert judged(FALLING + 1.0, np.where(TIME < 8, FALLING, FALLING[8] * 1.1)).kind == "fits"


def test_a_loss_that_stays_high_is_underfitting():
    assert judged(0.9 + 0.6 * np.exp(-TIME), 0.95 + 0.6 * np.exp(-TIME)).kind == "underfits"


def test_a_training_accuracy_decides_what_is_high():
    loss = 0.5 + FALLING
    assert judged(loss, loss, np.full(G, 0.7)).kind == "underfits"
    assert judged(loss, loss, np.full(G, 0.99)).kind == "fits"


def test_what_dropout_hides_is_seen_on_validation(tmp_path):
    """Train accuracy is 0.7 with dropout on; validation accuracy, without, says that the capacity is there."""
    metrics = {f"{room}.loss": np.outer(0.5 + FALLING, np.ones(2)) for room in ("train", "validation")}
    metrics |= {"train.accuracy": np.full((G, 2), 0.7), "validation.accuracy": np.full((G, 2), 0.95)}
    facts = read_facts(write_run(tmp_path / "run", metrics, metric="accuracy", direction="max"))
    assert kinds(facts) == ["fits"]


def test_one_that_still_falls_is_not_said_to_underfit_nor_to_fit():
    loss = 2.0 - 0.04 * TIME
    verdict = judged(loss, loss, np.full(G, 0.3))
    assert verdict.kind == "learning"
    assert "learnt little yet" in verdict.sentence
    assert verdict.advice.startswith("A longer run")


@pytest.mark.parametrize("status", ["running", "finished"])
def test_a_run_that_goes_on_is_not_told_to_be_longer(tmp_path, status):
    loss = np.outer(2.0 - 0.04 * TIME, np.ones(2))
    found = verdicts(read_facts(write_run(tmp_path / "run", {"train.loss": loss, "validation.loss": loss}, status=status)))
    assert found[0].kind == "learning"
    assert found[0].worry is (status == "finished")


def test_three_generations_tell_nothing():
    assert judged(FALLING[:3], RISING[:3]).kind == "short"
    assert judged(np.full(G, np.nan), FALLING).kind == "short"


@given(st.floats(1e-6, 1e6), st.sampled_from(["rise", "gap", "fit", "under"]))
def test_the_unit_of_the_loss_does_not_matter(unit, which):
    train, validation = {
        "rise": (FALLING, RISING),
        "gap": (FALLING, FALLING + 0.3),
        "fit": (FALLING, 1.1 * FALLING),
        "under": (0.9 + 0.6 * np.exp(-TIME), 0.95 + 0.6 * np.exp(-TIME)),
    }[which]
    assert judged(unit * train, unit * validation).kind == judged(train, validation).kind


def run_of(folder, train, validation, **more):
    """A run of four members with these curves, the first the best by a hair."""
    spread = 1 + 1e-3 * np.arange(4)
    metrics = {"train.loss": np.outer(train, spread), "validation.loss": np.outer(validation, spread)}
    return read_facts(write_run(folder, metrics, **more))


def kinds(facts):
    return [verdict.kind for verdict in verdicts(facts)]


def test_a_run_is_judged_by_its_history(tmp_path):
    facts = run_of(tmp_path / "run", FALLING, FALLING)
    assert kinds(facts) == ["fits"]
    assert verdicts(facts)[0].as_json()["numbers"]["train_loss"] == pytest.approx(FALLING[-1])


def test_a_winner_from_before_the_median_overfitted(tmp_path):
    """The best member so far is the one at the lowest point; the median member is the one that overfits."""
    facts = run_of(tmp_path / "run", FALLING, RISING, planned=2 * G, status="interrupted")
    found = {verdict.of: verdict.kind for verdict in verdicts(facts)}
    assert found == {"the winner": "fits", "the median member": "overfits"}


def test_one_that_gets_better_to_the_end_wants_a_longer_run(tmp_path):
    verdict = next(v for v in verdicts(run_of(tmp_path / "run", 2.0 - 0.05 * TIME, 2.0 - 0.05 * TIME)) if v.kind == "improving")
    assert verdict.numbers["share_of_all_gained"] == pytest.approx(0.25, abs=0.05)
    assert "longer run" in verdict.advice


def test_more_may_be_better(tmp_path):
    rising = 0.5 + 0.02 * TIME
    metrics = {f"{room}.accuracy": np.outer(rising, np.ones(2)) for room in ("train", "validation")}
    metrics |= {f"{room}.loss": np.outer(FALLING, np.ones(2)) for room in ("train", "validation")}
    facts = read_facts(write_run(tmp_path / "run", metrics, metric="accuracy", direction="max"))
    assert "improving" in kinds(facts)


def test_what_diverged_has_its_learning_rate_in_common(tmp_path):
    n = 40
    rate = np.tile(np.geomspace(1e-4, 1e-1, n), (G, 1))
    metrics = {name: np.tile(FALLING[:, None], (1, n)) for name in ("train.loss", "validation.loss")}
    axes, values = {"optimizer.learning_rate": RATE}, {"optimizer.learning_rate": rate}
    facts = read_facts(write_run(tmp_path / "run", metrics, axes=axes, values=values, failed=rate > 0.02))
    verdict = next(v for v in verdicts(facts) if v.kind == "diverged")
    least = rate[0][rate[0] > 0.02].min()
    assert verdict.numbers == {"diverged": (rate[0] > 0.02).sum(), "trials": n, "share": (rate[0] > 0.02).mean()}
    assert f"all with learning rate above {least:.3g}" in verdict.sentence
    assert verdict.worry


@pytest.mark.parametrize(("rate", "edge"), [(0.0995, True), (1.01e-4, True), (0.01, False)])
def test_a_winner_at_the_edge_of_the_range_is_told(tmp_path, rate, edge):
    axes, values = {"optimizer.learning_rate": RATE}, {"optimizer.learning_rate": np.full((G, 4), rate)}
    facts = run_of(tmp_path / "run", FALLING, FALLING, axes=axes, values=values)
    found = [v for v in verdicts(facts) if v.kind == "edge"]
    assert bool(found) == edge
    assert all(v.numbers["value"] == pytest.approx(rate) and "optimizer.learning_rate" in v.advice for v in found)


def test_zero_is_no_edge_of_what_cannot_be_negative(tmp_path):
    axes, values = {"task.dropout": {"low": 0.0, "high": 0.5}}, {"task.dropout": np.zeros((G, 4))}
    assert "edge" not in kinds(run_of(tmp_path / "run", FALLING, FALLING, axes=axes, values=values))


def test_a_run_of_failures_is_told_by_them_alone(tmp_path):
    facts = run_of(tmp_path / "run", FALLING, FALLING, failed=np.ones((G, 4), bool), status="failed")
    assert kinds(facts) == ["diverged"]
