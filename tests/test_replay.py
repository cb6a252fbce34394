"""What a run's history is good for afterwards: lineages, members trained once more, and schedules replayed from scratch."""

from __future__ import annotations

import ast
import itertools
import json
import math
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from tests.conftest import SMALL
from tests.solo import train_alone
from vmaptune.analysis.lineage import OTHERS, Genealogy, bars, founders, lineage_figure, read_genealogy
from vmaptune.analysis.replay import REPLAYS, Replay, Retrained, replay
from vmaptune.analysis.verify import TOLERANCE, verify
from vmaptune.cli.main import main
from vmaptune.data.splits import Splits
from vmaptune.errors import ConfigError, StoreError
from vmaptune.loop import tune
from vmaptune.population import Stream, root_key, stream_key
from vmaptune.tasks import Task

SEED = 1
PBT = {"method": "truncation", "quantile": 0.4}
LONGER = {"size": 8, "segment_steps": 5, "generations": 6}


def call(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="vmaptune")


def tree(**sections):
    return {k: v for k, v in SMALL.items() if k != "plan"} | {"search": PBT, "population": LONGER} | sections


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A run whose winner has ancestors, with the plan that promises bits."""
    result = tune(tree(plan={"name": "strict"}), out=tmp_path_factory.mktemp("strict") / "run")
    assert len(walk(result.history, result.best)) > 1
    return result


def walk(history, best):
    """The winner's trials, the founder first, by the parent arrays alone: slot by slot, generation by generation."""
    rows = {(int(r["generation"]), int(r["slot"])): r for r in history}
    (slot,) = (s for (g, s), r in rows.items() if g == best.generation and r["trial"] == best.trial)
    trials = [best.trial]
    for g in range(best.generation - 1, -1, -1):
        slot = int(rows[g, slot]["parent"])
        if slot < 0:
            break
        trials.insert(0, int(rows[g, slot]["trial"]))
    return list(dict.fromkeys(trials))


def copied(result, tmp_path, *statements):
    """A copy of a run whose history was tampered with."""
    folder = tmp_path / "copy"
    shutil.copytree(result.run, folder)
    db = sqlite3.connect(folder / "history.db")
    for statement, values in statements:
        assert db.execute(statement, values).rowcount > 0
    db.commit()
    db.close()
    return folder


# -------------------------------------------------------------------------------------------------------------- verify


def test_under_the_strict_plan_a_member_alone_is_the_member_of_the_run_to_the_bit(strict):
    found = verify(strict.run)
    assert found.trials == tuple(walk(strict.history, strict.best))
    assert found.trial == strict.best.trial
    assert found.generations == strict.best.generation + 1
    assert found.steps == strict.best.step
    assert found.compared == 4 * found.generations  # loss and accuracy, while training and on validation
    assert found.largest.absolute == found.largest_relative.relative == found.weights.absolute == 0
    assert found.first is None
    assert found.elsewhere == ()
    assert found.verdict == "The same to the bit."


def test_so_is_every_other_member_whether_it_ended_early_or_lives(strict):
    last = strict.history[strict.history["generation"] == strict.history["generation"].max()]
    ended = set(strict.history["trial"]) - set(last["trial"])
    for trial in [*sorted(ended)[:2], *sorted(set(last["trial"]) - {strict.best.trial})[-2:]]:
        found = verify(strict.run, member=int(trial))
        assert found.trial == trial
        assert found.largest.absolute == 0
        assert found.weights is None or trial == strict.best.trial


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A run of families, averaged weights and a learning rate that falls on plateaus, with batches and seeds of all kinds."""
    config = tree(
        batch={"size": 32, "order": "independent"},
        optimizer=SMALL["optimizer"] | {"average": {"low": 0.5, "high": 0.99}},
        schedule={"name": ["cosine", "exponential"], "exponential": {"end": {"low": 1e-3, "high": 0.5, "scale": "log"}}},
        plateau={"factor": 0.5, "patience": 0.0, "threshold": 0.5},
        population=LONGER | {"seeds": 3},
    )
    result = tune(config, out=tmp_path_factory.mktemp("mixed") / "run")
    assert (result.history["plateau.scale"] < 1).any()
    return result


def is_close(result, member=None):
    """True if a member alone is the member of the run to rounding; one that ended differently would be far off."""
    found = verify(result.run, member=member)
    assert found.generations >= 1
    assert found.weights is None or found.weights.absolute < 1e-4
    return found.largest_relative.relative < 1e-4 and found.first is None


def test_under_any_plan_it_is_so_to_rounding(mixed):
    assert is_close(mixed)
    assert is_close(mixed, int(mixed.history["trial"].max()))


VARIANTS = {
    "look ahead in groups": {"fitness": {"final_anneal": 8, "lookahead": {"steps": 3}}, "search": PBT | {"replicates": 2}},
    "stopped trials": {
        "search": {"method": "random", "trials": 14, "stop": "median"},
        "population": {"size": 4, "segment_steps": 4, "generations": 4},
    },
}


@pytest.mark.parametrize("name", VARIANTS)
def test_so_it_is_whatever_a_run_does_with_its_members(tmp_path, name):
    result = tune(tree(**VARIANTS[name]), out=tmp_path / "run")
    assert verify(result.run).weights is not None
    assert is_close(result)
    assert is_close(result, int(result.history["trial"].max()))


def test_a_member_with_model_state_and_a_task_from_python(tmp_path, normed_task):
    config = {k: v for k, v in tree().items() if k not in ("task", "plan")} | {
        "batch": {"size": 16},
        "plan": {"name": "strict"},
    }
    run = tune(config, task=normed_task, out=tmp_path / "run").run
    found = verify(run, task=normed_task)
    assert found.largest.absolute == found.weights.absolute == 0
    for function, name in ((verify, "verify"), (replay, "replay")):
        with pytest.raises(ConfigError, match=rf"passed from Python; go on there: vmaptune.{name}\('{run}', task=...\)$"):
            function(run)


def test_a_number_that_was_not_measured_is_found_where_it_stands(strict, tmp_path):
    trial, generation = strict.best.trial, strict.best.generation
    row = strict.history[(strict.history["trial"] == trial) & (strict.history["generation"] == generation)]
    wrong = float(row["validation.loss"][0]) + 0.25
    change = 'UPDATE record SET "validation.loss" = ? WHERE trial = ? AND generation = ?', (wrong, trial, generation)
    found = verify(copied(strict, tmp_path, change))
    assert (found.largest.generation, found.largest.trial, found.largest.name) == (generation, trial, "validation.loss")
    assert found.largest.absolute == pytest.approx(0.25, rel=1e-6)
    assert found.largest.recorded == wrong
    assert found.first == found.largest == found.largest_relative
    assert found.weights.absolute == 0
    assert (
        found.verdict
        == f"Not the same: beyond {TOLERANCE:.0%} for the first time in generation {generation + 1}, validation.loss."
    )


def test_a_number_that_is_missing_is_infinitely_far_off(strict, tmp_path):
    change = 'UPDATE record SET "train.loss" = NULL WHERE trial = ?', (strict.best.trial,)
    found = verify(copied(strict, tmp_path, change))
    assert found.largest.absolute == math.inf
    assert math.isnan(found.largest.recorded)
    assert json.dumps(found.as_json(), allow_nan=False)


def test_a_setting_that_was_not_trained_with_shows_from_its_generation_on(strict, tmp_path):
    trial = int(strict.history["trial"][(strict.history["generation"] == 1) & (strict.history["step"] == 10)][0])
    change = 'UPDATE record SET "optimizer.learning_rate" = 0.5 WHERE trial = ? AND generation = 1', (trial,)
    found = verify(copied(strict, tmp_path, change), member=trial)
    assert (found.first.generation, found.first.trial) == (1, trial)


def test_weights_that_are_not_the_winners_are_found(strict, tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = copied(strict, tmp_path)
    file = folder / "best" / "weights.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[-1]
    tensors[name].flat[0] += 0.125
    save_file(tensors, file)
    found = verify(folder)
    assert found.weights.name == name
    assert found.weights.absolute == pytest.approx(0.125, rel=1e-5)
    assert found.largest.absolute == 0
    save_file({k: v for k, v in tensors.items() if k != name}, file)
    assert verify(folder).weights.absolute == math.inf


def test_what_cannot_be_verified_is_said_in_a_sentence(strict, tmp_path):
    last = int(strict.history["trial"].max())
    with pytest.raises(StoreError, match=rf"there is no trial {last + 1}; its trials are 0 to {last}$"):
        verify(strict.run, member=last + 1)
    with pytest.raises(StoreError, match=r"no such folder; `vmaptune runs` lists the runs there are$"):
        verify(tmp_path / "nowhere")
    gone = "DELETE FROM record WHERE trial = ? AND generation = 0", (walk(strict.history, strict.best)[0],)
    with pytest.raises(StoreError, match=r"the lineage of trial \d+ is not whole: its records are of steps 10, 15"):
        verify(copied(strict, tmp_path, gone))


@pytest.mark.parametrize("function", [verify, replay, read_genealogy])
def test_a_run_without_a_winner_has_none_to_ask_for(strict, tmp_path, function):
    begun = ("DELETE FROM record", ()), ("UPDATE run SET status = 'running', result = NULL", ())
    with pytest.raises(StoreError, match="no sound member yet"):
        function(copied(strict, tmp_path, *begun))


# -------------------------------------------------------------------------------------------------------------- replay


def quadratic():
    """One weight, begun at random, pulled to zero: after K steps of rate r it is (1 - r)^K of what it was."""

    def init(key, sample):
        del sample
        return {"w": jax.random.normal(key, ())}, {}

    def loss(params, model_state, batch, key, *, train):
        del batch, key, train
        return 0.5 * params["w"] ** 2, (model_state, {})

    rows = np.zeros(4, np.float32)
    return Task(init, loss, Splits(rows, rows, rows), "loss", "min")


PLAIN = {
    "seed": SEED,
    "batch": {"size": 2},
    "optimizer": {"name": "sgd", "momentum": 0.0, "learning_rate": {"low": 0.01, "high": 0.2, "scale": "log"}},
    "schedule": {"name": "constant"},
    "population": {"size": 8, "segment_steps": 3, "generations": 5},
    "search": PBT | {"sigma": 0.5},
}


@pytest.fixture(scope="module")
def pulled(tmp_path_factory):
    """A run of `quadratic`, and its replay."""
    task = quadratic()
    result = tune(PLAIN, task=task, out=tmp_path_factory.mktemp("pulled") / "run")
    told = []
    return result, replay(result.run, seeds=4, task=task, told=lambda *at: told.append(at)), told


def test_a_replay_goes_through_the_settings_of_each_generation(pulled):
    result, found, told = pulled
    lineage = walk(result.history, result.best)
    rows = [r for r in result.history if r["trial"] in lineage]
    path = [next(r for t in reversed(lineage) for r in rows if (r["trial"], r["generation"]) == (t, g)) for g in range(5)]
    rates = np.array([r["optimizer.learning_rate"] for r in path])
    assert len(set(rates)) > 1
    root = jax.random.fold_in(root_key(SEED), REPLAYS)
    begun = np.array([jax.random.normal(stream_key(root, Stream.INIT, s), ()) for s in range(4)])
    np.testing.assert_allclose(found.schedule.validation["loss"], 0.5 * (begun * np.prod((1 - rates) ** 3)) ** 2, rtol=1e-5)
    np.testing.assert_allclose(found.last.validation["loss"], 0.5 * (begun * (1 - rates[-1]) ** 15) ** 2, rtol=1e-5)
    for arm in (found.schedule, found.last):
        np.testing.assert_allclose(arm.test["loss"], arm.validation["loss"], rtol=1e-6)
    assert (found.trial, found.generation, found.steps) == (result.best.trial, 4, 15)
    assert found.copies == len(lineage) - 1
    assert found.winner["validation"]["loss"] == pytest.approx(result.best.validation["loss"], rel=1e-6)
    assert found.winner["test"]["loss"] == pytest.approx(result.best.test["loss"])
    assert told == [(i, 5) for i in range(1, 6)]


def test_where_a_run_looks_ahead_its_replays_are_judged_so_too(tmp_path):
    """Two more steps, of the whole rate and of half of it, before the loss is measured; on test as well."""
    config = PLAIN | {"population": {"size": 4, "segment_steps": 3, "generations": 2}, "search": {"method": "random"}}
    result = tune(config | {"fitness": {"lookahead": {"steps": 2}}}, task=quadratic(), out=tmp_path / "run")
    found = replay(result.run, seeds=2, task=quadratic())
    rate = result.best.hyperparameters["optimizer.learning_rate"]
    root = jax.random.fold_in(root_key(SEED), REPLAYS)
    begun = np.array([jax.random.normal(stream_key(root, Stream.INIT, s), ()) for s in range(2)])
    expected = 0.5 * (begun * (1 - rate) ** 6 * (1 - rate) * (1 - rate / 2)) ** 2
    np.testing.assert_allclose(found.schedule.validation["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(found.schedule.test["loss"], expected, rtol=1e-5)
    assert found.winner["validation"]["loss"] == pytest.approx(result.best.validation["loss"], rel=1e-6)
    assert read_genealogy(result.run).ancestors[-1]["last_score"] == pytest.approx(result.best.validation["loss"], rel=1e-6)


def test_no_replay_begins_as_a_member_of_the_run_did(pulled):
    result, _, _ = pulled
    root = jax.random.fold_in(root_key(SEED), REPLAYS)
    keys = {
        tuple(jax.random.key_data(stream_key(key, stream, number)).tolist())
        for key in (root_key(SEED), root)
        for stream in Stream
        for number in range(int(result.history["trial"].max()) + 1)
    }
    assert len(keys) == 2 * len(Stream) * (int(result.history["trial"].max()) + 1)


def test_the_first_seeds_are_the_same_whatever_their_number(pulled):
    result, found, _ = pulled
    fewer = replay(result.run, seeds=2, task=quadratic())
    for arm in ("schedule", "last"):
        few, many = getattr(fewer, arm).validation["loss"], getattr(found, arm).validation["loss"]
        np.testing.assert_allclose(few, many[:2], rtol=1e-6)


def test_a_winner_that_was_never_copied_replays_its_constant_settings(tmp_path, blob_task):
    """And each replay is what a plain loop over plain optax makes of that seed."""
    config = {
        "batch": {"size": 16},
        "optimizer": {"name": "sgd", "momentum": 0.0, "learning_rate": {"low": 0.01, "high": 0.3, "scale": "log"}},
        "schedule": {"name": "constant"},
        "population": {"size": 4, "segment_steps": 4, "generations": 3},
        "search": {"method": "random"},
        "seed": SEED,
    }
    result = tune(config, task=blob_task, out=tmp_path / "run")
    found = replay(result.run, seeds=2, task=blob_task)
    assert found.copies == 0
    rate = result.best.hyperparameters["optimizer.learning_rate"]
    root = jax.random.fold_in(root_key(SEED), REPLAYS)
    for seed in range(2):
        params, state, _ = train_alone(
            blob_task,
            {"optimizer.learning_rate": rate},
            lambda learning_rate=0.0: optax.sgd(learning_rate),
            lambda t: jnp.ones_like(t),
            trial=seed,
            steps=12,
            horizon=12,
            batch_size=16,
            seed=root,
            independent=True,
        )
        for part in ("validation", "test"):
            loss, (_, metrics) = blob_task.loss(params, state, getattr(blob_task.splits, part), root, train=False)
            for name, value in {"loss": loss, **metrics}.items():
                np.testing.assert_allclose(getattr(found.schedule, part)[name][seed], value, rtol=2e-4)
                np.testing.assert_array_equal(getattr(found.schedule, part)[name], getattr(found.last, part)[name])


def test_replays_of_families_averages_and_plateaus(mixed):
    found = replay(mixed.run, seeds=2)
    assert set(found.schedule.validation) == {"loss", "accuracy", "raw.loss", "raw.accuracy"}
    assert set(found.schedule.test) == {"loss", "accuracy"}
    assert found.schedule.summary("accuracy").n == 2


def made(*, direction, winner, scores, last, test=None):
    arms = [Retrained({"score": np.array(each)}, {"score": np.array(each) + 1}) for each in (scores, last)]
    measured = {"validation": {"score": winner}} | ({"test": {"score": test}} if test is not None else {})
    return Replay(Path("r"), 7, 3, 40, 2, "score", direction, len(scores), measured, *arms)


@pytest.mark.parametrize(("direction", "sign"), [("max", 1), ("min", -1)])
def test_what_is_better_counts_as_gained_in_either_direction(direction, sign):
    scores, last = np.array([0.5, 0.9, 0.7]), np.array([0.4, 0.6, 0.5])
    found = made(direction=direction, winner=sign * 0.8, scores=sign * scores, last=sign * last, test=sign * 2.0)
    assert found.inherited() == pytest.approx(0.8 - 0.7)
    assert found.inherited("test") == pytest.approx(2.0 - (0.7 + sign))
    assert found.scheduled.mean == pytest.approx(np.mean(scores - last))
    assert found.scheduled.std == pytest.approx(np.std(scores - last, ddof=1))
    assert found.as_good == 1


def test_seeds_that_diverged_are_counted_and_left_out():
    found = made(direction="max", winner=0.8, scores=[0.5, np.nan, 0.7], last=[0.4, 0.6, np.nan])
    assert found.schedule.summary("score") == pytest.approx((0.6, np.std([0.5, 0.7], ddof=1), 2))
    assert found.scheduled.n == 1
    assert math.isnan(found.scheduled.std)
    assert found.inherited("test") is None
    assert found.as_good == 0
    assert json.dumps(found.as_json(), allow_nan=False)
    nobody = made(direction="max", winner=0.8, scores=[np.nan], last=[np.nan])
    assert nobody.schedule.summary("score").n == 0
    assert math.isnan(nobody.inherited())


def test_no_seeds_are_refused(strict):
    with pytest.raises(ConfigError, match=r"^seeds: expected int >= 1; given: 0$"):
        replay(strict.run, seeds=0)


# ------------------------------------------------------------------------------------------------------------- lineage


@st.composite
def orders(draw):
    """Parent arrays of a run: a slot each, or -1 for a birth, or -2 for a slot that stays empty."""
    n, generations = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    arrays, empty = [], set()
    for _ in range(generations - 1):
        parents = [draw(st.sampled_from([-2, -1, *(s for s in range(n) if s not in empty)])) for _ in range(n)]
        if all(p == -2 for p in parents):
            parents[0] = -1
        empty = {s for s, p in enumerate(parents) if p == -2}
        arrays.append(parents)
    return n, arrays


def numbered(n, arrays):
    """Trials in each slot and generation, and the parent of each trial: new ones count up in slot order."""
    trial, parents, count = [list(range(n))], dict.fromkeys(range(n)), n
    for order in arrays:
        before, now = trial[-1], []
        for slot, parent in enumerate(order):
            if parent == slot:
                now.append(before[slot])
            elif parent == -2:
                now.append(-1)
            else:
                parents[count] = before[parent] if parent >= 0 else None
                now.append(count)
                count += 1
        trial.append(now)
    return np.array(trial), parents


def founder_by_walk(trial, arrays, generation, slot):
    """Back through the parent arrays, one generation at a time, until a birth."""
    while generation > 0 and arrays[generation - 1][slot] >= 0:
        slot = arrays[generation - 1][slot]
        generation -= 1
    return trial[generation][slot]


@given(orders())
def test_descent_is_what_walking_back_through_the_parent_arrays_gives(case):
    n, arrays = case
    trial, parents = numbered(n, arrays)
    genealogy = Genealogy(Path("r"), "m", parents, trial, np.zeros(trial.shape), [{"trial": int(trial[0][0])}])
    for g in range(len(trial)):
        for s in range(n):
            expected = -1 if trial[g][s] < 0 else founder_by_walk(trial, arrays, g, s)
            assert genealogy.founder[g][s] == expected
    copies = {(g, p, s) for g, order in enumerate(arrays) for s, p in enumerate(order) if p >= 0 and p != s}
    assert set(genealogy.copies()) == copies
    assert [sum(counts.values()) for counts in genealogy.alive()] == (trial >= 0).sum(axis=1).tolist()
    assert all(founders(parents)[t] == t for t, parent in parents.items() if parent is None)


@effort(max_examples=25)
@given(orders())
def test_a_bar_has_a_letter_a_member_and_begins_with_the_winners_founder(case):
    n, arrays = case
    trial, parents = numbered(n, arrays)
    mine = founders(parents)[int(trial[-1][trial[-1] >= 0][0])]
    genealogy = Genealogy(Path("r"), "m", parents, trial, np.zeros(trial.shape), [{"trial": mine}])
    drawn, letters = bars(genealogy, rows=100)
    assert letters["A"] == mine
    assert [g for g, _, _ in drawn] == list(range(len(trial)))
    for g, alive, bar in drawn:
        assert len(bar) == n
        assert alive == len(genealogy.alive()[g])
        if (trial[g] >= 0).all() and len(letters) == len({*genealogy.founder.flat} - {-1}):
            counts = {letter: bar.count(letter) for letter in bar if letter != OTHERS}
            assert counts == {letter: k for letter, f in letters.items() if (k := genealogy.alive()[g].get(f))}


def test_the_genealogy_of_a_run(strict):
    found, history, best = read_genealogy(strict.run), strict.history, strict.best
    assert [a["trial"] for a in found.ancestors] == walk(history, best)
    assert [a["parent"] for a in found.ancestors] == [None, *walk(history, best)[:-1]]
    arrays = [history["parent"][history["generation"] == g].tolist() for g in range(LONGER["generations"] - 1)]
    for g in range(LONGER["generations"]):
        for s in range(LONGER["size"]):
            assert found.founder[g][s] == founder_by_walk(found.trial, arrays, g, s)
    path = [tuple(place) for a in found.ancestors for place in a["path"]]
    assert [g for g, _ in path] == list(range(best.generation + 1))
    for a in found.ancestors:
        ends = [
            history[(history["trial"] == a["trial"]) & (history["generation"] == a[f"{end}_generation"])]
            for end in ("first", "last")
        ]
        assert [a["first_score"], a["last_score"]] == [float(row["validation.accuracy"][0]) for row in ends]
        assert a["hyperparameters"] == {name: float(ends[0][name][0]) for name in strict.config.space.axes}


def test_the_figure_has_the_copies_and_the_winners_lineage(strict):
    genealogy = read_genealogy(strict.run)
    members, copies, winner = lineage_figure(genealogy).data
    assert np.shape(members.z) == (LONGER["size"], LONGER["generations"])
    np.testing.assert_array_equal(np.array(members.z, float)[:, -1], strict.history["fitness"][-LONGER["size"] :])
    pairs = [(x - 1, y, other) for x, y, other in zip(copies.x[::3], copies.y[::3], copies.y[1::3], strict=True)]
    assert pairs == genealogy.copies()
    path = [place for ancestor in genealogy.ancestors for place in ancestor["path"]]
    assert list(zip(winner.x, winner.y, strict=True)) == [(g + 1, slot) for g, slot in path]
    assert winner.line.width > copies.line.width


def test_lineage_on_the_command_line(strict, tmp_path):
    folder = copied(strict, tmp_path)
    text = call("show", folder, "--lineage")
    assert text.exit_code == 0, text.output
    chain = walk(strict.history, strict.best)
    assert f"trial {chain[0]}, born with fresh weights, generation" in text.stdout
    for parent, child in itertools.pairwise(chain):
        assert f" trial {child}, copy of {parent}, generation" in text.stdout
    assert f"A trial {chain[0]}" in text.stdout
    page = (folder / "lineage.html").read_text(encoding="utf-8")
    assert "the winner's lineage" in page.replace("\\u0027", "'")
    facts = json.loads(call("show", folder, "--lineage", "--json").stdout)
    assert [a["trial"] for a in facts["ancestors"]] == chain
    assert facts["figure"] == str(folder / "lineage.html")
    assert [g["members"] for g in facts["generations"]] == [8] * 6
    assert facts["generations"][0]["founders"] == {str(t): 1 for t in range(8)}
    assert set(facts["generations"][-1]["founders"]) <= {str(t) for t in range(8)}


def test_drawing_a_lineage_does_not_wait_for_jax(strict, tmp_path):
    code = (
        f"import sys\nfrom vmaptune.cli.main import main\narguments = 'show', {str(copied(strict, tmp_path))!r}, '--lineage'\n"
        "try:\n    main(arguments)\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(sorted({'jax', 'plotly'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout.splitlines()[-1]) == ["plotly"]


# --------------------------------------------------------------------------------------------------------- command line


def test_verify_on_the_command_line(strict, tmp_path):
    text = call("verify", strict.run)
    assert text.exit_code == 0, text.output
    assert text.stdout.splitlines()[-1] == "The same to the bit."
    facts = json.loads(call("verify", strict.run, "--member", 0, "--json").stdout)
    assert (facts["trial"], facts["largest"]["absolute"], facts["strict"]) == (0, 0.0, True)
    change = 'UPDATE record SET "validation.loss" = 9.0 WHERE trial = ? AND generation = ?'
    wrong = call("verify", copied(strict, tmp_path, (change, (strict.best.trial, strict.best.generation))))
    assert wrong.exit_code == 0
    assert f"validation.loss of generation {strict.best.generation + 1}: 9 on record" in wrong.stdout
    assert wrong.stdout.splitlines()[-1].startswith("Not the same")


def test_replay_on_the_command_line(strict):
    text = call("replay", strict.run, "--seeds", 2)
    assert text.exit_code == 0, text.output
    assert "its schedule, from scratch, 2 of 2 seeds" in text.stdout
    assert text.stderr.splitlines()[-1] == "generation 6/6"
    facts = json.loads(call("replay", strict.run, "--seeds", 2, "--json", "--quiet").stdout)
    again = replay(strict.run, seeds=2)
    assert facts == json.loads(json.dumps(again.as_json()))
    assert facts["schedule"]["validation"]["accuracy"]["n"] == 2
    assert facts["inherited"]["validation"] == pytest.approx(
        strict.best.validation["accuracy"] - facts["schedule"]["validation"]["accuracy"]["mean"]
    )


@pytest.mark.parametrize("arguments", [("verify",), ("replay",), ("show", "--lineage")])
def test_not_a_run_folder_is_a_sentence(tmp_path, arguments):
    result = call(*arguments, tmp_path)
    assert result.exit_code == 2
    assert (
        result.stderr
        == f"Error: {tmp_path}: not a run folder (it has no config.toml); `vmaptune runs` lists the runs there are\n"
    )
