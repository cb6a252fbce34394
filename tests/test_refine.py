"""The next config: new ends against closed forms, the optimum of a task whose loss is known, and what is left as it was."""

import json
import math
import tomllib
import warnings
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import SMALL
from vmaptune.analysis.refine import bounds, judge, refine, shown
from vmaptune.cli.main import main
from vmaptune.errors import ConfigError, StoreError, VmaptuneWarning
from vmaptune.loop import tune
from vmaptune.settings import Fraction, NonNegative, Positive, Rate, Setting
from vmaptune.space import Axis
from vmaptune.store.folder import RunFolder
from vmaptune.store.reading import read_history
from vmaptune.tasks import expected_loss
from vmaptune.toml import load_config

STEPS, BATCH, DIMENSION = 40, 16, 8
ORACLE = {
    "task": {"name": "linear_regression", "dimension": DIMENSION, "decay_percent": 50},
    "batch": {"size": BATCH},
    "optimizer": {"name": "sgd", "momentum": 0.0},
    "population": {"size": 24, "segment_steps": STEPS, "generations": 1},
    "search": {"method": "random"},
}


def call(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="vmaptune")


def of(annotation):
    return Setting("x", annotation, 0.5, True, "")


# ------------------------------------------------------------------------------------------------------------------ ends


@pytest.mark.parametrize(
    ("axis", "annotation", "good", "expected"),
    [
        (Axis(0.0, 1.0), Fraction, [0.5, 0.2, 0.7], (0.15, 0.75)),  # their range, and a margin of 5 % of the axis
        (Axis(0.0, 1.0), Fraction, [0.5, 0.5], (0.375, 0.625)),  # no narrower than a quarter
        (Axis(0.0, 1.0), Fraction, [0.05, 0.06], (0.0, 0.25)),  # which lies inside
        (Axis(0.0, 1.0), Fraction, [0.5, 0.01, 0.98], (0.0, 1.0)),
        (Axis(1e-4, 1.0, "log"), Positive, [1e-2, 1e-3, 1e-1], (6.3e-4, 0.159)),  # 10^-3.2 = 6.31e-4, 10^-0.8 = 0.1585
        (Axis(1e-4, 1.0, "log"), Positive, [1.0, 0.2, 0.5], (0.1, 10.0)),  # the best sits on an end: a decade more
        (Axis(1e-4, 1.0, "log"), NonNegative, [1e-4, 1e-3, 1e-2], (1e-5, 0.0159)),
        (Axis(1e-4, 1.0, "log"), Positive, [0.84, 1.0, 0.5], (0.1, 10.0)),  # within 2 % of the end: 10^(-4 * 0.02) = 0.83
        (Axis(1e-4, 1.0, "log"), Positive, [0.82, 1.0, 0.5], (0.1, 1.0)),
        (Axis(1.0, 3.0), NonNegative, [3.0, 2.0], (1.9, 4.0)),  # half of the width
        (Axis(1.0, 3.0), Positive, [1.0, 2.0], (0.5, 2.1)),  # 0 itself is not allowed: half of the way
        (Axis(1.0, 3.0), NonNegative, [1.0, 2.0], (0.0, 2.1)),
        (Axis(2.0, 3.0), float, [2.0, 2.5], (1.5, 2.55)),
        (Axis(-1.0, 1.0), float, [-1.0, 0.5], (-2.0, 0.6)),
        (Axis(0.0, 0.5), Fraction, [0.0, 0.5], (0.0, 0.5)),  # as far as the setting may
        (Axis(0.2, 0.9), Fraction, [0.9, 0.5], (0.465, 1.0)),
        (Axis(0.5, 0.9), Rate, [0.9, 0.7], (0.68, 0.95)),
        (Axis(1, 9, integer=True), Annotated[float, msgspec.Meta(ge=1)], [5, 4], (3, 6)),  # a quarter: 3.5 to 5.5
        (Axis(1, 9, integer=True), Annotated[float, msgspec.Meta(ge=1)], [9, 5], (4, 13)),
        (Axis(1, 9, integer=True), Annotated[float, msgspec.Meta(ge=1)], [1, 5], (1, 6)),
        (Axis(1, 16, "log", integer=True), Positive, [16, 4], (3, 160)),
        (Axis(1e-37, 1e-30, "log"), Positive, [1e-37, 1e-36], (1e-37, 1e-30)),  # float32 ends there
    ],
)  # fmt: skip
def test_new_ends_are_where_they_should_be(axis, annotation, good, expected):
    assert bounds(axis, np.array(good, np.float64), of(annotation)) == pytest.approx(expected, rel=1e-9)


@st.composite
def axes(draw):
    scale = draw(st.sampled_from(["linear", "log"]))
    low = draw(st.floats(1e-6, 0.4))
    return Axis(low, draw(st.floats(low * 1.5, 0.99)), scale)


@given(
    axis=axes(),
    places=st.lists(st.floats(0, 1), min_size=2, max_size=9),
    annotation=st.sampled_from([Fraction, Rate, Positive, NonNegative, float]),
)
def test_new_ends_hold_what_is_good_and_never_leave_the_settings_range(axis, places, annotation):
    def scaled(value):
        return math.log(value) if axis.scale == "log" else value

    start, width = scaled(axis.low), scaled(axis.high) - scaled(axis.low)
    good = np.array([start + place * width for place in places])
    good = np.clip(np.exp(good) if axis.scale == "log" else good, axis.low, axis.high)
    low, high = bounds(axis, good, of(annotation))
    new = Axis(low, high, axis.scale)
    for end in (low, high, float(new.low32), float(new.high32)):
        msgspec.convert(end, annotation)
    tolerance = 1e-9 * (axis.high - axis.low)
    assert low <= good.min() + tolerance
    assert high >= good.max() - tolerance
    assert scaled(high) - scaled(low) >= 0.25 * width * (1 - 1e-6) if low > 0 or axis.scale == "linear" else True
    assert low >= axis.low or places[0] <= 0.02 + 1e-6
    assert high <= axis.high or places[0] >= 0.98 - 1e-6


# ------------------------------------------------------------------------------------------------------- known optimum


def best_rate(rates):
    loss = jax.vmap(
        lambda rate: expected_loss(
            jnp.full(STEPS, rate), batch_size=BATCH, dimension=DIMENSION, decay_percent=50, noise_percent=10
        )[-1]
    )
    return float(rates[int(jnp.argmin(jnp.nan_to_num(loss(jnp.asarray(rates)), nan=jnp.inf)))])


def searched(folder, low, high, **sections):
    """A run of learning rates evenly spread over an axis, each trained on its own."""
    axis = {"low": low, "high": high, "scale": "log"}
    tree = ORACLE | sections | {"optimizer": ORACLE["optimizer"] | {"learning_rate": axis}}
    size = tree["population"]["size"]
    rates = np.clip(np.geomspace(low, high, size), np.nextafter(low, 1), np.nextafter(high, 0))
    tune(tree, start={"optimizer.learning_rate": rates}, out=folder)
    return folder


OPTIMUM = best_rate(np.geomspace(1e-3, 2.0, 400))


def test_an_optimum_inside_is_narrowed_around(tmp_path):
    found = refine(searched(tmp_path / "r", 1e-3, 2.0))
    (change,) = found.changes
    assert (change.name, change.old["low"], change.old["high"]) == ("optimizer.learning_rate", 1e-3, 2.0)
    assert change.why == "narrowed around the best"
    low, high = change.new["low"], change.new["high"]
    assert 1e-3 < low < OPTIMUM < high <= 2.0
    assert math.log(high / low) < 0.5 * math.log(2.0 / 1e-3)
    assert (found.trials, found.good, found.step) == (24, 6, STEPS)


def test_an_optimum_beyond_an_end_is_gone_towards_with_a_warning(tmp_path):
    folder = searched(tmp_path / "r", 1e-3, OPTIMUM / 4)
    with pytest.warns(VmaptuneWarning, match=r"^optimizer\.learning_rate: the best trial sits on the high end, .* goes on to"):
        found = refine(folder)
    (change,) = found.changes
    assert change.new["high"] == pytest.approx(10 * OPTIMUM / 4, rel=0.01)
    assert change.new["low"] < OPTIMUM < change.new["high"]
    assert change.why == "narrowed around the best and widened at its high end"
    again = found.config.tree
    size, space = again["population"]["size"], found.config.space
    next_rates = np.geomspace(change.new["low"], change.new["high"], size).clip(space.axes[change.name].low, change.new["high"])
    tune(again, start={"optimizer.learning_rate": next_rates}, out=tmp_path / "next")
    low, high = (refine(tmp_path / "next").changes[0].new[end] for end in ("low", "high"))
    assert change.new["low"] < low < OPTIMUM < high


def test_the_good_are_the_best_quarter_of_the_history(tmp_path):
    folder = searched(tmp_path / "r", 1e-3, 2.0)
    history = read_history(RunFolder(folder).history)
    order = np.argsort(-np.nan_to_num(history["fitness"], nan=-np.inf))[:6]
    good = history["optimizer.learning_rate"][order]
    (change,) = refine(folder).changes
    margin = (2.0 / 1e-3) ** 0.05
    assert change.new["low"] == pytest.approx(good.min() / margin, rel=0.01)
    assert change.new["high"] == pytest.approx(min(2.0, good.max() * margin), rel=0.01)


# ---------------------------------------------------------------------------------------------------------------- trials


def history_of(rows):
    """Rows of (generation, slot, trial, step, fitness, x)."""
    names = [(n, np.int64) for n in ("generation", "slot", "trial", "step")] + [("fitness", np.float64), ("x", np.float64)]
    return np.array(rows, names)


def test_trials_are_compared_at_the_horizon_once_four_have_reached_it():
    rows = [(0, i, i, 10, 10.0 + i, i / 10) for i in range(6)]  # at step 10 the last was the best
    rows += [(1, i, i, 20, -float(i), i / 10) for i in range(4)]
    judged = judge(history_of(rows), ["x"], horizon=20)
    assert (judged.step, judged.values["x"].tolist()) == (20, [0.0, 0.1, 0.2, 0.3])


def test_trials_that_were_stopped_early_are_compared_where_four_still_ran():
    rows = [(0, i, i, 10, 50.0, 0.9) for i in range(8)]
    rows += [(1, i, i, 20, float(i), i / 10) for i in range(5)]
    rows += [(2, 0, 0, 30, 100.0, 0.0)]
    judged = judge(history_of(rows), ["x"], horizon=100)
    assert (judged.step, judged.values["x"].tolist()) == (20, [0.0, 0.4, 0.3, 0.2, 0.1])


def test_replicates_count_once_and_failed_ones_count_against_them():
    scores = {0.1: [1.0, 2.0, 9.0], 0.2: [3.0, 3.0, 3.0], 0.3: [np.nan, np.nan, 99.0], 0.4: [0.0, np.nan, 8.0]}
    rows = [(0, 0, i, 5, score, x) for i, (x, score) in enumerate((x, s) for x, each in scores.items() for s in each)]
    judged = judge(history_of(rows), ["x"], horizon=5)
    assert judged.values["x"].tolist() == [0.2, 0.1, 0.4]


def test_empty_slots_and_failed_trials_are_left_out():
    rows = [(0, 0, -1, 0, 5.0, 0.9), (0, 1, 0, 5, np.nan, 0.8), (0, 2, 1, 5, np.inf, 0.7), (0, 3, 2, 5, 1.0, 0.1)]
    assert judge(history_of(rows), ["x"], horizon=5).values["x"].tolist() == [0.1]
    assert len(judge(history_of(rows[:2]), ["x"], horizon=5)) == 0


# ---------------------------------------------------------------------------------------------------------- whole configs


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Families, choices, a vector's number, dropout: what can stand for a number."""
    tree = {section: dict(table) for section, table in SMALL.items()}
    tree["optimizer"] |= {"b1": {"choices": [0.5, 0.8, 0.9, 0.95, 0.99]}}
    tree["schedule"] = {
        "name": ["cosine", "table", "constant", "linear"],
        "warmup": {"low": 0.0, "high": 0.3},
        "cosine": {"exponent": {"low": 0.5, "high": 2.0}},
        "table": {"values": [1.0, {"low": 0.5, "high": 1.0}, 0.0]},
        "weight_decay": {"name": "cosine", "end": {"low": 0.0, "high": 0.5}},
    }
    tree["population"] |= {"size": 16, "generations": 2}
    tree["search"] = {"method": "random"}
    folder = tmp_path_factory.mktemp("mixed") / "r"
    tune(tree, out=folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VmaptuneWarning)  # where 16 draws lie is not the point here
        return folder, refine(folder)


def test_the_next_config_is_whole_and_says_what_was_changed(mixed, tmp_path):
    folder, found = mixed
    path = tmp_path / "next.toml"
    path.write_text(found.as_toml())
    config, _ = load_config(path)
    assert config.tree == found.config.tree
    head = path.read_text().partition("\n\n")[0]
    assert head.startswith(f"# Refined from {folder}")
    assert all(line.startswith("# ") and len(line) < 128 for line in head.splitlines())
    text = " ".join(line.removeprefix("#").strip() for line in head.splitlines())
    assert "by the best 4 of 16 trials after 10 steps." in text
    for change in found.changes:
        assert f"{change.name}: {shown(change.old)} -> {shown(change.new)} ({change.why})" in text
    assert found.as_json()["changes"][0]["name"] == found.changes[0].name


def test_choices_and_families_are_those_among_the_good(mixed):
    folder, found = mixed
    history = read_history(RunFolder(folder).history)
    last = history[history["step"] == 10]
    good = last[np.argsort(-np.nan_to_num(last["fitness"], nan=-np.inf), kind="stable")[:4]]
    fewer = sorted({round(float(b1), 6) for b1 in good["optimizer.b1"]})
    b1 = found.config.tree["optimizer"]["b1"]
    assert b1 == ({"choices": fewer} if len(fewer) > 1 else fewer[0])
    names = ["cosine", "table", "constant", "linear"]
    kept = [name for i, name in enumerate(names) if i in good["schedule.family"]]
    schedule = found.config.tree["schedule"]
    assert schedule["name"] == (kept if len(kept) > 1 else kept[0])
    assert {*names} & {*schedule} == ({*kept} if len(kept) > 1 else set())
    assert {"schedule.family", "optimizer.b1"} <= {change.name for change in found.changes}


def test_what_is_not_searched_stays(mixed):
    folder, found = mixed
    before, after = tomllib.loads((folder / "config.toml").read_text()), found.config.tree
    for section in ("seed", "batch", "population", "search", "plan"):
        assert after[section] == before[section]
    assert after["task"]["hidden"] == before["task"]["hidden"]
    searched = {change.name for change in found.changes}
    assert searched <= {"schedule.family", *load_config(folder / "config.toml")[0].space.axes}


@pytest.mark.parametrize("family", [0, 1])
def test_one_family_left_stands_by_its_name(tmp_path, family):
    schedule = {
        "name": ["table", "cosine"],
        "cosine": {"end": {"low": 0.0, "high": 1.0}},
        "table": {"values": [1.0, {"low": 0.0, "high": 1.0}]},
        "warmup": {"low": 0.0, "high": 0.4},
    }
    tree = ORACLE | {"schedule": schedule, "population": {"size": 8, "segment_steps": 2, "generations": 1}}
    other = ("schedule.cosine.end", "schedule.table.values.1")
    start = {"schedule.family": [float(family)] * 8, "schedule.warmup": [0.2] * 8, other[family]: [math.nan] * 8}
    start[other[1 - family]] = np.linspace(0.4, 0.6, 8).tolist()
    tune(tree | {"optimizer": ORACLE["optimizer"] | {"learning_rate": 0.01}}, start=start, out=tmp_path / "r")
    found = refine(tmp_path / "r")
    after = found.config.tree["schedule"]
    assert after["name"] == ("table", "cosine")[family]
    own = after["values"][1] if family == 0 else after["end"]
    assert own["low"] >= 0.3
    assert own["high"] <= 0.7
    assert after["warmup"]["low"] == pytest.approx(0.15)
    assert after["warmup"]["high"] == pytest.approx(0.25)
    assert load_config(write(tmp_path / "next.toml", found.as_toml()))[0].tree == found.config.tree


def write(path, text):
    path.write_text(text)
    return path


def test_a_stopped_run_can_be_refined(tmp_path):
    tree = {section: dict(table) for section, table in SMALL.items()}
    stopped = tune(tree, out=tmp_path / "r", should_stop=lambda: True)
    assert stopped.status == "interrupted"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VmaptuneWarning)
        found = refine(tmp_path / "r")
    assert (found.trials, found.good, found.step) == (8, 4, 5)
    assert found.changes


def test_a_coarse_stage_is_followed_by_all_of_the_data(tmp_path):
    tree = {section: dict(table) for section, table in SMALL.items()} | {"data": {"fraction": 0.5, "classes": [0, 1, 2]}}
    tree["population"] |= {"generations": 1}
    tune(tree, out=tmp_path / "r")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VmaptuneWarning)
        found = refine(tmp_path / "r")
    assert found.config.tree["data"] == {"fraction": 1.0, "classes": [], "placement": "auto"}
    assert found.task.splits.size("train") == 1077
    assert [c[:3] for c in found.changes if c.name.startswith("data")] == [
        ("data.fraction", 0.5, 1.0),
        ("data.classes", [0, 1, 2], []),
    ]


def test_a_task_from_python_is_passed_again(blob_task, tmp_path):
    small = {"batch": {"size": 16}, "population": {"size": 4, "segment_steps": 2, "generations": 1}}
    axis = {"low": 1e-3, "high": 1e-1, "scale": "log"}
    tune(small | {"optimizer": {"learning_rate": axis}}, task=blob_task, out=tmp_path / "r")
    with pytest.raises(ConfigError, match=r"its task was passed from Python; pass it here too: refine\(run, task=...\)"):
        refine(tmp_path / "r")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VmaptuneWarning)
        found = refine(tmp_path / "r", task=blob_task)
    assert found.trials == 4
    next_run = tune(write(tmp_path / "next.toml", found.as_toml()), task=blob_task, out=tmp_path / "next")
    assert next_run.config.tree == found.config.tree


def test_what_cannot_be_refined_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(StoreError, match="no such folder"):
        refine(tmp_path / "nothing")
    size = {"size": 1, "segment_steps": 1, "generations": 1}
    tune(ORACLE | {"population": size, "optimizer": {"name": "sgd", "learning_rate": 0.1}}, out=tmp_path / "plain")
    with pytest.raises(ConfigError, match="nothing was searched, so there is nothing to refine"):
        refine(tmp_path / "plain")
    searched(tmp_path / "few", 0.1, 0.2, population={"size": 2, "segment_steps": 1, "generations": 1})
    with pytest.raises(ConfigError, match="too few sound trials to refine by: expected 4 or more; found: 2"):
        refine(tmp_path / "few")


# --------------------------------------------------------------------------------------------------------- command line


@pytest.mark.filterwarnings("always::vmaptune.errors.VmaptuneWarning")  # on stderr, as users see them
def test_the_command_writes_the_config_and_prints_what_it_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    searched(Path("r"), 1e-3, OPTIMUM / 4)
    result = call("refine", "r")
    assert result.exit_code == 0, result.output
    assert "Warning: optimizer.learning_rate: the best trial sits on the high end" in result.stderr
    assert "next.toml written; then: vmaptune run next.toml" in result.stderr
    assert "r: around the best 6 of 24 trials after 40 steps" in result.stdout
    row = next(line for line in result.stdout.splitlines() if line.startswith("optimizer.learning_rate"))
    assert "narrowed around the best and widened at its high end" in row
    refused = call("refine", "r")
    assert (refused.exit_code, refused.stderr) == (2, "Error: next.toml: is there already; --force replaces it\n")
    facts = json.loads(call("refine", "r", "--force", "--json").stdout)
    assert (facts["trials"], facts["changes"][0]["name"]) == (24, "optimizer.learning_rate")
    assert call("refine", "r", "--out", "-").stdout == Path("next.toml").read_text()
    both = call("refine", "r", "--out", "-", "--json")
    assert both.exit_code == 2
    assert "give one of the two" in both.stderr
    assert call("check", "next.toml").exit_code == 0
