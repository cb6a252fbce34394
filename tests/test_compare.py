"""Comparing arms: their statistics against enumeration, their curves against a plain recomputation, and what a stop leaves."""

import csv
import itertools
import json
import math
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vmaptune.cli.main import main
from vmaptune.errors import ConfigError, StoreError
from vmaptune.store.folder import RunFolder
from vmaptune.store.reading import read_events, read_history, read_run
from vmaptune.studies import compare
from vmaptune.studies.curves import champions, on_grid
from vmaptune.studies.paired import average_ranks, compare_pairs, differences, holm, signed_rank
from vmaptune.studies.scores import median_interval

STEPS, GENERATIONS, SIZE = 4, 3, 6
BASE = {
    "task": {"name": "linear_regression", "dimension": 4},
    "batch": {"size": 4},
    "optimizer": {"name": "sgd", "learning_rate": {"low": 0.01, "high": 1.0, "scale": "log"}},
    "population": {"size": SIZE, "segment_steps": STEPS, "generations": GENERATIONS},
}
ARMS = {"pbt": ["search.method=truncation"], "random": ["search.method=random"]}
DIVERGING = ["optimizer.learning_rate={low=1e20, high=1e25}"]


def call(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="vmaptune")


# ------------------------------------------------------------------------------------------------------------ statistics


def exact_signed_rank(change):
    """The two-sided p by trying every sign: how often a sum of ranks is at least as far from its mean."""
    ranks = stats.rankdata(np.abs(change))
    signs = np.array(list(itertools.product((0, 1), repeat=len(change))))
    sums, seen = signs @ ranks, ranks[np.asarray(change) > 0].sum()
    return float(np.mean(np.abs(sums - ranks.sum() / 2) >= abs(seen - ranks.sum() / 2) - 1e-9))


@pytest.mark.parametrize("seed", range(8))
def test_the_signed_rank_test_is_what_trying_every_sign_says(seed):
    change = np.random.default_rng(seed).normal(loc=0.5, size=9)
    p, note = signed_rank(change)
    assert p == pytest.approx(exact_signed_rank(change))
    assert p == stats.wilcoxon(change).pvalue
    assert note == ""


def test_ties_say_nothing_and_are_told_of():
    change = np.array([0.0, 1.0, -2.0, 3.0, 4.0, 0.0, 5.0, 6.0])
    p, note = signed_rank(change)
    assert p == pytest.approx(exact_signed_rank(change[change != 0]))
    assert note == "2 of 8 pairs are ties and left out"
    assert signed_rank(np.zeros(7)) == (1.0, "all pairs are ties")


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_too_few_pairs_are_told_of_because_they_can_never_tell(n):
    p, note = signed_rank(np.arange(1.0, n + 1))
    assert p == pytest.approx(2 / 2**n)
    assert p > 0.05
    assert note == f"{n} pair{'s' * (n > 1)} cannot give p < 0.05: take 6 seeds or more"
    assert signed_rank(np.arange(1.0, 7))[0] < 0.05


def test_a_failed_run_is_worse_than_any_other():
    one, other = np.array([1.0, np.inf, np.inf, 2.0, 3.0, 4.0, 9.0]), np.array([1.5, 7.0, np.inf, 2.75, 4.0, 6.0, 8.75])
    change = differences(one, other)
    assert change.tolist() == [-0.5, np.inf, 0.0, -0.75, -1.0, -2.0, 0.25]
    assert signed_rank(change)[0] == signed_rank(np.where(np.isinf(change), 1e6, change))[0]
    (pair,) = compare_pairs({"one": one, "other": other})
    assert (pair.wins, pair.losses, pair.ties) == (4, 2, 1)
    (pair,) = compare_pairs({"one": np.full(6, np.inf), "other": np.arange(6.0)})
    assert math.isnan(pair.difference.value)
    assert pair.p == pytest.approx(2 / 2**6)


def test_holm_multiplies_the_smallest_by_all_the_next_by_one_less():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lies_between_the_test_alone_and_bonferroni(p):
    corrected = holm(p)
    assert all(alone <= c <= min(1.0, alone * len(p) + 1e-12) for alone, c in zip(p, corrected, strict=True))
    assert [corrected[i] for i in np.argsort(p)] == sorted(corrected)


def test_ranks_are_means_over_seeds_and_ties_share_theirs():
    scores = {"a": np.array([1.0, 2.0, np.inf]), "b": np.array([2.0, 2.0, np.inf]), "c": np.array([3.0, 1.0, 0.0])}
    assert average_ranks(scores) == pytest.approx({"a": (1 + 2.5 + 2.5) / 3, "b": (2 + 2.5 + 2.5) / 3, "c": (3 + 1 + 1) / 3})


# ---------------------------------------------------------------------------------------------------------------- curves


def test_a_run_has_its_last_value_until_the_next():
    at, values = np.array([10.0, 20.0, 40.0]), np.array([0.1, 0.3, 0.2])
    found = on_grid(at, values, np.array([5.0, 10.0, 19.9, 20.0, 39.0, 40.0, 1000.0]))
    np.testing.assert_array_equal(found, [np.nan, 0.1, 0.1, 0.3, 0.3, 0.2, 0.2])


def made_up(generations, slots, *, judged="validation", seed=0):
    """A history in which trials fail, end and begin again at any moment; equal scores are common."""
    rng = np.random.default_rng(seed)
    names = ("generation", "slot", "trial", "step")
    dtype = [(name, np.int64) for name in names]
    dtype += [(name, np.float64) for name in ("fitness", *(f"{p}.{m}" for p in {judged, "validation"} for m in ("f1", "loss")))]
    history = np.zeros(generations * slots, dtype)
    history["generation"], history["slot"] = np.divmod(np.arange(generations * slots), slots)
    history["trial"], history["step"] = np.arange(generations * slots), rng.integers(1, 6, generations * slots)
    scores = rng.integers(0, 5, generations * slots) / 5
    for part in {judged, "validation"}:
        history[f"{part}.f1"] = scores if part == judged else -1.0
        history[f"{part}.loss"] = rng.permutation(generations * slots)
    history["fitness"] = np.where(rng.random(generations * slots) < 0.3, np.nan, scores)
    return history


def brute_champions(history, horizon, judged="validation"):
    """Generation by generation, the way a run itself crowns: finished before unfinished, then fitness, then loss."""
    best, values = None, []
    for generation in np.unique(history["generation"]):
        for row in history[history["generation"] == generation]:
            if not math.isfinite(row["fitness"]):
                continue
            key = (row["step"] >= horizon, row["fitness"], -row[f"{judged}.loss"])
            if best is None or key > best[0]:
                best = key, row[f"{judged}.f1"]
        values.append(best[1] if best else math.nan)
    return values


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("judged", ["validation", "lookahead"])
def test_champions_are_those_that_a_run_crowns(seed, judged):
    history = made_up(7, 3, judged=judged, seed=seed)
    history["fitness"][:4] = np.nan  # nobody in the first generation
    found = champions(history, "f1", horizon=5)
    np.testing.assert_array_equal(found, brute_champions(history, 5, judged))
    assert math.isnan(found[0])


def test_with_one_horizon_for_all_champions_only_get_better():
    found = champions(made_up(20, 4, seed=1), "f1", horizon=100)
    known = found[~np.isnan(found)]
    assert (np.diff(known) >= 0).all()


def test_replicates_are_judged_together_and_the_nearest_stands_for_them():
    history = made_up(1, 6)
    history["fitness"] = history["validation.f1"] = [0.9, 0.1, 0.2, 0.5, 0.4, 0.6]
    assert champions(history, "f1", horizon=100).tolist() == [0.9]
    assert champions(history, "f1", horizon=100, replicates=3).tolist() == [0.5]
    history["fitness"][[3, 4]] = np.nan  # most of them failed
    assert champions(history, "f1", horizon=100, replicates=3).tolist() == [0.2]
    history["fitness"] = history["validation.f1"] = [0.9, 0.1, 0.8, 0.5, 0.4, 0.6]
    assert champions(history, "f1", horizon=100, replicates=3, aggregate="mean").tolist() == [0.8]


# ----------------------------------------------------------------------------------------------------------- comparisons


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return compare(ARMS, config=BASE, seeds=3, out=tmp_path_factory.mktemp("compare") / "c")


def runs(found, name):
    return [RunFolder(found.folder / name / f"seed-{seed}") for seed in range(found.seeds)]


def test_curves_are_what_the_histories_say(found):
    assert sorted(arm.name for arm in found.arms) == ["pbt", "random"]
    assert (found.metric, found.direction, found.seeds) == ("loss", "min", 3)
    longest = max(arm.seconds.max() for arm in found.arms)
    np.testing.assert_allclose(found.steps, np.arange(1, 101) * SIZE * STEPS * GENERATIONS / 100)
    np.testing.assert_allclose(found.seconds, np.arange(1, 101) * longest / 100)
    for arm in found.arms:
        by_steps, by_seconds = [], []
        for folder in runs(found, arm.name):
            rows, steps, clock, best = read_history(folder.history), 0, 0.0, (False, math.inf)
            events = [e for e in read_events(folder.history) if e["kind"] == "generation"]
            seconds = {e["generation"]: e["detail"]["seconds"]["train"] for e in events}
            curve = []
            for generation in range(GENERATIONS):
                for row in rows[rows["generation"] == generation]:
                    steps += STEPS
                    done, loss = bool(row["step"] >= STEPS * GENERATIONS), float(row["validation.loss"])
                    if math.isfinite(loss) and (done, -loss) > (best[0], -best[1]):
                        best = done, loss
                clock += seconds[generation]
                curve.append((steps, clock, best[1]))
            by_steps.append([_until(x, [(s, b) for s, _, b in curve]) for x in found.steps])
            by_seconds.append([_until(x, [(c, b) for _, c, b in curve]) for x in found.seconds])
        for mine, theirs in ((by_steps, arm.by_steps), (by_seconds, arm.by_seconds)):
            np.testing.assert_allclose([i.value for i in theirs], np.median(mine, axis=0))
            assert all(i.low <= i.value <= i.high for i in theirs)
        known = [i.value for i in arm.by_steps[:-1] if math.isfinite(i.value)]  # at the last point, all trials finish
        assert len(known) > 60
        assert (np.diff(known) <= 0).all()


def _until(x, curve):
    return next((best for at, best in reversed(curve) if at <= x), math.inf)


def test_final_scores_are_those_that_the_runs_stored(found):
    for arm in found.arms:
        results = [read_run(folder)["result"] for folder in runs(found, arm.name)]
        assert arm.test.tolist() == [r["test"]["loss"] for r in results]
        assert arm.validation.tolist() == [r["best"]["validation"]["loss"] for r in results]
        assert arm.member_steps.tolist() == [r["member_steps"] for r in results] == [SIZE * STEPS * GENERATIONS] * 3
        assert arm.by_steps[-1].value == pytest.approx(np.median(arm.validation))
        assert arm.test_median == median_interval(arm.test)
        assert arm.failed == 0
    assert [arm.test_rank for arm in found.arms] == sorted(arm.test_rank for arm in found.arms)
    assert sum(arm.test_rank for arm in found.arms) == pytest.approx(3)


def test_arms_share_seeds_and_differ_by_what_was_set(found):
    for name in ARMS:
        trees = [tomllib.loads(folder.config.read_text()) for folder in runs(found, name)]
        assert [tree["seed"] for tree in trees] == [0, 1, 2]
        assert {tree["search"]["method"] for tree in trees} == {"truncation" if name == "pbt" else "random"}


def test_arms_that_are_the_same_find_the_same(tmp_path):
    found = compare({"one": [], "other": (), "third": BASE}, config=BASE, seeds=1, out=tmp_path / "c")
    assert len({arm.test[0] for arm in found.arms}) == 1
    assert {(pair.p, pair.p_holm, pair.ties) for pair in found.test} == {(1.0, 1.0, 1)}
    assert found.notes == ["Test of all pairs: all pairs are ties."]


def test_pairs_are_tested_on_the_numbers_that_are_reported(found):
    one, other = found.arms
    for pair, values in ((found.test[0], (one.test, other.test)), (found.validation[0], (one.validation, other.validation))):
        change = values[0] - values[1]
        assert (pair.one, pair.other) == (one.name, other.name)
        assert (pair.wins, pair.ties, pair.losses) == ((change < 0).sum(), (change == 0).sum(), (change > 0).sum())
        told = change[change != 0]
        assert pair.p == (stats.wilcoxon(told).pvalue if len(told) else 1.0)
        assert pair.p_holm == pair.p
        assert pair.difference.value == pytest.approx(np.median(values[0]) - np.median(values[1]))
    assert all(re.fullmatch(r"Test of all pairs: .*(ties|6 seeds or more)\.", note) for note in found.notes)


def test_the_folder_tells_all_of_it(found):
    facts = json.loads((found.folder / "compare.json").read_text())
    assert [arm["name"] for arm in facts["arms"]] == [arm.name for arm in found.arms]
    assert facts["arms"][0]["test"] == found.arms[0].test.tolist()
    assert facts["test"][0]["p"] == found.test[0].p
    rows = list(csv.DictReader((found.folder / "compare.csv").read_text().splitlines()))
    assert [(row["arm"], int(row["seed"])) for row in rows] == [(arm.name, seed) for arm in found.arms for seed in range(3)]
    assert [float(row["test"]) for row in rows] == [x for arm in found.arms for x in arm.test]
    page = (found.folder / "compare.html").read_text()
    assert "member-steps" in page
    assert not re.search(r'<(script|link)[^>]+(src|href)="?http', page)  # it is read offline


def test_a_second_call_trains_only_what_is_new(found):
    begun = []

    def listen(stage, config, task):
        begun.append((stage, config.seed))
        return ()

    before = {path: path.stat().st_mtime_ns for path in sorted(found.folder.glob("*/*/history.db"))}
    again = compare(ARMS, config=BASE, seeds=3, out=found.folder, listen=listen)
    assert begun == []
    assert again.as_csv() == found.as_csv()
    assert {path: path.stat().st_mtime_ns for path in sorted(found.folder.glob("*/*/history.db"))} == before
    compare(ARMS | {"third": ["optimizer.momentum=0.5"]}, config=BASE, seeds=1, out=found.folder, listen=listen)
    assert begun == [("third, seed 0", 0)]


@pytest.mark.parametrize("stages", [1, 2])
def test_a_stopped_comparison_goes_on_to_the_same_answer(found, tmp_path, stages):
    begun = []

    def listen(stage, config, task):
        begun.append(stage)
        return ()

    arms = {name: [*own, "plan.generations_per_dispatch=1"] for name, own in ARMS.items()}
    options = {"config": BASE, "seeds": 1, "out": tmp_path / "c"}
    assert compare(arms, **options, listen=listen, should_stop=lambda: len(begun) >= stages) is None
    assert begun == ["pbt, seed 0", "random, seed 0"][:stages]
    assert not (tmp_path / "c" / "compare.json").exists()
    finished = compare(arms, **options)
    other = {arm.name: arm.test[0] for arm in found.arms}
    for one in finished.arms:
        assert other[one.name] == pytest.approx(one.test[0], rel=1e-5)


def test_runs_of_another_config_are_not_taken_for_these(found):
    with pytest.raises(StoreError, match=r"optimizer\.momentum"):
        compare(ARMS, config=BASE, assignments=["optimizer.momentum=0.3"], seeds=1, out=found.folder)


def test_an_arm_that_fails_is_an_outcome_and_the_worst(tmp_path):
    found = compare({"wild": DIVERGING, "calm": []}, config=BASE, seeds=1, out=tmp_path / "c")
    calm, wild = found.arms
    assert (calm.name, wild.name, wild.failed, calm.failed) == ("calm", "wild", 1, 0)
    assert (wild.test_rank, calm.test_rank) == (2.0, 1.0)
    assert np.isnan(wild.test).all()
    assert found.test[0].wins == 1
    assert any("wild: all members failed in 1 of 1 runs" in note for note in found.notes)
    assert [row["test"] for row in csv.DictReader(found.as_csv().splitlines())][1:] == [""]
    before = (tmp_path / "c" / "wild" / "seed-0" / "history.db").stat().st_mtime_ns
    again = compare({"wild": DIVERGING, "calm": []}, config=BASE, seeds=1, out=tmp_path / "c")
    assert (tmp_path / "c" / "wild" / "seed-0" / "history.db").stat().st_mtime_ns == before  # it would only fail again
    assert again.as_csv() == found.as_csv()


def test_a_metric_to_maximise_keeps_its_sign(blob_task, tmp_path):
    small = {"batch": {"size": 16}, "population": {"size": 4, "segment_steps": 5, "generations": 2}}
    slow = ["optimizer.learning_rate={low=1e-8, high=1e-7}"]
    fast = ["optimizer.learning_rate={low=0.01, high=0.1}"]
    found = compare({"slow": slow, "fast": fast}, config=small, task=blob_task, seeds=1, out=tmp_path / "c")
    fast, slow = found.arms
    assert (fast.name, found.direction) == ("fast", "max")
    assert 1 >= fast.test_median.value > slow.test_median.value >= 0
    assert found.test[0].difference.value == pytest.approx(np.median(fast.test) - np.median(slow.test))
    assert found.test[0].wins == 1
    assert fast.by_steps[-1].value == pytest.approx(np.median(fast.validation))
    assert fast.by_steps[0].value == -math.inf  # nothing is known before the first generation


def test_unequal_budgets_are_told_of(tmp_path):
    arms = {"short": [], "long": ["population.size=8"]}
    found = compare(arms, config=BASE, seeds=1, out=tmp_path / "c")
    assert "Budgets are not equal: short was given 72 member-steps, long 96." in found.notes


def test_a_budget_ends_every_arm_alike(tmp_path):
    arms = {"short": [], "long": ["population.size=12"]}
    found = compare(arms, config=BASE, seeds=1, budget={"steps": 2 * 12 * STEPS}, out=tmp_path / "c")
    spent = {arm.name: arm.member_steps.tolist() for arm in found.arms}
    assert spent == {"short": [72.0], "long": [96.0]}
    (tree,) = [tomllib.loads(folder.config.read_text()) for folder in runs(found, "long")]
    assert tree["search"]["budget"] == {"steps": 96, "seconds": 0.0}


TASKS = """
from tests.conftest import blobs
from vmaptune import models, tasks

def make(*, cut: int = 0, metric: str = "accuracy"):
    return tasks.classification(models.from_nnx(lambda rngs: models.MLP(4, [8], 3, rngs=rngs)), blobs(seed=cut), metric=metric)
"""


@pytest.mark.parametrize(
    ("arms", "options", "sentence"),
    [
        ({"a": [], "b": ["task.name=digits", "task.hidden=[4]"]}, {}, "train different tasks: linear_regression and digits"),
        ({"a": [], "b": ["optimizer.b9=1"]}, {}, "arm 'b': config: optimizer: sgd has no setting 'b9'"),
        ({"a": []}, {}, "expected two arms or more; given: a"),
        ({}, {}, "expected two arms or more; given: none"),
        ({"a": [], "b/c": []}, {}, "an arm's name is made of letters, digits and _ . + -; given: 'b/c'"),
        ({"a": [], "..": []}, {}, "an arm's name is made of letters"),
        ({"a": [], "b": None}, {}, "arm 'b' must be a TOML file, a tree of values or a list of key=value; given: None"),
        (["x/a.toml", "y/a.toml"], {}, "two arms are called 'a'"),
        (["a.toml", "b.toml"], {}, "a.toml: no such file"),
        (ARMS, {"seeds": 0}, "seeds must be at least 1; given: 0"),
        (ARMS, {"budget": {"step": 5}}, "there is no budget of 'step'; did you mean 'steps'?"),
        (ARMS, {"budget": {"steps": 1.5}}, "a budget of steps must be a whole number > 0; given: 1.5"),
        (ARMS, {"budget": {"seconds": 0}}, "a budget of seconds must be a number > 0; given: 0"),
        (ARMS, {"budget": {"seconds": math.nan}}, "a budget of seconds must be a number > 0; given: nan"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_sentence(tmp_path, monkeypatch, arms, options, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        compare(arms, config=BASE, out="c", **options)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("c").exists()


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("task.cut=1", "are measured on different data: their validation splits are not the same"),
        ("task.metric=f1", "are selected by different metrics: accuracy (max) and f1 (max)"),
    ],
)
def test_other_data_and_metrics_are_refused(tmp_path, setting, sentence):
    (tmp_path / "mine.py").write_text(TASKS)
    tree = {"task": {"name": f"{tmp_path / 'mine.py'}:make"}, "batch": {"size": 16}, "population": {"size": 2}}
    with pytest.raises(ConfigError) as caught:
        compare({"a": [], "b": [setting]}, config=tree, out=tmp_path / "c")
    assert str(caught.value).endswith(sentence)


# --------------------------------------------------------------------------------------------------------- command line

TOML = """
[task]
name = "linear_regression"
dimension = 4
[batch]
size = 4
[optimizer]
name = "sgd"
learning_rate = {low = 0.01, high = 1.0, scale = "log"}
[population]
size = 4
segment_steps = 2
generations = 2
"""


def test_the_command_compares_files_and_speaks_json_and_csv(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("one.toml").write_text(TOML)
    Path("two.toml").write_text(TOML.replace("high = 1.0", "high = 0.1"))
    options = ["one.toml", "two.toml", "--seeds", 1, "--set", "batch.size=2", "--out", "c"]
    first = call("compare", *options)
    assert first.exit_code == 0, first.output
    assert "one, seed 0: 4 trainings of 4 steps" in first.stderr
    assert re.search(r"^(one - two|two - one) ", first.stdout, re.MULTILINE)
    assert re.search(r"^one +\S+ \(\S+ to \S+\)", first.stdout, re.MULTILINE)
    assert "take 6 seeds or more" in first.stdout
    facts = json.loads(call("compare", *options, "--json", "-q").stdout)
    assert facts == json.loads(Path("c/compare.json").read_text())
    assert sorted(arm["name"] for arm in facts["arms"]) == ["one", "two"]
    assert call("compare", *options, "--csv", "-q").stdout == Path("c/compare.csv").read_text()
    assert {tomllib.loads(p.read_text())["batch"]["size"] for p in Path("c").glob("*/*/config.toml")} == {2}


def test_arms_are_made_of_one_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("base.toml").write_text(TOML)
    moved = "moved:optimizer.learning_rate={low = 0.1, high = 0.5},batch.size=2"
    result = call("compare", "base.toml", "--arm", "same:", "--arm", moved, "--seeds", 1, "--out", "c", "-q")
    assert result.exit_code == 0, result.output
    same, other = (tomllib.loads(Path(f"c/{name}/seed-0/config.toml").read_text()) for name in ("same", "moved"))
    assert (same["batch"]["size"], other["batch"]["size"]) == (4, 2)
    assert same["optimizer"]["learning_rate"] == {"low": 0.01, "high": 1.0, "scale": "log"}
    assert other["optimizer"]["learning_rate"] == {"low": 0.1, "high": 0.5}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a.toml", "b.toml", "--arm", "x:seed=1"], "--arm: makes arms out of one config; given: a.toml, b.toml"),
        (["--arm", "search.method=random"], "--arm: expected NAME:KEY=VALUE, such as random:search.method=random"),
        (["--arm", "x:", "--arm", "x:"], "--arm: two arms are called 'x'"),
        (["--arm", "x:", "--arm", "y:oops"], "expected key=value"),
        (["--arm", "x:", "--arm", "y:", "--budget", "steps"], "--budget: expected steps=N or seconds=X"),
        ([], "expected two arms or more; given: none"),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    result = call("compare", *arguments)
    assert result.exit_code == 2, result.output
    assert sentence in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
