"""A config for data of your own: what is inferred, and `vmaptune run --data` from a file to a winner."""

import json
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from vmaptune.cli.main import main
from vmaptune.config import resolve
from vmaptune.data.tables import read_table
from vmaptune.errors import ConfigError
from vmaptune.suggest import suggested
from vmaptune.toml import load_config

TINY = (
    *("population.size=4", "population.segment_steps=2", "population.generations=1", "task.hidden=[4]"),
    *("task.dropout=0.0", "schedule.name=constant", "optimizer.clip_norm=inf"),
)


def flowers(n=120, rare=40):
    """Two kinds, told apart by their width; `rare` of the second."""
    rng = np.random.default_rng(0)
    kind = np.arange(n) < rare
    frame = {"width": rng.normal(size=n) + 3 * kind, "colour": rng.choice(["red", "blue"], n), "weight": rng.normal(size=n)}
    return pl.DataFrame(frame | {"kind": np.where(kind, "iris", "rose")})


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flowers().write_csv("flowers.csv")
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="vmaptune")


def test_what_is_suggested_is_a_config_and_says_why(here):
    tree, said = suggested("flowers.csv", "kind")
    config, task = resolve(tree)
    assert config.task.name == "table"
    assert {"task.dropout", "optimizer.learning_rate", "optimizer.weight_decay", "schedule.warmup"} == {*config.space.axes}
    assert (task.metric, task.splits.size("train")) == ("accuracy", 72)
    assert said[:3] == [
        "flowers.csv is a table: task table",
        "classification of 'kind': it holds text",
        "cut stratified: by class",
    ]
    assert said[-2] == "members are selected by accuracy: the rarest of 2 classes, 'iris', has 24 rows of 72"
    assert tree["task"]["path"] == str(here / "flowers.csv")
    size = config.population
    assert said[-1].startswith(f"{size.size} members train for 20 generations of {size.segment_steps} steps, 16 examples")


def test_a_rare_class_and_a_regression_are_met_with_their_own(here):
    flowers(rare=18).write_parquet("rare.parquet")
    tree, said = suggested("rare.parquet", "kind")
    assert tree["task"]["class_balance"] == {"low": 0.0, "high": 1.0}
    assert any(each.startswith("members are selected by roc_auc: the rarest of 2 classes, 'iris', has 1") for each in said)
    assert resolve(tree)[1].metric == "roc_auc"
    tree, said = suggested("flowers.csv", "weight")
    assert "regression of 'weight': it holds numbers that are not whole" in said
    assert resolve(tree)[1].metric == "r2"
    assert f"rmse and mae are in standard deviations of 'weight': 1 is {read_table('flowers.csv', 'weight').scale:.2g}" in said
    decided = ("task.target=kind", "task.metric=f1", "task.split_seed=3", "task.hidden=[5]", "population.size=4")
    settled, said = suggested("flowers.csv", assignments=(*decided, "population.segment_steps=1", "population.generations=2"))
    assert said[-1] == "4 members train for 2 generations of 1 step, 16 examples a step: 0.44 epochs"
    assert "class_balance" not in settled["task"]
    assert settled["task"]["hidden"] == [5]


def test_more_data_is_given_larger_networks_and_batches_and_no_more_work_than_a_minute(here):
    rng = np.random.default_rng(0)
    sizes = []
    for n, features in ((100, 3), (3_000, 20), (34_000, 60)):
        columns = rng.normal(size=(features, n)).astype(np.float32)
        pl.DataFrame({f"x{i}": column for i, column in enumerate(columns)} | {"y": columns[0]}).write_parquet("n.parquet")
        tree, _ = suggested("n.parquet", "y")
        population, widths = tree["population"], [features, *tree["task"]["hidden"], 1]
        steps = population["segment_steps"] * population["generations"]
        weights = sum(a * b for a, b in pairwise(widths))
        assert 6 * weights * tree["batch"]["size"] * steps * population["size"] <= 4e12
        sizes.append((widths[1], tree["batch"]["size"], population["size"], steps))
    assert sizes == sorted(sizes, key=lambda row: row[0])
    assert [row[1] for row in sizes] == [16, 128, 128]
    assert [row[2] for row in sizes][:2] == [64, 64]
    assert sizes[2][2] < 64


def test_what_arrays_and_texts_hold_is_said(here):
    rng = np.random.default_rng(0)
    np.savez("c.npz", x=rng.normal(size=(60, 6, 6)), y=np.arange(60) % 3)
    np.savez("r.npz", x=rng.normal(size=(60, 5)), y=rng.normal(size=60))
    (here / "t.txt").write_text("abcd" * 500)
    classes, numbers, letters = (suggested(path)[1][1:] for path in ("c.npz", "r.npz", "t.txt"))
    parts = "36 examples to train on, 12 to select by, 12 to test the winner"
    assert classes[:4] == [
        "classification into 3 classes; the rarest has 12 examples",
        "inputs of shape (6, 6, 1), for a CNN",
        parts,
        "members are selected by accuracy",
    ]
    assert numbers[:4] == [
        "regression: the targets are real numbers; rmse and mae are in their standard deviations",
        "inputs of shape (5,), for an MLP",
        parts,
        "members are selected by rmse",
    ]
    assert letters[0] == "the next token is predicted, by a gru: windows of 64 tokens, 4 different ones"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nothing.csv",), "--data: there is no file or folder 'nothing.csv'"),
        (("notes.doc",), "--data: expected a folder, or a file that ends in .csv, .*; given: 'notes.doc'"),
        (("flowers.csv",), "--target: name the column of flowers.csv to predict; its columns: width, colour, weight, kind"),
        (("flowers.csv", "kin"), "task.target: flowers.csv has no column 'kin'; did you mean 'kind'?"),
        (("notes.txt", "kind"), "--target: only a table has columns, and notes.txt is a text; given: 'kind'"),
        (("flowers.csv", "kind", ["task.target=weight"]), "--set task.target: is --target already; given: 'weight'"),
        (("flowers.csv", "kind", ["task.validation=1.5"]), "task.validation: expected float > 0 and < 1; given: 1.5"),
    ],
)
def test_data_that_say_too_little_are_refused(here, arguments, sentence):
    (here / "notes.doc").write_text("")
    (here / "notes.txt").write_text("a text")
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        suggested(*arguments)


def test_run_goes_from_a_file_to_a_winner(here):
    options = [word for setting in TINY for word in ("--set", setting)]
    done = call("run", "--data", "flowers.csv", "--target", "kind", "--out", "run", "--json", *options)
    assert done.exit_code == 0, done.stderr
    facts = json.loads(done.stdout)
    assert {"loss", "accuracy"} <= {*facts["test"]}
    said = done.stderr.splitlines()
    assert said[0] == "flowers.csv is a table: task table"
    assert said[-1] == f"The config is in {facts['run']}/config.toml; edit it and go on with: vmaptune run CONFIG"
    meant = resolve(suggested("flowers.csv", "kind", TINY)[0])[0]
    assert load_config(here / "run" / "config.toml")[0].run_id == meant.run_id


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("my.toml", "--data", "flowers.csv"), "--data: infers a config, so none can be given; given: my.toml and flowers.csv"),
        (("--target", "kind"), "--target: means nothing without --data; given: 'kind'"),
        (("--data", "flowers.csv", "--target", "kind", "--set", "task.metric=r2"), "--data flowers.csv: task.metric: "),
        (("--data", "flowers.csv", "--target", "kind", "--set", "task.hiden=3"), "--data flowers.csv: task: table has no"),
    ],
)
def test_run_refuses_what_does_not_go_together(here, arguments, sentence):
    done = call("run", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(f"Error: {sentence}")
    assert not (here / "runs").exists()
