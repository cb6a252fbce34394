"""Search over slots in the engine: refills, stoppers, proposers, replicates, look-ahead, budgets, and their resumption."""

import jax
import numpy as np
import pytest
from scipy.stats import ttest_ind

import vmaptune as vt
from tests.conftest import SMALL
from tests.solo import batches
from vmaptune import planner
from vmaptune.config import resolve
from vmaptune.population import EMPTY
from vmaptune.store.history import connect
from vmaptune.store.reading import read_events

TREE = {k: v for k, v in SMALL.items() if k != "task"} | {"batch": {"size": 16}, "task": {}}
TREE["population"] = {"size": 4, "segment_steps": 3, "generations": 4}


def with_search(**search):
    return TREE | {"search": search}


def tuned(task, tree, out, **more):
    return vt.tune(tree, task=task, out=out, **more)


def trials_of(run):
    with connect(run.run / "history.db") as db:
        return [dict(row) for row in db.execute("SELECT * FROM trial ORDER BY trial")]


def same_histories(one, other):
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one.tobytes(), other.tobytes())


@pytest.fixture(scope="module")
def asha(blob_task, tmp_path_factory):
    """Eleven trials over four slots, stopped by successive halving."""
    tree = with_search(method="sobol", trials=11, stop={"name": "asha", "reduction": 2})
    return tuned(blob_task, tree, tmp_path_factory.mktemp("asha") / "run")


def test_every_trial_has_the_genotype_of_its_number_and_ends_once(asha):
    from vmaptune.proposers import PROPOSERS, Told

    space = asha.config.space
    nothing = Told(np.zeros((0, space.dimension), np.float32), np.zeros(0), np.zeros(0, int), np.zeros(0, bool), 12)
    rows = PROPOSERS["sobol"]().propose(space, nothing, 11, 0)
    values = jax.device_get(space.decode(rows))
    for name in space.axes:
        found = [set(asha.history[name][asha.history["trial"] == t].tolist()) for t in range(11)]
        assert all(len(each) == 1 for each in found)
        np.testing.assert_allclose([each.pop() for each in found], values[name], rtol=1e-6)
    trials = trials_of(asha)
    assert [row["trial"] for row in trials] == list(range(11))
    assert {row["reason"] for row in trials} == {"stopped", "completed"}
    assert asha.status == "finished"
    assert asha.compilations["generations"] == 1, "a refill compiled something"


def test_no_slot_is_idle_while_trials_remain(asha):
    history, begun = asha.history, {row["trial"]: row["born"] for row in trials_of(asha)}
    last_birth = max(begun.values())
    for generation in range(last_birth + 1):
        assert (history["generation"] == generation).sum() == 4
    for trial in range(11):  # without a gap, from its birth on
        rows = history[history["trial"] == trial]
        assert rows["generation"].tolist() == list(range(begun[trial], begun[trial] + len(rows)))
        assert rows["step"].tolist() == [3 * (i + 1) for i in range(len(rows))]
    assert asha.member_steps == 3 * len(history)


def test_asha_stops_what_a_host_side_implementation_stops_on_the_same_curves(asha):
    """By the definition: of m values at a rung the best max(1, m // 2), and ties, go on; rungs after 1 and 2 generations."""
    recorded = {1: {}, 2: {}}
    history, stopped = asha.history, {}
    for generation in range(history["generation"].max() + 1):
        rows = history[history["generation"] == generation]
        ages = {int(t): int(s) // 3 for t, s in zip(rows["trial"], rows["step"], strict=True)}
        for row in rows:
            if ages[row["trial"]] in recorded:
                recorded[ages[row["trial"]]][int(row["trial"])] = row["fitness"]
        for trial, age in ages.items():
            if age in recorded:
                values = sorted(recorded[age].values(), reverse=True)
                if recorded[age][trial] < values[max(1, len(values) // 2) - 1]:
                    stopped[trial] = generation
    assert stopped == {row["trial"]: row["ended"] for row in trials_of(asha) if row["reason"] == "stopped"}
    events = [e for e in read_events(asha.run / "history.db") if e["kind"] == "stopped"]
    assert {e["detail"]["trial"]: e["generation"] for e in events} == stopped


@pytest.mark.parametrize(("method", "cut"), [("tpe", 1), ("cmaes", 3), ("gp", 3)])
def test_a_search_that_is_interrupted_goes_on_to_the_same_bits(method, cut, blob_task, tmp_path):
    tree = with_search(method=method, trials=10, stop={"name": "asha", "reduction": 2})
    tree |= {"plan": {"generations_per_dispatch": 2}}
    whole = tuned(blob_task, tree, tmp_path / "whole")
    part = tuned(blob_task, tree, tmp_path / "cut", until=cut)
    assert part.status == "interrupted"
    assert part.history["generation"].max() == cut - 1
    rest = tuned(blob_task, tree, tmp_path / "cut", resume=True)
    same_histories(rest.history, whole.history)
    assert rest.best.trial == whole.best.trial
    jax.tree.map(np.testing.assert_array_equal, rest.best.params, whole.best.params)


def test_proposals_follow_from_the_results_alone(blob_task, tmp_path):
    """However generations are cut into dispatches."""
    tree = with_search(method="tpe", trials=10)
    one = tuned(blob_task, tree | {"plan": {"generations_per_dispatch": 1}}, tmp_path / "one")
    many = tuned(blob_task, tree | {"plan": {"generations_per_dispatch": 9}}, tmp_path / "many")
    same_histories(one.history, many.history)
    assert many.compilations["generations"] == 1


def test_a_grid_is_tried_whole(blob_task, tmp_path):
    tree = with_search(method="grid", points=3)
    tree |= {
        "schedule": {},
        "optimizer": {"learning_rate": {"low": 1e-3, "high": 1e-1, "scale": "log"}, "b1": {"choices": [0.8, 0.9]}},
    }
    run = tuned(blob_task, tree, tmp_path / "run")
    pairs = {(round(float(np.log10(r["optimizer.learning_rate"])), 4), round(float(r["optimizer.b1"]), 4)) for r in run.history}
    assert pairs == {(lr, b1) for lr in (-3.0, -2.0, -1.0) for b1 in (0.8, 0.9)}
    assert run.history["trial"].max() == 5
    assert run.history["generation"].max() == 7  # six trials of four generations over four slots


def test_fewer_trials_than_slots_leave_slots_empty(blob_task, tmp_path):
    run = tuned(blob_task, with_search(method="random", trials=3), tmp_path / "run")
    assert set(run.history["slot"].tolist()) == {0, 1, 2}
    assert run.history["generation"].max() == 3
    assert run.member_steps == 3 * 12
    assert (np.asarray(run.population.trial) == [0, 1, 2, -1]).all()


def test_a_run_narrows_when_half_of_its_slots_would_do(blob_task, tmp_path, monkeypatch):
    tree = with_search(method="random", trials=9)
    tree |= {"plan": {"name": "strict"}}  # members do not depend on how many there are
    whole = tuned(blob_task, tree, tmp_path / "whole")
    monkeypatch.setattr(planner, "_WORTH_SECONDS", 0.0)
    narrow = tuned(blob_task, tree, tmp_path / "narrow")
    events = [e for e in read_events(narrow.run / "history.db") if e["kind"] == "narrowed"]
    assert [(e["generation"], e["detail"]["slots"]) for e in events] == [(9, 1)]
    assert narrow.compilations["generations"] == 2
    for name in ("trial", "step", "fitness", "train.loss"):
        np.testing.assert_array_equal(narrow.history[name], whole.history[name])
    part = tuned(blob_task, tree, tmp_path / "cut", until=10)  # behind where it narrowed
    assert part.status == "interrupted"
    same_histories(tuned(blob_task, tree, tmp_path / "cut", resume=True).history, narrow.history)


def test_replicates_share_settings_and_nothing_else(blob_task, tmp_path):
    tree = with_search(method="random", trials=4, replicates=2)
    run = tuned(blob_task, tree, tmp_path / "run")
    history = run.history
    for name in run.config.space.axes:
        by_group = [set(history[name][history["trial"] // 2 == g].tolist()) for g in range(4)]
        assert all(len(values) == 1 for values in by_group)
    first = history[history["generation"] == 0]
    assert len(set(first["train.loss"].tolist())) == 4, "two replicates were trained alike"
    assert history["trial"].max() == 7


@pytest.mark.parametrize(("aggregate", "how"), [("median", np.median), ("mean", np.mean)])
def test_the_winner_is_the_best_genotype_by_all_its_replicates(aggregate, how, blob_task, tmp_path):
    tree = with_search(method="random", replicates=3, aggregate=aggregate)
    tree |= {"population": TREE["population"] | {"size": 12}}
    run = tuned(blob_task, tree, tmp_path / "run")
    last = run.history[run.history["step"] == 12]
    scores = [how(last["fitness"][last["trial"] // 3 == g]) for g in range(4)]
    assert scores[run.best.trial // 3] == pytest.approx(max(scores))
    mine = last["fitness"][last["trial"] // 3 == run.best.trial // 3]
    found = run.best.replicates
    assert {name: found[name] for name in ("n", "settings")} == {"n": 3, "settings": 3}
    for name, value in {"mean": mine.mean(), "std": mine.std(ddof=1), "min": mine.min(), "max": mine.max()}.items():
        assert found[name] == pytest.approx(value)
    assert 0 <= found["tied"] <= 3


def test_settings_are_tied_with_the_winner_where_their_replicates_overlap():
    from vmaptune.spread import spread

    groups = [[0.90, 0.91, 0.92, 0.93], [0.89, 0.92, 0.91, 0.92], [0.1, 0.11, 0.12, 0.1], [0.5, np.nan, 0.5, 0.5]]
    names = ("generation", "slot", "trial", "step", "fitness")
    rows = [(3, slot, slot, 8, value) for slot, value in enumerate(np.ravel(groups))]
    rows += [(1, slot, slot, 4, 0.9) for slot in range(16)]  # on the way: nothing was finished then
    history = np.array(rows, dtype=[(name, float if name == "fitness" else int) for name in names])
    found = spread(history, trial=1, generation=3, size=4, horizon=8)
    assert ttest_ind(groups[0], groups[1], equal_var=False).pvalue > 0.05
    assert found == pytest.approx(
        {"n": 4, "mean": 0.915, "std": np.std(groups[0], ddof=1), "min": 0.9, "max": 0.93, "settings": 3, "tied": 1}
    )


def test_replicates_evolve_together(blob_task, tmp_path):
    tree = with_search(method="truncation", quantile=0.5, replicates=2)
    tree |= {"population": TREE["population"] | {"size": 8}}
    run = tuned(blob_task, tree, tmp_path / "run")
    parent = run.history["parent"].reshape(-1, 4, 2)
    assert (parent[:-1] != np.arange(8).reshape(4, 2)).any()
    np.testing.assert_array_equal(parent[..., 0] // 2, parent[..., 1] // 2)
    rates = run.history["optimizer.learning_rate"].reshape(-1, 4, 2)
    np.testing.assert_array_equal(rates[..., 0], rates[..., 1])


# ------------------------------------------------------------------------------------------------- what members are judged by


def test_a_look_ahead_is_an_annealed_copy_and_leaves_the_members_alone(blob_task, tmp_path):
    """Against the definition: SGD, five steps on the next batches, the rate falling as 5/5, 4/5, ..., 1/5 of what it was."""
    tree = TREE | {"schedule": {}, "optimizer": {"name": "sgd", "learning_rate": 0.3, "momentum": 0.0}, "task": {}}
    tree |= {"population": {"size": 2, "segment_steps": 3, "generations": 2}, "search": {"method": "random"}}
    with pytest.warns(vt.VmaptuneWarning, match="nothing is searched"):
        plain = tuned(blob_task, tree, tmp_path / "plain")
    with pytest.warns(vt.VmaptuneWarning, match="nothing is searched"):
        run = tuned(blob_task, tree | {"fitness": {"lookahead": {"steps": 5}}}, tmp_path / "ahead")
    for name in ("train.loss", "validation.loss", "validation.accuracy"):
        np.testing.assert_allclose(run.history[name], plain.history[name], rtol=1e-5)
    config, task = resolve(tree, task=blob_task)
    examples = task.splits.size("train")
    newborn = vt.make_newborn(task, config.recipe(task).opened)
    born = newborn(np.arange(2, dtype=np.int32), np.zeros((2, 0), np.float32))
    rates = [0.3] * 3 + [0.3 * r / 5 for r in (5, 4, 3, 2, 1)]

    def trained(params):
        for rows, rate in zip(batches(0, 0, 8, 16, examples), rates, strict=True):
            batch = jax.tree.map(lambda leaf, rows=rows: leaf[rows], task.splits.train)
            gradient = jax.grad(lambda p, batch=batch: task.loss(p, {}, batch, jax.random.key(0), train=True)[0])(params)
            params = jax.tree.map(lambda p, g, rate=rate: p - rate * g, params, gradient)
        return task.loss(params, {}, task.splits.validation, jax.random.key(0), train=False)[0]

    found = run.history["lookahead.loss"][run.history["generation"] == 0]
    np.testing.assert_allclose(found, jax.vmap(trained)(born.params), rtol=1e-4)
    assert run.member_steps == 2 * 2 * (3 + 5)
    np.testing.assert_array_equal(run.history["fitness"], run.history["lookahead.accuracy"])


def test_the_winner_of_a_look_ahead_is_the_annealed_copy(blob_task, tmp_path):
    run = tuned(blob_task, TREE | {"fitness": {"lookahead": {"steps": 4, "shape": "sqrt"}}}, tmp_path / "run")
    best = run.best
    assert best.step == 12 + 4
    loss, (_, metrics) = blob_task.loss(
        best.params, best.model_state, blob_task.splits.validation, jax.random.key(0), train=False
    )
    assert best.validation["loss"] == pytest.approx(float(loss), rel=1e-4)
    assert best.validation["accuracy"] == pytest.approx(float(metrics["accuracy"]), abs=1e-6)
    rows = np.genfromtxt(run.run / "best" / "schedule.csv", delimiter=",", names=True)
    assert rows["step"].tolist() == list(range(16))
    rate = rows["optimizerlearning_rate"]
    warmup, base = best.hyperparameters["schedule.warmup"], best.hyperparameters["optimizer.learning_rate"]
    held = run.config.recipe(blob_task).shaped(
        {
            name: np.float32(v)
            for name, v in (run.config.space.constants | {"schedule.warmup": warmup, "optimizer.learning_rate": base}).items()
        },
        np.int32(12),
    )["optimizer.learning_rate"]
    np.testing.assert_allclose(rate[12:], float(held) * (1 - np.sqrt(np.arange(4) / 4)), rtol=1e-5, atol=1e-9)


def test_a_final_anneal_takes_the_rate_to_zero(blob_task, tmp_path):
    tree = TREE | {"fitness": {"final_anneal": 5}, "schedule": {"name": "constant"}}
    run = tuned(blob_task, tree, tmp_path / "run")
    rows = np.genfromtxt(run.run / "best" / "schedule.csv", delimiter=",", names=True)
    plain = tuned(blob_task, tree | {"fitness": {}}, tmp_path / "plain")
    np.testing.assert_array_equal(plain.history["fitness"][:8], run.history["fitness"][:8])  # two generations of three steps
    assert (plain.history["train.loss"][8:] != run.history["train.loss"][8:]).any()
    last = rows["optimizerlearning_rate"][-5:]
    np.testing.assert_allclose(last / last[0], [1.0, 0.8, 0.6, 0.4, 0.2], rtol=0.7)  # settings move, on the way


# --------------------------------------------------------------------------------------------------------------- how runs end


def test_a_budget_of_steps_ends_the_run(blob_task, tmp_path):
    run = tuned(blob_task, with_search(method="random", budget={"steps": 30}), tmp_path / "run")
    assert run.status == "finished"
    assert run.member_steps == 24  # two generations of twelve: a third would be beyond
    assert run.best.step == 6


def test_a_budget_of_seconds_ends_the_run(blob_task, tmp_path):
    tree = with_search(method="random", trials=10**5, budget={"seconds": 0.5})
    run = tuned(blob_task, tree, tmp_path / "run")
    assert run.status == "finished"
    assert 0 < len(run.history) < 4 * 10**5
    (ended,) = [e for e in read_events(run.run / "history.db") if e["kind"] == "ended"]
    assert ended["detail"] == {"because": "search.budget.seconds"}
    again = tuned(blob_task, tree, run.run, resume=True)
    assert len(again.history) == len(run.history), "a run whose time is up went on"


def test_trials_may_all_fail_in_a_moment_and_the_search_goes_on(blob_task, tmp_path):
    wild = {"name": "sgd", "learning_rate": {"low": 1e-3, "high": 1e10, "scale": "log"}}
    run = tuned(blob_task, with_search(method="random", trials=24) | {"optimizer": wild, "schedule": {}}, tmp_path / "run")
    assert run.status == "finished"
    assert len(trials_of(run)) == 24
    assert {"diverged", "completed"} == {row["reason"] for row in trials_of(run)}


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        (
            {"search": {"method": "truncation", "stop": "asha"}},
            "search.stop: truncation replaces members by copies and stops none",
        ),
        (
            {"search": {"method": "random", "stop": "asah"}},
            "search.stop.name: there is no stopper 'asah'; did you mean 'asha'?",
        ),
        ({"search": {"method": "random", "stop": 3}}, r"search.stop: expected a name or a table, \[search.stop\]; given: 3"),
        ({"search": {"method": "grid"}}, "search.points: .*continuous axis"),
        ({"search": {"method": "random", "replicates": 3}}, "search.replicates: must divide population.size = 4; given: 3"),
        ({"search": {"budget": {"steps": 5}}}, "search.budget.steps: less than one generation of 12 steps; given: 5"),
        ({"fitness": {"final_anneal": 99}}, "fitness.final_anneal: more than the 12 steps of a trial; given: 99"),
        ({"fitness": {"lookahead": 5}}, r"fitness.lookahead: expected a table, \[fitness.lookahead\]; given: 5"),
        ({"search": {"method": "random", "stop": {"name": "asha", "grace": 9}}}, "search.stop.grace: "),
        ({"data": {"fraction": 0.0}}, "data.fraction: expected float"),
    ],
)
def test_what_a_method_cannot_do_is_said_in_one_sentence(sections, sentence, blob_task):
    with pytest.raises(vt.ConfigError, match=sentence):
        resolve(TREE | sections, task=blob_task)


def test_an_empty_slot_orders_nothing(blob_task):
    from vmaptune.selectors import SELECTORS, View

    selector = SELECTORS["random"](trials=5)
    space = resolve(TREE, task=blob_task)[0].space
    state = selector.init(jax.random.key(0), space, 4)
    numbers = np.arange(4, dtype=np.int32)
    zeros = np.zeros(4, np.int32)
    view = View(np.full((4, space.dimension), 0.5, np.float32), zeros, numbers, zeros, np.array([True] * 4), zeros, zeros * 1.0)
    state, (parent, _) = selector.update(jax.random.key(1), state, view, np.zeros(4, np.float32))
    assert parent.tolist() == [-1, EMPTY, EMPTY, EMPTY]
    view = view._replace(trial=np.array([4, -1, -1, -1], np.int32), done=np.array([False] * 4))
    _, (parent, _) = selector.update(jax.random.key(2), state, view, np.zeros(4, np.float32))
    assert parent.tolist() == [0, EMPTY, EMPTY, EMPTY]
