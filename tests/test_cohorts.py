"""Cohorts: how choices on static settings are taken apart, who goes on, and what a run of several cohorts leaves."""

import itertools
import json
import math
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import tomlkit
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import vmaptune as vt
from tests.conftest import SMALL
from vmaptune.cli.main import main
from vmaptune.cohorts import CohortBudget, budget_of, cohorts_of, load_cohorts, tune_cohorts
from vmaptune.config import resolve
from vmaptune.optimizers import OPTIMIZERS
from vmaptune.settings import settings
from vmaptune.store.folder import RunFolder
from vmaptune.store.reading import read_events, read_history, read_run


def choices(*values):
    return {"choices": list(values)}


# The first hidden layer is too narrow to learn anything, so who goes on is clear.
TREE = SMALL | {
    "task": {"hidden": choices([8], [1, 2]), "dropout": {"low": 0.0, "high": 0.5}},
    "optimizer": {
        "name": choices("sgd", "adamw"),
        "momentum": 0.9,
        "learning_rate": {"low": 1e-3, "high": 1e-1, "scale": "log"},
    },
    "schedule": {"name": "cosine"},
}


# ----------------------------------------------------------------------------------------------------------- expansion


def test_without_choices_there_is_one_cohort_with_the_same_config(small):
    (cohort,) = cohorts_of(small)
    assert (cohort.name, cohort.assignment, cohort.tree) == ("", {}, small)


static = {
    "task.hidden": st.lists(st.lists(st.integers(1, 64), min_size=1, max_size=3), min_size=2, max_size=4, unique_by=str),
    "optimizer.name": st.lists(st.sampled_from(sorted(OPTIMIZERS)), min_size=2, max_size=4, unique=True),
    "batch.size": st.lists(st.integers(1, 128), min_size=2, max_size=4, unique=True),
    "batch.order": st.permutations(["shared", "independent"]),
    "schedule.name": st.lists(st.sampled_from(["constant", "cosine", "linear", "rex"]), min_size=2, max_size=3, unique=True),
    "schedule.warmup_shape": st.permutations(["linear", "cosine"]),
}


@given(st.data())
def test_cohorts_are_the_product_of_the_choices(data):
    drawn = {place: data.draw(values) for place, values in static.items() if data.draw(st.booleans(), label=f"search {place}?")}
    tree = {"optimizer": {"learning_rate": choices(0.1, 0.2)}, "cohorts": {"budget": "equal"}}
    for place, values in drawn.items():
        section, key = place.split(".")
        tree.setdefault(section, {})[key] = choices(*values)
    if math.prod(map(len, drawn.values())) > 64:
        with pytest.raises(vt.ConfigError, match="at most 64"):
            cohorts_of(tree)
        return
    found = cohorts_of(tree)
    expected = [dict(zip(drawn, combination, strict=True)) for combination in itertools.product(*drawn.values())]
    assert sorted(map(str, (sorted(c.assignment.items()) for c in found))) == sorted(str(sorted(e.items())) for e in expected)
    assert len({cohort.name for cohort in found}) == len(found)
    for cohort in found:
        assert not set(cohort.name) & set('/\\ "*?<>|')
        for place, value in cohort.assignment.items():
            section, key = place.split(".")
            assert cohort.tree[section][key] == value
        assert cohort.tree["optimizer"]["learning_rate"] == choices(0.1, 0.2)
        assert "cohorts" not in cohort.tree


@given(st.lists(st.sampled_from(sorted(OPTIMIZERS)), min_size=2, max_size=5, unique=True))
def test_a_cohort_keeps_the_settings_that_its_own_optimizer_knows(names):
    given_ = {k: 0.5 for name in names for k, s in settings(OPTIMIZERS[name]).items() if s.traced and not s.vector}
    for cohort in cohorts_of({"optimizer": {"name": choices(*names), **given_}}):
        own = cohort.tree["optimizer"]
        assert set(own) == {"name"} | (set(given_) & set(settings(OPTIMIZERS[own["name"]])))


def test_a_setting_that_no_cohort_knows_is_an_error():
    for cohort in cohorts_of({"optimizer": {"name": choices("sgd", "adamw"), "momemtum": 0.9}}):
        with pytest.raises(vt.ConfigError, match=r"optimizer: .* has no setting 'momemtum'"):
            resolve(cohort.tree)


def test_choices_on_a_setting_of_some_rows_open_cohorts_of_those_rows_alone():
    found = cohorts_of({"optimizer": {"name": choices("sgd", "lion"), "nesterov": choices(True, False)}})
    assert "nesterov" not in settings(OPTIMIZERS["lion"])
    assert [c.assignment for c in found] == [
        {"optimizer.name": "sgd", "optimizer.nesterov": True},
        {"optimizer.name": "sgd", "optimizer.nesterov": False},
        {"optimizer.name": "lion"},
    ]


def test_tasks_keep_what_their_builder_or_their_loss_knows():
    names = ["digits", "digits_cnn", "linear_regression"]
    found = cohorts_of({"task": {"name": choices(*names), "layers": 1, "dropout": 0.1, "dimension": choices(4, 8)}})
    assert [c.tree["task"] for c in found] == [
        {"name": "digits", "layers": 1, "dropout": 0.1},
        {"name": "digits_cnn", "dropout": 0.1},
        {"name": "linear_regression", "dimension": 4},
        {"name": "linear_regression", "dimension": 8},
    ]


@pytest.mark.parametrize("values", [(0.0, 0.1), (0, 1)])
def test_choices_on_numbers_that_may_differ_per_member_stay_an_axis(values):
    (cohort,) = cohorts_of({"task": {"dropout": choices(*values)}, "optimizer": {"b1": vt.Axis(choices=(0.5, 0.9))}})
    config, _ = resolve(cohort.tree | {"task": {"dropout": choices(0.0, 0.1)}})
    assert set(config.space.axes) == {"task.dropout", "optimizer.b1"}


def test_a_static_setting_of_a_loss_opens_cohorts(blob_task):
    def loss(params, state, batch, key, *, train, power: int = 1, dropout: float = 0.0):
        value, aux = blob_task.loss(params, state, batch, key, train=train, dropout=dropout)
        return value**power, aux

    task = blob_task._replace(loss=loss)
    found = cohorts_of({"task": {"power": choices(1, 2), "dropout": choices(0, 0.1)}}, task=task)
    assert [c.assignment for c in found] == [{"task.power": 1}, {"task.power": 2}]
    assert resolve(found[1].tree | {"batch": {"size": 8}}, task=task)[0].task.static == {"power": 2}


def test_a_list_of_schedules_is_a_mixture_in_one_cohort_and_a_choice_among_cohorts():
    assert len(cohorts_of({"schedule": {"name": ["linear", "cosine"]}})) == 1
    tree = {"name": choices(["linear", "cosine"], "constant"), "cosine": {"end": 0.1}, "warmup": 0.1}
    mixed, plain = cohorts_of({"schedule": tree})
    assert mixed.tree["schedule"] == {"name": ["linear", "cosine"], "cosine": {"end": 0.1}, "warmup": 0.1}
    assert plain.tree["schedule"] == {"name": "constant", "warmup": 0.1}
    assert [resolve(c.tree)[0].run_id for c in (mixed, plain)]


def test_a_schedule_goes_with_the_hyperparameter_that_it_shapes():
    shapes = {"name": "cosine", "momentum": {"name": "linear"}, "b1": {"name": choices("linear", "cosine")}}
    found = cohorts_of({"optimizer": {"name": choices("sgd", "adamw")}, "schedule": shapes})
    assert [c.tree["schedule"] for c in found] == [
        {"name": "cosine", "momentum": {"name": "linear"}},
        {"name": "cosine", "b1": {"name": "linear"}},
        {"name": "cosine", "b1": {"name": "cosine"}},
    ]
    for cohort in found:
        resolve(cohort.tree)


def test_long_or_equal_names_are_numbered():
    long = cohorts_of({"task": {"hidden": choices([8] * 80, [8] * 81)}})
    equal = cohorts_of({"batch": {"order": choices("shared", "other:shared")}})
    for found in (long, equal):
        assert [c.name[:3] for c in found] == ["01-", "02-"]
        assert all(len(c.name) < 255 for c in found)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"batch": {"size": choices(32)}}, r"batch\.size: choices must be two or more different values; given: \[32\]"),
        ({"batch": {"size": choices(8, 8)}}, r"batch\.size: choices must be two or more different values; given: \[8, 8\]"),
        ({"optimizer": {"name": choices()}}, r"optimizer\.name: choices must be two or more different values"),
        ({"task": {"hidden": choices([8], [8])}}, r"task\.hidden: choices must be two or more different values"),
        ({"batch": {"size": {"choices": 8}}}, r"batch\.size\.choices: expected a list; given: 8"),
        ({"batch": {"size": {"choices": [8, 16], "low": 1}}}, r"batch\.size: an axis of choices has no low"),
        ({"batch": {"size": choices(*range(1, 66))}}, r"cohorts: at most 64.*given: 65 or more, by the choices on batch\.size"),
        ({"task": {"name": choices("digits", "digit")}}, r"task\.name: no task 'digit'; did you mean 'digits'"),
        ({"cohorts": {"budget": "half"}}, r"cohorts\.budget: expected halving \| equal; given: 'half'"),
        ({"cohorts": {"reduction": 1}}, r"cohorts\.reduction: expected int >= 2; given: 1"),
        ({"cohorts": {"rungs": 1}}, r"cohorts: this section has no setting 'rungs'"),
        ({"cohorts": 3}, r"cohorts: expected a table"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(tree, message):
    with pytest.raises(vt.ConfigError, match=message):
        (budget_of if "cohorts" in tree else cohorts_of)(tree)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"optimizer": {"name": choices("sgd", "adamv")}},
            r"cohort optimizer=adamv: .*no optimizer 'adamv'; did you",
        ),
        ({"batch": {"size": choices(32, 10**6)}}, r"config: cohort batch.size=1000000: batch.size: must be between 1 and the"),
        ({"population": {"size": choices(8, 16)}}, r"config: population.size: an axis cannot stand here"),
        ({"task": {"name": choices("digits", "linear_regression")}}, r"config: cohorts are compared by one metric; given: "),
    ],
)
def test_every_cohort_is_checked_before_any_trains(tree, message, tmp_path):
    with pytest.raises(vt.ConfigError, match=message):
        tune_cohorts(tree, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tasks_file_is_found_from_its_config(tmp_path):
    config = tmp_path / "my.toml"
    config.write_text('[task]\nname = { choices = ["a.py:make", "digits"] }\n', encoding="utf-8")
    (tmp_path / "a.py").write_text("from vmaptune.tasks.digits import digits as make\n", encoding="utf-8")
    _, cohorts = load_cohorts(config)
    assert [c.tree["task"]["name"] for c in cohorts] == [f"{tmp_path / 'a.py'}:make", "digits"]
    assert [c.name for c in cohorts] == ["task=make", "task=digits"]


# -------------------------------------------------------------------------------------------------------------- rungs


def halving(cohorts, generations, reduction):
    """Independently, with cohorts that are told apart by their number: who is in the game for how many generations."""
    sizes = [cohorts]
    while sizes[-1] > 1:
        sizes.append(max(1, sizes[-1] // reduction))
    trained = np.zeros(cohorts, int)
    for stage, size in enumerate(sizes):
        trained[:size] = -(-generations // reduction ** (len(sizes) - 1 - stage))
    return trained


@given(st.integers(1, 64), st.integers(1, 200), st.integers(2, 5))
def test_rungs_give_each_cohort_what_halving_gives_it(cohorts, generations, reduction):
    budget = CohortBudget(reduction=reduction)
    rungs = budget.rungs(cohorts, generations)
    trained = np.full(cohorts, generations)
    for done, left in rungs.items():
        assert 0 < done < generations
        trained[left:] = np.minimum(trained[left:], done)
    expected = halving(cohorts, generations, reduction)
    np.testing.assert_array_equal(trained, expected)
    assert list(rungs) == sorted(rungs)
    assert budget.total(cohorts, generations) == expected.sum()
    assert CohortBudget(budget="equal", reduction=reduction).rungs(cohorts, generations) == {}


def test_rungs_of_eight():
    assert CohortBudget().rungs(8, 40) == {5: 4, 10: 2, 20: 1}


# ---------------------------------------------------------------------------------------------------------------- runs


def replayed(folder, names, rungs, generations):
    """Who goes on, from the recorded fitness alone."""
    alive, left = list(names), {}
    for done, count in rungs.items():
        best = {}
        for name in alive:
            history = read_history(folder / name / "history.db")
            early = history[history["generation"] < done]
            assert set(early["generation"]) == set(range(done))
            best[name] = np.nanmax(early["fitness"])
        order = sorted(alive, key=lambda name: (-best[name], names.index(name)))
        alive, gone = order[:count], order[count:]
        left |= dict.fromkeys(gone, done)
    return {name: left.get(name, generations) for name in names}


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    return tune_cohorts(TREE, out=tmp_path_factory.mktemp("halved") / "out")


def facts_of(result):
    """What must not depend on how often a study was stopped."""
    facts = result.as_json()
    cohorts = [{k: v for k, v in c.items() if k not in ("run", "seconds", "compilations")} for c in facts["cohorts"]]
    decisions = [{k: v for k, v in d.items() if k != "time"} for d in facts["decisions"]]
    return {k: facts[k] for k in ("winner", "best", "test", "member_steps")} | {"cohorts": cohorts, "decisions": decisions}


def test_halving_is_what_the_histories_say(halved):
    names = [run.cohort.name for run in halved.cohorts]
    assert names == [
        "task.hidden=8,optimizer=sgd",
        "task.hidden=8,optimizer=adamw",
        "task.hidden=1-2,optimizer=sgd",
        "task.hidden=1-2,optimizer=adamw",
    ]
    expected = replayed(halved.run, names, {1: 2, 2: 1}, 4)
    assert {run.cohort.name: run.generations for run in halved.cohorts} == expected
    assert sorted(expected.values()) == [1, 1, 2, 4]
    assert halved.winner == next(name for name, trained in expected.items() if trained == 4)
    assert halved.member_steps == 8 * 5 * sum(expected.values())
    for run in halved.cohorts:
        assert run.member_steps == 8 * 5 * run.generations
        assert run.status == ("finished" if run.cohort.name == halved.winner else "interrupted")
        assert run.left_after == (None if run.cohort.name == halved.winner else run.generations)


def test_the_test_split_is_read_for_the_winner_alone(halved):
    for run in halved.cohorts:
        test = (read_run(run.folder)["result"] or {}).get("test")
        assert (test is not None) == (run.cohort.name == halved.winner)
        assert run.folder.best.exists() == (run.cohort.name == halved.winner)
    assert halved.as_json()["test"] == read_run(RunFolder(halved.run / halved.winner))["result"]["test"]


def test_the_winners_files_stand_beside_the_cohorts(halved):
    own, copied = halved.run / halved.winner / "best", halved.run / "best"
    assert {path.name: path.read_bytes() for path in own.iterdir()} == {p.name: p.read_bytes() for p in copied.iterdir()}


def test_the_summary_and_the_histories_say_what_was_decided(halved):
    summary = json.loads((halved.run / "cohorts.json").read_text())
    assert summary == halved.as_json()
    assert [(d["generation"], len(d["kept"]), len(d["left"])) for d in summary["decisions"]] == [(1, 2, 2), (2, 1, 1)]
    for run in halved.cohorts:
        events = [e for e in read_events(run.folder.history) if e["kind"] in ("kept", "left")]
        told = [(e["generation"], e["kind"], e["detail"]["fitness"]) for e in events]
        name = run.cohort.name
        assert told == [
            (d["generation"] - 1, "kept" if name in d["kept"] else "left", d["fitness"][name])
            for d in summary["decisions"]
            if name in d["fitness"]
        ]


def test_a_cohort_is_an_ordinary_run(halved, tmp_path):
    """The winner alone, never stopped, is the same run; one that was left can be resumed to its end."""
    winner = next(run for run in halved.cohorts if run.cohort.name == halved.winner)
    alone = vt.tune(winner.cohort.tree, out=tmp_path / "alone")
    np.testing.assert_array_equal(alone.history, halved.result.history)
    assert alone.as_json()["best"] == halved.as_json()["best"]
    assert alone.as_json()["test"] == halved.as_json()["test"]


def test_going_on_with_a_finished_study_changes_nothing(halved):
    again = tune_cohorts(TREE, out=halved.run, resume=True)
    assert facts_of(again) == facts_of(halved)
    assert [d.time for d in again.decisions] == [d.time for d in halved.decisions]
    assert not any(run.compilations["generations"] for run in again.cohorts)


def test_equal_budget_trains_all_to_the_end_and_compiles_each_once(tmp_path):
    tree = TREE | {
        "task": {"hidden": [8]},
        "optimizer": TREE["optimizer"] | {"name": choices("sgd", "adamw", "lion")},
        "cohorts": {"budget": "equal"},
    }
    result = tune_cohorts(tree, out=tmp_path / "out")
    assert [run.compilations["generations"] for run in result.cohorts] == [1, 1, 1]
    assert [(run.status, run.generations, run.matured) for run in result.cohorts] == [("finished", 4, True)] * 3
    assert result.decisions == ()
    best = {}
    for run in result.cohorts:
        history = read_history(run.folder.history)
        finished = history[history["step"] == 20]
        top = finished[finished["fitness"] == finished["fitness"].max()]
        best[run.cohort.name] = (top["fitness"][0], -top["validation.loss"].min())
    assert result.winner == max(best, key=best.get)
    assert sum((read_run(run.folder)["result"]["test"] is not None) for run in result.cohorts) == 1


@pytest.mark.parametrize("after", [5])
def test_a_stopped_study_goes_on_to_the_same_result(halved, tmp_path, after):
    asked = itertools.count()
    cut = tune_cohorts(TREE, out=tmp_path / "out", should_stop=lambda: next(asked) >= after)
    assert (cut.status, cut.winner, cut.result) == ("interrupted", None, None)
    assert json.loads((tmp_path / "out" / "cohorts.json").read_text())["status"] == "interrupted"
    result = tune_cohorts(TREE, out=tmp_path / "out", resume=True)
    assert facts_of(result) == facts_of(halved)
    np.testing.assert_array_equal(result.result.history, halved.result.history)


def test_a_killed_study_goes_on_to_the_same_result(halved, tmp_path):
    """The process dies without a word while the second of two trains its second generation."""
    config = tmp_path / "my.toml"
    config.write_text(tomlkit.dumps(TREE), encoding="utf-8")
    code = (
        "import os, itertools\nfrom vmaptune.cohorts import tune_cohorts\ncount = itertools.count()\n"
        f"tune_cohorts({str(config)!r}, out={str(tmp_path / 'out')!r}, "
        "should_stop=lambda: os._exit(9) if next(count) == 11 else False)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr
    statuses = [read_run(RunFolder(tmp_path / "out" / run.cohort.name))["status"] for run in halved.cohorts]
    assert sorted(statuses) == ["interrupted", "interrupted", "interrupted", "stopped"]
    result = tune_cohorts(TREE, out=tmp_path / "out", resume=True)
    assert facts_of(result) == facts_of(halved)
    np.testing.assert_array_equal(result.result.history, halved.result.history)


def test_a_cohort_that_ends_before_its_rung_is_judged_by_all_it_did(tmp_path, blob_task):
    """Every trial is stopped after two generations, so a run is over before the rung after the fourth."""
    tree = {
        "batch": {"size": choices(8, 16)},
        "optimizer": {"learning_rate": {"low": 1e-3, "high": 1e-1, "scale": "log"}},
        "population": {"size": 4, "segment_steps": 2, "generations": 8},
        "search": {"method": "random", "trials": 4, "stop": {"name": "threshold", "worst": 2.0}},
        "plan": {"generations_per_dispatch": 1},
    }
    result = tune_cohorts(tree, task=blob_task, out=tmp_path / "out")
    assert all(run.status == "finished" and run.generations < 4 for run in result.cohorts)
    (decision,) = result.decisions
    assert decision.generation == 4
    for run in result.cohorts:
        assert decision.fitness[run.cohort.name] == read_history(run.folder.history)["fitness"].max()
    assert result.status == "finished"


def breaking(task):
    """A task whose loss is NaN from step 13 on, if it is fragile, and learns nothing, if it is not; for Lion at 0.01."""

    def init(key, sample):
        params, state = task.init(key, sample)
        return {"network": params, "clock": jnp.float32(0)}, state

    def loss(params, state, batch, key, *, train, fragile: bool = True):
        value, aux = task.loss(params["network"], state, batch, key, train=train)
        if train:
            value = (value if fragile else 0.0 * value) + params["clock"]  # falls by 0.01 a step
            value = jnp.where(fragile & (params["clock"] < -0.125), jnp.nan, value)
        return value, aux

    return task._replace(init=init, loss=loss)


def test_where_the_last_cohort_fails_another_takes_its_place(tmp_path, blob_task):
    tree = {
        "task": {"fragile": choices(True, False)},
        "batch": {"size": 16},
        "optimizer": {"name": "lion", "learning_rate": 0.01, "weight_decay": 0.0, "b1": {"low": 0.5, "high": 0.9}},
        "population": {"size": 4, "segment_steps": 5, "generations": 4},
        "plan": {"generations_per_dispatch": 1},
    }
    for resume in (False, True):
        result = tune_cohorts(tree, task=breaking(blob_task), out=tmp_path / "out", resume=resume)
        fragile, lazy = result.cohorts
        assert result.decisions[0].kept == ["task.fragile=true"]
        assert (fragile.status, fragile.generations, lazy.status, lazy.generations) == ("failed", 3, "finished", 4)
        assert "all 4 members failed" in fragile.problem or "all members failed" in fragile.problem
        assert result.winner == "task.fragile=false"
    with pytest.raises(vt.AllMembersFailed, match="no cohort came to its end"):
        tune_cohorts(
            tree | {"task": {"fragile": True}, "batch": {"size": choices(8, 16)}},
            task=breaking(blob_task),
            out=tmp_path / "none",
        )


def test_cohorts_of_a_task_from_python(tmp_path, blob_task):
    tree = {
        "batch": {"size": choices(8, 16)},
        "optimizer": {"learning_rate": {"low": 1e-3, "high": 1e-1}},
        "population": {"size": 4, "segment_steps": 2, "generations": 2},
    }
    result = tune_cohorts(tree, task=blob_task, out=tmp_path / "out")
    assert result.status == "finished"
    assert tomllib.loads((tmp_path / "out" / "cohorts.toml").read_text())["task"]["name"] == "(from Python)"
    with pytest.raises(vt.ConfigError, match="passed from Python"):
        tune_cohorts(tmp_path / "out" / "cohorts.toml", out=tmp_path / "out", resume=True)


def test_a_folder_is_not_taken_for_another_study(halved, tmp_path):
    with pytest.raises(vt.StoreError, match="holds cohorts already; go on with them"):
        tune_cohorts(TREE, out=halved.run)
    with pytest.raises(vt.StoreError, match=r"was begun with another config.*batch.size: 32 -> 16"):
        tune_cohorts(TREE | {"batch": {"size": 16}}, out=halved.run, resume=True)
    with pytest.raises(vt.StoreError, match="holds a run already"):
        tune_cohorts(TREE, out=halved.run / halved.winner)


# -------------------------------------------------------------------------------------------------------- command line


def call(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="vmaptune")


def test_the_command_line_runs_cohorts(halved, tmp_path):
    config = tmp_path / "my.toml"
    config.write_text(tomlkit.dumps(TREE), encoding="utf-8")
    checked = json.loads(call("check", config, "--json").stdout)
    assert [c["name"] for c in checked["cohorts"]] == [run.cohort.name for run in halved.cohorts]
    assert checked["rungs"] == {"1": 2, "2": 1}
    told = call("check", config).stdout
    assert "after generation 1 the best 2 go on, after generation 2 the best 1 go on; 8 generations instead of 16" in told

    out = tmp_path / "out"
    done = call("run", config, "--out", out)
    assert done.exit_code == 0, done.output
    assert re.findall(r"^cohort (\S+)$", done.stderr, re.MULTILINE)[:4] == [run.cohort.name for run in halved.cohorts]
    assert re.search(rf"^winner +{halved.winner} *$", done.stdout, re.MULTILINE)
    again = call("resume", out, "--json", "--quiet")
    assert (again.exit_code, again.stderr) == (0, "")
    facts = json.loads(again.stdout)
    for key in ("winner", "best", "test", "member_steps"):
        assert facts[key] == halved.as_json()[key]
    listed = json.loads(call("runs", out, "--json").stdout)
    assert {Path(line["run"]).name for line in listed} == {run.cohort.name for run in halved.cohorts}
    assert [line["test"] is not None for line in listed].count(True) == 1


def test_resuming_cohorts_wants_their_folder(tmp_path):
    config = tmp_path / "my.toml"
    config.write_text(tomlkit.dumps(TREE), encoding="utf-8")
    refused = call("run", config, "--resume")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "with cohorts, give the folder that they were begun in: --out" in refused.stderr


def test_a_config_without_cohorts_may_say_how_they_would_share(small, tmp_path):
    config = tmp_path / "my.toml"
    config.write_text(tomlkit.dumps(small | {"cohorts": {"budget": "equal"}}), encoding="utf-8")
    assert call("check", config).exit_code == 0
    wrong = call("check", config, "--set", "cohorts.budget=half")
    assert wrong.stderr == f"Error: {config}: cohorts.budget: expected halving | equal; given: 'half'\n"
