import copy
import json
import math
import tomllib
from pathlib import Path

import pytest

from vmaptune.config import resolve
from vmaptune.errors import ConfigError
from vmaptune.settings import settings
from vmaptune.space import Axis
from vmaptune.toml import default_tree, load_config, override, read_toml, to_toml

LOG = {"low": 1e-4, "high": 1e-1, "scale": "log"}

# -------------------------------------------------------------------------------------------------------------- writing

VARIANTS = {
    "defaults": {},
    "fixed numbers": {"seed": 7, "optimizer": {"learning_rate": 3e-4, "weight_decay": 1e-6, "eps": 1e-12, "b2": 0.98}},
    "whole numbers": {"optimizer": {"learning_rate": 1, "clip_norm": 10}},
    "extreme numbers": {"optimizer": {"learning_rate": 1.2345678901234567e-30, "clip_norm": 1e22}},
    "sgd": {"optimizer": {"name": "sgd", "momentum": 0.0, "nesterov": True}},
    "random": {"search": {"method": "random"}},
    "an endless clip": {"optimizer": {"clip_norm": math.inf}},
    "a log axis": {"optimizer": {"learning_rate": LOG}},
    "an integer axis": {"optimizer": {"clip_norm": {"low": 1, "high": 8, "integer": True}}},
    "an integer log axis": {"optimizer": {"clip_norm": {"low": 1, "high": 8, "scale": "log", "integer": True}}},
    "a choices axis": {"optimizer": {"b1": {"choices": [0.0, 0.9, 0.5]}}, "task": {"dropout": {"choices": [0, 0.5]}}},
    "an axis object": {"optimizer": {"weight_decay": Axis(1e-6, 1e-2, "log")}},
    "a schedule with knobs": {"schedule": {"name": "cosine", "warmup": {"low": 0.0, "high": 0.3}, "end": 0.1}},
    "nested schedules": {
        "schedule": {
            "name": "cosine",
            "weight_decay": {"name": "cosine", "warmup": {"choices": [0.0, 0.1]}, "end": 0.5},
            "dropout": {"name": "constant"},
        }
    },
    "a nested learning rate": {"schedule": {"learning_rate": {"name": "cosine", "warmup": 0.2}}},
    "groups": {
        "groups": {
            "head": {"match": "head.*", "learning_rate": LOG},
            "body": {"match": ["hidden.*.kernel", "hidden.*.bias"], "learning_rate": 0.5},
        }
    },
    "parts that are not trained": {"init": {"freeze": ["hidden.*"]}, "precision": {"compute": "bfloat16", "remat": True}},
    "sizes": {
        "batch": {"size": 8, "order": "independent"},
        "population": {"size": 3, "segment_steps": 2, "generations": 1},
        "checkpoint": {"every": 5},
        "plan": {"devices": 1, "chunk": 3},
        "search": {"quantile": 0.5, "sigma": 0, "resample": 1},
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_written_resolves_to_the_same_config(variant, blob_task):
    config, _ = resolve({"batch": {"size": 32}} | VARIANTS[variant], task=blob_task)
    text = to_toml(config, blob_task)
    tree = tomllib.loads(text)
    again, _ = resolve(tree, task=blob_task)
    assert again == config
    assert again.run_id == config.run_id
    assert tree == config.tree
    assert to_toml(again, blob_task) == text


@pytest.mark.parametrize(
    "assignments",
    [
        [],
        ["task.hidden=[8, 16, 8]", "task.dropout=0.5"],
        ["task.hidden=[]", "optimizer.name=sgd", "search.method=random", "schedule.name=constant"],
    ],
)
def test_the_default_is_written_with_its_task(assignments):
    config, task = load_config(None, assignments)
    tree = tomllib.loads(to_toml(config, task))
    assert tree == config.tree
    assert resolve(tree)[0] == config


def test_a_config_with_values_is_written():
    config, task = load_config()
    single = config.with_values(
        {"task.dropout": 0.1, "optimizer.learning_rate": 0.01, "optimizer.weight_decay": 1e-5, "schedule.warmup": 0.2}
    )
    assert resolve(tomllib.loads(to_toml(single, task)))[0] == single


def test_every_setting_is_written_below_its_explanation(blob_task):
    config, _ = resolve({"batch": {"size": 32}}, task=blob_task)
    lines = to_toml(config, blob_task).splitlines()
    for i, line in enumerate(lines):
        assert not line or line[0] in "#[" or lines[i - 1].startswith("# "), line
    assert "# Pull of the weights to zero, in proportion to their size. (float >= 0, or an axis)" in lines
    assert "# How it rises. linear and cosine have no power. (linear | cosine | exponential | polynomial)" in lines
    assert "# What the learning rate is multiplied by; 1: it never falls. (float > 0 and <= 1, or an axis)" in lines
    assert "# shuffles for itself. (shared | independent)" in lines
    assert "# Share of the population replaced, and share that may be copied. (float >= 0 and <= 0.5)" in lines
    assert "# Probability of zeroing a hidden activation while training. (float >= 0 and < 1, or an axis)" in lines


def test_comments_keep_to_the_line_length(blob_task):
    config, _ = resolve({"batch": {"size": 32}}, task=blob_task)
    text = to_toml(config, blob_task, header="A long header. " * 30)
    assert max(map(len, text.splitlines())) <= 128


def test_the_header_stands_on_top(blob_task):
    config, _ = resolve({"batch": {"size": 32}}, task=blob_task)
    plain = to_toml(config, blob_task)
    assert to_toml(config, blob_task, header="Written by a test.") == f"# Written by a test.\n\n{plain}"


def test_the_default_tree_is_a_fresh_copy():
    default_tree()["optimizer"]["name"] = "spoilt"
    assert default_tree()["optimizer"]["name"] == "adamw"


# ----------------------------------------------------------------------------------------------------------- overriding

TREE = {
    "seed": 1,
    "optimizer": {"name": "adamw", "learning_rate": LOG, "b1": 0.8, "clip_norm": 1.0},
    "schedule": {
        "name": "cosine",
        "warmup": 0.1,
        "weight_decay": {"name": "cosine", "warmup": 0.1, "end": 0.5},
    },
    "search": {"method": "truncation", "quantile": 0.2},
}

OVERRIDES = [
    ([], {}),
    (["seed=2"], {"seed": 2}),
    (["seed=2", "seed=3"], {"seed": 3}),
    ([" seed = 2 "], {"seed": 2}),
    (["optimizer.b1=0.5"], {"optimizer": TREE["optimizer"] | {"b1": 0.5}}),
    (["optimizer.b1=0.5", "optimizer.b2=0.9"], {"optimizer": TREE["optimizer"] | {"b1": 0.5, "b2": 0.9}}),
    (["optimizer.clip_norm=inf"], {"optimizer": TREE["optimizer"] | {"clip_norm": math.inf}}),
    (["optimizer.nesterov=true"], {"optimizer": TREE["optimizer"] | {"nesterov": True}}),
    (
        ["optimizer.learning_rate={low = 0.1, high = 0.2}"],
        {"optimizer": TREE["optimizer"] | {"learning_rate": {"low": 0.1, "high": 0.2}}},
    ),
    (["optimizer.learning_rate=1e-3"], {"optimizer": TREE["optimizer"] | {"learning_rate": 1e-3}}),
    (["task.hidden=[8, 8]"], {"task": {"hidden": [8, 8]}}),
    (["task.name=my.tasks:build"], {"task": {"name": "my.tasks:build"}}),
    (["task.name=./my-tasks/file_1.py:build"], {"task": {"name": f"{Path.cwd()}/my-tasks/file_1.py:build"}}),
    (['task.name="a b = c"'], {"task": {"name": "a b = c"}}),
    (["init.freeze=hidden.*"], {"init": {"freeze": "hidden.*"}}),
    (["groups.head.match=head.*"], {"groups": {"head": {"match": "head.*"}}}),
    (["batch.order=independent"], {"batch": {"order": "independent"}}),
    # Another row keeps what it knows, and drops the rest.
    (["optimizer.name=sgd"], {"optimizer": {"name": "sgd", "learning_rate": LOG, "clip_norm": 1.0}}),
    (
        ["optimizer.name=sgd", "optimizer.momentum=0.5"],
        {"optimizer": {"name": "sgd", "learning_rate": LOG, "clip_norm": 1.0, "momentum": 0.5}},
    ),
    (["optimizer.name=adamw"], {}),
    (["search.method=random"], {"search": {"method": "random"}}),
    # Nested schedules are settings of their own.
    (
        ["schedule.name=constant"],
        {"schedule": {"name": "constant", "warmup": 0.1, "weight_decay": TREE["schedule"]["weight_decay"]}},
    ),
    (["schedule.name=rex", "schedule.beta=2"], {"schedule": TREE["schedule"] | {"name": "rex", "beta": 2}}),
    # A list of families keeps the warm-up that they share, all of it.
    (
        ['schedule.name=["cosine", "rex"]', "schedule.rex.beta=2"],
        {"schedule": TREE["schedule"] | {"name": ["cosine", "rex"], "rex": {"beta": 2}}},
    ),
    (
        ['schedule.weight_decay.name=["cosine", "rex"]'],
        {"schedule": TREE["schedule"] | {"weight_decay": {"name": ["cosine", "rex"], "warmup": 0.1}}},
    ),
    (["plateau.factor=0.5"], {"plateau": {"factor": 0.5}}),
    (
        ["schedule.weight_decay.end=0.25"],
        {"schedule": TREE["schedule"] | {"weight_decay": {"name": "cosine", "warmup": 0.1, "end": 0.25}}},
    ),
    (
        ["schedule.weight_decay.name=constant"],
        {"schedule": TREE["schedule"] | {"weight_decay": {"name": "constant", "warmup": 0.1}}},
    ),
    (
        ["schedule.b1.name=cosine", "schedule.b1.end=0.5"],
        {"schedule": TREE["schedule"] | {"b1": {"name": "cosine", "end": 0.5}}},
    ),
]


@pytest.mark.parametrize(("assignments", "change"), OVERRIDES, ids=[" ".join(a) or "none" for a, _ in OVERRIDES])
def test_assignments_change_the_tree(assignments, change):
    tree = copy.deepcopy(TREE)
    assert override(tree, assignments) == TREE | change
    assert tree == TREE


def test_an_override_cannot_hide_a_mistake():
    """Settings that were assigned are never dropped with those of the row that was left."""
    tree = override(default_tree(), ["optimizer.name=sgd", "optimizer.b1=0.9"])
    with pytest.raises(ConfigError, match="sgd has no setting 'b1'"):
        resolve(tree)


def test_an_axis_is_replaced_whole():
    tree = override(TREE, ["optimizer.learning_rate.low=0.1", "optimizer.learning_rate.high=0.2"])
    assert tree["optimizer"]["learning_rate"] == {"low": 0.1, "high": 0.2}


BAD_ASSIGNMENTS = [
    (["seed"], "--set: expected key=value, such as optimizer.b1=0.95; given: 'seed'"),
    ([""], "--set: expected key=value, such as optimizer.b1=0.95; given: ''"),
    (["=1"], "--set: expected key=value, such as optimizer.b1=0.95; given: '=1'"),
    (["optimizer.=1"], "--set: expected key=value, such as optimizer.b1=0.95; given: 'optimizer.=1'"),
    (["optimizer..b1=1"], "--set: expected key=value, such as optimizer.b1=0.95; given: 'optimizer..b1=1'"),
    (["optimizer.b1="], "--set optimizer.b1: not a TOML value; given: ''"),
    (["optimizer.b1=0.9 0.8"], "--set optimizer.b1: not a TOML value; given: '0.9 0.8'"),
    (["optimizer.b1={low = 0.1"], "--set optimizer.b1: not a TOML value; given: '{low = 0.1'"),
    (["task.hidden=[8, 8"], "--set task.hidden: not a TOML value; given: '[8, 8'"),
    (['task.name="a'], "--set task.name: not a TOML value; given: '\"a'"),
    (
        ["optimizer=adamw", "optimizer.b1=0.9"],
        "--set optimizer.b1: optimizer was given a value already, so nothing can stand below it",
    ),
    (
        ["optimizer.b1=0.9", "optimizer.b1.low=0.1"],
        "--set optimizer.b1.low: b1 was given a value already, so nothing can stand below it",
    ),
]


@pytest.mark.parametrize(("assignments", "sentence"), BAD_ASSIGNMENTS)
def test_a_bad_assignment_is_refused_in_one_sentence(assignments, sentence):
    with pytest.raises(ConfigError) as error:
        override(TREE, assignments)
    assert str(error.value) == sentence


BAD_SETTINGS = [
    ("optimizer=adamw", "default config: optimizer: expected a table, [optimizer]; given: 'adamw'"),
    ("seed.x=1", "default config: seed: expected int >= 0 and < 4294967296; given: {'x': 1}"),
    ("optimizer.b1=high", "default config: optimizer.b1: expected float >= 0 and < 1; given: 'high'"),
    ("optimizer.name=sdg", "default config: optimizer.name: there is no optimizer 'sdg'; did you mean 'sgd'?"),
    ("optimizr.b1=0.9", "default config: there is no section or setting 'optimizr'; did you mean 'optimizer'?"),
    ("population.size=2.5", "default config: population.size: expected int >= 1; given: 2.5"),
]


@pytest.mark.parametrize(("assignment", "sentence"), BAD_SETTINGS)
def test_an_assignment_is_checked_like_the_file(assignment, sentence):
    with pytest.raises(ConfigError) as error:
        load_config(None, [assignment])
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    "assignment", ["optimizer.name=[1]", "schedule.name={}", "search.method={a = 1}", "schedule.weight_decay.name=[]"]
)
def test_a_row_is_assigned_by_a_string(assignment):
    with pytest.raises(ConfigError):
        load_config(None, ["schedule.weight_decay.name=constant", assignment])


def test_one_assignment_is_one_value():
    """What follows a line break would be dropped without a word."""
    with pytest.raises(ConfigError):
        override(TREE, ["seed=1\nbatch.size=2"])


# -------------------------------------------------------------------------------------------------------------- reading


def test_the_default_config_is_loaded():
    config, task = load_config()
    assert config == resolve(default_tree())[0]
    assert task.metric == "accuracy"


def test_a_file_is_loaded_with_assignments_and_a_seed(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("seed = 1\n[task]\nhidden = [8]\n[optimizer]\nb1 = 0.8\n")
    for where in (path, str(path)):
        config, _ = load_config(where, ["optimizer.b1=0.7", "seed=2"], seed=3)
        assert config.seed == 3
        assert config.optimizer.values["b1"] == 0.7
        assert config.task.values["hidden"] == (8,)
    assert load_config(path)[0].seed == 1
    assert load_config(path, seed=0)[0].seed == 0


def test_an_error_names_the_file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("[optimizer]\nlr = 0.1\n")
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(error.value) == f"{path}: optimizer: adamw has no setting 'lr'; did you mean 'learning_rate'?"


def test_a_missing_file_is_named_with_the_way_out(tmp_path):
    path = tmp_path / "absent.toml"
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(error.value) == f"{path}: no such file; `vmaptune init {path}` writes a commented one"


BROKEN = [
    ("seed = \n", "line 1"),
    ("seed = 1\n[optimizer\n", "line 2"),
    ("seed = 1\n\n[optimizer]\nb1 = 0.9.9\n", "line 4"),
    ("seed = 1\nseed = 2\n", "line 2"),
    ("[batch]\nsize = 32\n[batch]\n", "line 3"),
    ("[task]\nname = digits\n", "line 2"),
]


@pytest.mark.parametrize(("text", "line"), BROKEN)
def test_broken_toml_is_refused_with_its_line(text, line, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_toml(path)
    assert str(error.value).startswith(f"{path}: not TOML: ")
    assert f"at {line}," in str(error.value)


def test_a_folder_is_no_config(tmp_path):
    with pytest.raises(ConfigError) as error:
        read_toml(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}: cannot be read: ")


def test_bytes_that_are_no_text_are_no_config(tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(b"seed = 1\n\xff\xfe")
    with pytest.raises(ConfigError) as error:
        read_toml(path)
    assert str(error.value).startswith(f"{path}: cannot be read: ")


def test_text_is_read_as_utf8(tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes("# Größe\nseed = 4\n".encode())
    assert read_toml(path) == {"seed": 4}


def test_a_task_file_is_named_from_where_its_config_lies(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here" / "task_beside_a_config.py").write_text(
        "from vmaptune.tasks import digits\n\ndef build(*, hidden: int = 8):\n    return digits(hidden=(hidden,))\n"
    )
    path = tmp_path / "here" / "run.toml"
    path.write_text('[task]\nname = "task_beside_a_config.py:build"\nhidden = 4\n')
    monkeypatch.chdir(tmp_path / "elsewhere")
    config, task = load_config(path)
    assert config.task.values == {s.name: s.default for s in settings(task.loss).values()} | {"hidden": 4}
    assert config.task.name == f"{tmp_path / 'here' / 'task_beside_a_config.py'}:build"
    assert resolve(tomllib.loads(to_toml(config, task)))[0] == config


def test_the_default_config_names_only_what_exists():
    tree = default_tree()
    assert json.loads(resolve(tree)[0].canonical_json)["optimizer"]["name"] == tree["optimizer"]["name"]
    config, task = resolve(tree)
    for section, choice in (("task", config.task), ("optimizer", config.optimizer), ("search", config.search)):
        assert set(tree[section]) - {"name", "method"} <= set(choice.values)
    assert "dropout" in settings(task.loss)
