"""Hyperparameter sets that a run is told to train: kept as start.csv, trained in the order of their trials, and no others."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmaptune.config import resolve
from vmaptune.errors import ConfigError, StoreError
from vmaptune.loop import tune
from vmaptune.space import Axis, Space
from vmaptune.store.folder import RunFolder
from vmaptune.store.start import read_start, start_csv

TREE = {
    "batch": {"size": 16},
    "optimizer": {
        "learning_rate": {"low": 1e-4, "high": 1e-1, "scale": "log"},
        "b1": {"choices": [0.0, 0.5, 0.9]},
        "clip_norm": {"low": 1, "high": 8, "integer": True},
    },
    "population": {"size": 3, "segment_steps": 2, "generations": 2},
    "search": {"method": "random", "trials": 8},
    "plan": {"generations_per_dispatch": 1},
}
TABLE = {  # seven trials: two rounds, and one trial of the third, of which one other is drawn and the last slot stays empty
    "optimizer.b1": [0.9, 0.0, 0.5, 0.5, 0.9, 0.0, 0.9],
    "optimizer.learning_rate": [1e-4, 1e-1, 3e-3, 0.0123456789, 2e-2, 5e-4, 1 / 300],
    "optimizer.clip_norm": [1, 8, 2, 3, 7, 4, 5],
}


def trained(history, names=tuple(TABLE)):
    """The hyperparameters of each trial, in order, as they were in every generation of it."""
    columns = {}
    for name in names:
        of_trials = [np.unique(history[name][history["trial"] == trial]) for trial in range(history["trial"].max() + 1)]
        assert {len(values) for values in of_trials} == {1}, "a trial changed its settings"
        columns[name] = np.concatenate(of_trials)
    return columns


@pytest.fixture(scope="module")
def run(blob_task, tmp_path_factory):
    """Three slots that train the table, and go on by the search method."""
    return tune(TREE, task=blob_task, out=tmp_path_factory.mktemp("start") / "run", start=TABLE)


def test_trials_have_the_given_settings_in_their_order(run):
    for name, column in trained(run.history).items():
        assert len(column) == 8
        np.testing.assert_allclose(column[:7], TABLE[name], rtol=1e-5)
    drawn = trained(run.history)["optimizer.learning_rate"][7:]
    assert not np.isclose(drawn[:, None], TABLE["optimizer.learning_rate"], rtol=1e-3).any()


def test_the_rounds_refill_the_slots_in_their_order(run):
    history = run.history
    assert run.config.total_generations == history["generation"].max() + 1 == 6
    np.testing.assert_array_equal(history["trial"], history["generation"] // 2 * 3 + history["slot"])
    np.testing.assert_array_equal(history["step"], (history["generation"] % 2 + 1) * 2)
    assert run.compilations["generations"] == 1
    assert run.member_steps == 8 * 4


def test_the_best_of_all_rounds_is_the_winner(run):
    finished = run.history[run.history["step"] == 4]
    assert run.best.step == 4
    assert run.best.validation["accuracy"] == pytest.approx(finished["validation.accuracy"].max())


def test_a_refilled_trial_is_what_it_would_be_in_the_first_round(run, blob_task, tmp_path):
    """Every round sees the same batches, and weights come from the trial's number: only the place differs."""
    wide = TREE | {"population": TREE["population"] | {"size": 7}, "search": {"method": "random"}}
    side_by_side = tune(wide, task=blob_task, out=tmp_path / "run", start=TABLE)
    for trial in range(7):
        one, other = (h[h["trial"] == trial] for h in (run.history, side_by_side.history))
        for name in ("train.loss", "validation.loss"):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-6)


def test_the_table_lies_in_the_run_folder(run):
    kept = read_start(RunFolder(run.run).start)
    assert list(kept) == list(TABLE)
    for name, column in TABLE.items():
        np.testing.assert_array_equal(kept[name], column)  # not one bit is lost


def test_a_run_that_was_begun_without_a_table_goes_on_without(blob_task, tmp_path):
    tree = TREE | {"search": {"method": "random", "trials": 4}, "population": {"size": 2, "segment_steps": 1, "generations": 1}}
    whole = tune(tree, task=blob_task, out=tmp_path / "whole")
    assert not RunFolder(whole.run).start.exists()
    part = tune(tree, task=blob_task, out=tmp_path / "part", should_stop=lambda: True)
    assert part.status == "interrupted"
    went_on = tune(tree, task=blob_task, out=tmp_path / "part", start=TABLE, resume=True)
    assert not RunFolder(went_on.run).start.exists()
    for name in TABLE:
        np.testing.assert_array_equal(went_on.history[name], whole.history[name])


@pytest.mark.parametrize("given_again", [None, {name: column[::-1] for name, column in TABLE.items()}])
def test_a_run_that_goes_on_keeps_to_the_table_of_its_folder(given_again, run, blob_task, tmp_path):
    seen = []
    sink = SimpleNamespace(write=seen.append, close=lambda: None)
    out = tmp_path / "run"
    first = tune(TREE, task=blob_task, out=out, start=TABLE, sinks=[sink], should_stop=lambda: len(seen) >= 1)
    assert first.status == "interrupted"
    went_on = tune(TREE, task=blob_task, out=out, start=given_again, resume=True)
    assert went_on.status == "finished"
    for name in run.history.dtype.names:
        np.testing.assert_array_equal(went_on.history[name], run.history[name])
    np.testing.assert_array_equal(read_start(out / "start.csv")["optimizer.b1"], TABLE["optimizer.b1"])


def test_a_search_method_that_moves_begins_with_the_table(blob_task, tmp_path):
    tree = TREE | {
        "search": {"method": "truncation", "quantile": 0.4},
        "population": {"size": 5, "segment_steps": 2, "generations": 3},
    }
    history = tune(tree, task=blob_task, out=tmp_path / "run", start=TABLE).history
    first = history[history["generation"] == 0]
    for name, column in TABLE.items():
        np.testing.assert_allclose(first[name], column[:5], rtol=1e-5)
    children = history[(history["trial"] >= 5) & (history["generation"] == 1)]
    assert len(children) == 2  # copies are no trials of the table: they take their parents' settings, perturbed
    rows = np.array(TABLE["optimizer.learning_rate"][5:])
    assert not np.isclose(children["optimizer.learning_rate"][:, None], rows[None], rtol=1e-3).any()


BAD = [
    (
        {"optimizer.learning_rat": [0.1]},
        "start: there is no axis 'optimizer.learning_rat'; did you mean 'optimizer.learning_rate'?",
    ),
    ({"zzz": [0.1]}, "start: there is no axis 'zzz'; known: " + ", ".join(sorted(TABLE))),
    (
        {"optimizer.b1": [0.5], "optimizer.clip_norm": [1]},
        "start: no column 'optimizer.learning_rate'; given: optimizer.b1, optimizer.clip_norm",
    ),
    ({}, "start: no column 'optimizer.learning_rate'; given: none"),
    (
        TABLE | {"optimizer.b1": [0.5, 0.9]},
        "start: columns must be equally long, and not empty; given: lengths [2, 7]",
    ),
    ({name: [] for name in TABLE}, "start: columns must be equally long, and not empty; given: lengths [0]"),
    (
        TABLE | {"optimizer.learning_rate": [0.1, 0.1, 0.2, 0.1, 0.1, 0.1, 0.1]},
        "start: row 3: optimizer.learning_rate: outside 0.0001..0.1; given: 0.2",
    ),
    (
        TABLE | {"optimizer.learning_rate": [0.1, math.inf, 0.2, 0.1, 0.1, 0.1, 0.1]},
        "start: row 2: optimizer.learning_rate: outside 0.0001..0.1; given: inf",
    ),
    (
        TABLE | {"optimizer.b1": [0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.8]},
        "start: row 7: optimizer.b1: not one of the choices [0.0, 0.5, 0.9]; given: 0.8",
    ),
    (
        TABLE | {"optimizer.clip_norm": [1.5, 1, 1, 1, 1, 1, 1]},
        "start: row 1: optimizer.clip_norm: an integer axis has whole values only; given: 1.5",
    ),
]


@pytest.mark.parametrize(("table", "sentence"), BAD, ids=[sentence[7:60] for _, sentence in BAD])
def test_a_bad_table_is_refused_in_one_sentence_before_anything_is_made(table, sentence, blob_task, tmp_path):
    with pytest.raises(ConfigError) as error:
        tune(TREE, task=blob_task, out=tmp_path / "run", start=table)
    assert str(error.value) == sentence
    assert not (tmp_path / "run").exists()


def test_a_table_for_nothing_to_search_is_refused(blob_task):
    config, _ = resolve({"batch": {"size": 16}}, task=blob_task)
    with pytest.raises(ConfigError, match=r"start: there is no axis 'optimizer\.b1'"):
        config.space.encode_columns({"optimizer.b1": [0.5]})


# --------------------------------------------------------------------------------------------------------- the file

numbers = st.floats(allow_infinity=False)


@given(
    names=st.lists(st.text("abc._", min_size=1, max_size=8), min_size=1, max_size=4, unique=True),
    rows=st.lists(st.lists(numbers, min_size=4, max_size=4), max_size=6),
)
def test_a_table_reads_back_as_the_same_numbers(names, rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "start.csv"
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    path.write_text(start_csv(columns), encoding="utf-8")
    again = read_start(path)
    assert list(again) == names
    for name in names:
        np.testing.assert_array_equal(again[name], np.array(columns[name], float))


def test_an_empty_cell_stands_for_no_number():
    text = start_csv({"a": [1.0, math.nan], "b": [math.nan, 0.1]})
    assert text == "a,b\n1.0,\n,0.1\n"


def test_numpy_numbers_are_written_as_numbers():
    assert start_csv({"a": np.array([1, 2]), "b": np.float32([0.5, 0.25])}) == "a,b\n1.0,0.5\n2.0,0.25\n"


BROKEN = [
    ("a,b\n1,2\n3\n", "line 3 has 1 cells; the first line has 2"),
    ("a,b\n1,2,3\n", "line 2 has 3 cells; the first line has 2"),
    ("a,b\n1,x\n", "line 2, b: expected a number; given: 'x'"),
]


@pytest.mark.parametrize(("text", "sentence"), BROKEN)
def test_a_broken_file_is_refused_in_one_sentence(text, sentence, tmp_path):
    path = tmp_path / "start.csv"
    path.write_text(text)
    with pytest.raises(StoreError) as error:
        read_start(path)
    assert str(error.value) == f"{path}: {sentence}"


@pytest.mark.parametrize("text", [b"", b"\xff\xfe"])
def test_a_file_that_is_no_table_is_refused(text, tmp_path):
    path = tmp_path / "start.csv"
    path.write_bytes(text)
    with pytest.raises(StoreError) as error:
        read_start(path)
    assert str(error.value).startswith(f"{path}: cannot be read as a table of trials: ")
    with pytest.raises(StoreError):
        read_start(tmp_path / "absent.csv")


# ---------------------------------------------------------------------------------------------------------- genotypes


@given(st.lists(st.floats(1e-4, 1e-1), min_size=8, max_size=8))
def test_encoded_columns_decode_to_the_given_numbers(values):
    space = Space({"x": Axis(1e-4, 1e-1, "log"), "y": Axis(-1.0, 2.0), "c": 3.0})
    columns = {"y": [10 * value for value in values], "x": values}
    genotypes = space.encode_columns(columns)
    assert genotypes.dtype == np.float32
    assert genotypes.shape == (len(values), 2)
    decoded = space.decode(genotypes)
    np.testing.assert_allclose(decoded["x"], values, rtol=1e-5)
    np.testing.assert_allclose(decoded["y"], columns["y"], rtol=1e-5, atol=1e-6)


def test_a_knob_that_does_not_matter_lies_in_the_middle():
    space = Space({"x": Axis(0.0, 1.0), "y": Axis(0.0, 1.0)})
    columns = {"x": [math.nan, 0.25], "y": [0.75, math.nan]}
    np.testing.assert_allclose(space.encode_columns(columns, optional={"x", "y"}), [[0.5, 0.75], [0.25, 0.5]])
    with pytest.raises(ConfigError, match=r"start: row 1: x: outside 0\.\.1; given: nan"):
        space.encode_columns(columns, optional={"y"})


def test_what_is_no_number_is_refused():
    with pytest.raises(ConfigError, match=r"start: x: expected numbers; given: \['much'\]"):
        Space({"x": Axis(0.0, 1.0)}).encode_columns({"x": ["much"]})
