import copy
import datetime
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from vmaptune.choices import differences
from vmaptune.config import FROM_PYTHON, resolve
from vmaptune.errors import ConfigError
from vmaptune.finetuning import named
from vmaptune.loop import tune
from vmaptune.optimizers import OPTIMIZERS
from vmaptune.plateau import plateau
from vmaptune.schedules import SCHEDULES
from vmaptune.selectors import SELECTORS
from vmaptune.settings import convert, settings
from vmaptune.space import Axis
from vmaptune.tasks import TASKS, Task
from vmaptune.toml import default_tree, read_toml

BASE = {"batch": {"size": 32}}
LOG = {"low": 1e-4, "high": 1e-1, "scale": "log"}


def changed(section, **values):
    """`BASE` with values in a section."""
    return BASE | {section: BASE.get(section, {}) | values}


def defaults(*functions):
    """Every setting of some functions at its default, as TOML values."""
    found = {s.name: s.default for fn in functions for s in settings(fn).values()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def traced(*functions):
    """Names of the settings that may differ per member: those whose defaults are floats."""
    return [name for name, value in defaults(*functions).items() if type(value) is float]


def refusal(tree, **how):
    with pytest.raises(ConfigError) as error:
        resolve(tree, **how)
    return str(error.value)


# ------------------------------------------------------------------------------------------------------------ resolving


def test_the_default_resolves():
    config, task = resolve(default_tree())
    assert isinstance(task, Task)
    assert config.task.name == "digits"
    built = {"model": "mlp", "hidden": (64, 64), "layers": 0, "units": 64, "activation": "relu"}
    given = built | {"norm": "none", "residual": False, "dropout": Axis(0.0, 0.5)}
    assert config.task.values == defaults(task.loss) | given
    assert config.optimizer.values["learning_rate"] == Axis(1e-4, 1e-1, "log")
    assert (config.population.size, config.population.segment_steps, config.population.generations) == (64, 50, 20)
    assert config.population.horizon == 1000
    assert config.space.dimension == 4


def test_an_empty_tree_is_all_defaults(blob_task):
    config, task = resolve(BASE, task=blob_task)
    assert task is blob_task
    assert config.tree == {
        "seed": 0,
        "task": {"name": FROM_PYTHON} | defaults(blob_task.loss),
        "data": {"fraction": 1.0, "classes": [], "placement": "auto"},
        "init": {"from": "", "part": "*", "freeze": "", "sha256": ""},
        "batch": {"size": 32, "order": "shared", "balance": "none"},
        "optimizer": {"name": "adamw"} | defaults(OPTIMIZERS["adamw"]),
        "groups": {},
        "schedule": {"name": "constant"} | defaults(SCHEDULES["constant"]),
        "plateau": defaults(plateau),
        "precision": {"compute": "float32", "matmul": "default", "remat": False},
        "population": {"size": 64, "segment_steps": 50, "generations": 20, "seeds": 0},
        "fitness": {"final_anneal": 0, "lookahead": {"steps": 0, "shape": "linear"}},
        "search": {
            "method": "truncation",
            **defaults(SELECTORS["truncation"]),
            "replicates": 1,
            "aggregate": "median",
            "stop": {"name": "none"},
            "budget": {"steps": 0, "seconds": 0.0},
        },
        "checkpoint": {"every": 1},
        "plan": {
            "name": "auto",
            "devices": 0,
            "chunk": 0,
            "lowering": "auto",
            "unroll": 0,
            "generations_per_dispatch": 0,
        },
        "sinks": {},
    }
    usual = {"learning_rate": 1e-3, "weight_decay": 0.0, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "clip_norm": math.inf}
    off = {"nesterov": False, "l1": 0.0, "accumulate": 1.0, "average": 0.0}
    assert config.tree["optimizer"].items() >= (usual | off).items()
    assert config.tree["task"].items() >= {"dropout": 0.0, "mixup": 0.0}.items()
    assert config.tree["plateau"]["factor"] == 1.0


def test_a_tree_is_not_changed_by_resolving(blob_task):
    tree = {"optimizer": {"learning_rate": LOG}, "batch": {"size": 32}}
    before = copy.deepcopy(tree)
    resolve(tree, task=blob_task)
    assert tree == before


def test_the_tree_of_a_config_resolves_to_the_same_config(blob_task):
    tree = changed("optimizer", name="sgd", learning_rate=LOG, momentum={"choices": [0.0, 0.9]})
    config, _ = resolve(tree, task=blob_task)
    assert resolve(config.tree, task=blob_task)[0] == config


def test_axis_objects_stand_for_their_tables(blob_task):
    axis = resolve(changed("optimizer", learning_rate=Axis(1e-4, 1e-1, "log")), task=blob_task)[0]
    table = resolve(changed("optimizer", learning_rate=LOG), task=blob_task)[0]
    assert axis == table
    assert axis.run_id == table.run_id


def test_an_axis_object_is_checked_like_a_table(blob_task):
    assert refusal(changed("optimizer", b1=Axis(0.5, 2.0)), task=blob_task) == (
        "config: optimizer.b1.high: expected float >= 0 and < 1; given: 2.0"
    )
    assert refusal(changed("population", size=Axis(2.0, 8.0)), task=blob_task) == (
        "config: population.size: an axis cannot stand here, because size is static (int >= 1): it shapes the compiled "
        "program, which all members share; given: {'low': 2.0, 'high': 8.0}"
    )


def test_whole_numbers_stand_for_floats(blob_task):
    config, _ = resolve(changed("optimizer", clip_norm=1), task=blob_task)
    assert config.optimizer.values["clip_norm"] == 1.0
    assert type(config.optimizer.values["clip_norm"]) is float
    assert config.run_id == resolve(changed("optimizer", clip_norm=1.0), task=blob_task)[0].run_id


def test_a_schedule_may_shape_any_traced_setting(blob_task):
    tree = BASE | {
        "schedule": {
            "name": "cosine",
            "warmup": {"low": 0.0, "high": 0.3},
            "weight_decay": {"name": "cosine", "end": 0.5},
            "dropout": {"name": "constant"},
        }
    }
    config, task = resolve(tree, task=blob_task)
    assert list(config.schedules) == ["optimizer.learning_rate", "optimizer.weight_decay", "task.dropout"]
    assert config.space.axes == {"schedule.warmup": Axis(0.0, 0.3)}
    assert config.space.constants["schedule.weight_decay.end"] == 0.5
    cosine, constant = defaults(SCHEDULES["cosine"]), defaults(SCHEDULES["constant"])
    assert config.tree["schedule"] == {
        **{"name": "cosine"} | cosine | {"warmup": {"low": 0.0, "high": 0.3}},
        "weight_decay": {"name": "cosine"} | cosine | {"end": 0.5},
        "dropout": {"name": "constant"} | constant,
    }
    assert set(config.recipe(task).schedules) == set(config.schedules)


def test_the_learning_rate_schedule_may_stand_under_its_name(blob_task):
    nested = resolve(BASE | {"schedule": {"learning_rate": {"name": "cosine", "end": 0.1}}}, task=blob_task)[0]
    plain = resolve(BASE | {"schedule": {"name": "cosine", "end": 0.1}}, task=blob_task)[0]
    assert nested == plain
    assert nested.run_id == plain.run_id


def test_the_space_holds_every_traced_setting_and_no_other(blob_task):
    config, _ = resolve(changed("optimizer", learning_rate=LOG), task=blob_task)
    rooms = {
        "task": traced(blob_task.loss),
        "optimizer": traced(OPTIMIZERS["adamw"]),
        "schedule": traced(SCHEDULES["constant"]),
        "plateau": traced(plateau),
    }
    assert set(config.space.names) == {f"{room}.{name}" for room, names in rooms.items() for name in names}
    assert len(set(config.space.names)) == len(config.space.names)
    assert list(config.space.axes) == ["optimizer.learning_rate"] == [config.space.names[0]]
    assert {"task.dropout", "optimizer.b1", "optimizer.clip_norm", "schedule.warmup"} <= set(config.space.constants)


def test_traced_and_static_settings_part(blob_task):
    config, _ = resolve(changed("optimizer", nesterov=True), task=blob_task)
    assert config.optimizer.static == {"nesterov": True, "decay": "decoupled", "decay_mask": "all"}
    assert config.optimizer.traced | config.optimizer.static == config.optimizer.values


# ------------------------------------------------------------------------------------------------------------- identity


def test_canonical_json_is_strict_json_of_the_essence(blob_task):
    config, _ = resolve(changed("optimizer", learning_rate=LOG), task=blob_task)

    def never(constant):
        raise AssertionError(f"{constant} is not JSON")

    tree = json.loads(config.canonical_json, parse_constant=never)
    assert tree["optimizer"]["clip_norm"] == "inf"
    endless = {section: [k for k, v in table.items() if v == "inf"] for section, table in tree.items() if section != "seed"}
    for section, names in endless.items():
        tree[section] |= dict.fromkeys(names, math.inf)
    assert tree == config.essence


def test_the_essence_is_the_tree_but_for_where_and_how_often(blob_task):
    config, _ = resolve(BASE | {"plan": {"chunk": 2}, "checkpoint": {"every": 7}}, task=blob_task)
    left = {section: table for section, table in config.tree.items() if section not in ("plan", "checkpoint", "sinks")}
    init = {key: value for key, value in config.tree["init"].items() if key != "from"}
    assert config.essence == left | {"data": {"fraction": 1.0, "classes": []}, "init": init}
    assert {"plan", "checkpoint", "sinks"} <= set(config.tree)


def test_the_order_of_keys_does_not_count(blob_task):
    def reverse(tree):
        return {k: reverse(v) if isinstance(v, dict) else v for k, v in reversed(list(tree.items()))}

    shape = {"name": "cosine", "end": {"low": 0.0, "high": 1.0}}
    tree = BASE | {
        "seed": 3,
        "optimizer": {"learning_rate": LOG, "b1": 0.5, "name": "adamw"},
        "schedule": {"weight_decay": shape, "dropout": shape, "name": "constant"},
        "search": {"sigma": 0.2},
    }
    one, other = resolve(tree, task=blob_task)[0], resolve(reverse(tree), task=blob_task)[0]
    assert one.canonical_json == other.canonical_json
    assert one.run_id == other.run_id


def test_the_order_of_keys_does_not_move_genes(blob_task):
    """Runs with one run_id must draw the same members from the same seed, so gene d is the same setting in both."""
    shape = {"name": "cosine", "end": {"low": 0.0, "high": 1.0}}
    one, _ = resolve(BASE | {"schedule": {"weight_decay": shape, "dropout": shape}}, task=blob_task)
    other, _ = resolve(BASE | {"schedule": {"dropout": shape, "weight_decay": shape}}, task=blob_task)
    assert one.run_id == other.run_id
    assert list(one.space.axes) == list(other.space.axes)


def test_a_default_written_out_is_the_same_run(blob_task):
    assert resolve(changed("optimizer", b1=0.9), task=blob_task)[0].run_id == resolve(BASE, task=blob_task)[0].run_id


SHARED_BY_PBT = {  # a value for each that is not its default
    "interval": 100,
    "burn_in": 100,
    "elite": 2,
    "explore": "factors",
    "factor": 1.5,
    "crossover": 0.5,
    "settings_from": "self",
}
CHANGES = [
    ("task", {"dropout": 0.1}),
    ("task", {"input_noise": 0.1}),
    ("task", {"mixup": 0.1}),
    ("task", {"label_smoothing": 0.1}),
    ("task", {"class_balance": 0.1}),
    ("plateau", {"factor": 0.5}),
    ("plateau", {"patience": 2.0}),
    ("plateau", {"cooldown": 2.0}),
    ("plateau", {"threshold": 0.1}),
    ("plateau", {"floor": 0.1}),
    ("batch", {"size": 31}),
    ("batch", {"order": "independent"}),
    ("batch", {"balance": "oversample"}),
    ("optimizer", {"name": "sgd"}),
    ("optimizer", {"learning_rate": 2e-3}),
    ("optimizer", {"learning_rate": LOG}),
    ("optimizer", {"learning_rate": LOG | {"scale": "linear"}}),
    ("optimizer", {"learning_rate": LOG | {"high": 0.2}}),
    ("optimizer", {"learning_rate": {"choices": [1e-4, 1e-1]}}),
    ("optimizer", {"learning_rate": {"choices": [1e-1, 1e-4]}}),
    ("optimizer", {"clip_norm": {"low": 1.0, "high": 4.0}}),
    ("optimizer", {"clip_norm": {"low": 1.0, "high": 4.0, "integer": True}}),
    ("optimizer", {"weight_decay": 1e-6}),
    ("optimizer", {"b1": 0.95}),
    ("optimizer", {"b2": 0.99}),
    ("optimizer", {"eps": 1e-7}),
    ("optimizer", {"nesterov": True}),
    ("optimizer", {"clip_norm": 1.0}),
    ("optimizer", {"clip_value": 1.0}),
    ("optimizer", {"clip_adaptive": 1.0}),
    ("optimizer", {"l1": 1e-4}),
    ("optimizer", {"decay": "l2"}),
    ("optimizer", {"decay_mask": "matrices"}),
    ("optimizer", {"accumulate": 2.0}),
    ("optimizer", {"average": 0.9}),
    ("schedule", {"warmup": 0.1}),
    ("schedule", {"warmup_shape": "cosine"}),
    ("schedule", {"warmup_power": 3.0}),
    ("schedule", {"name": "cosine"}),
    ("schedule", {"name": "rex"}),
    ("schedule", {"name": ["cosine", "rex"]}),
    ("schedule", {"name": ["rex", "cosine"]}),
    ("schedule", {"name": ["cosine", "rex"], "rex": {"beta": 0.1}}),
    ("schedule", {"name": "table", "values": [1.0, 0.0, 0.5]}),
    ("schedule", {"name": "table", "values": [1.0, {"low": 0.0, "high": 1.0}, 0.5]}),
    ("schedule", {"name": "table", "values": [{"low": 0.0, "high": 1.0}, 0.0, 0.5]}),
    ("schedule", {"weight_decay": {"name": "cosine"}}),
    ("schedule", {"dropout": {"name": "cosine"}}),
    ("population", {"size": 65}),
    ("population", {"segment_steps": 51}),
    ("population", {"generations": 21}),
    ("population", {"seeds": 2}),
    ("search", {"method": "random"}),
    ("search", {"method": "random", "trials": 65}),
    ("search", {"quantile": 0.2}),
    ("search", {"sigma": 0.2}),
    ("search", {"resample": 0.2}),
    *(("search", {k: v}) for k, v in SHARED_BY_PBT.items()),
    ("search", {"replicates": 2}),
    ("search", {"aggregate": "mean"}),
    ("search", {"method": "random", "stop": "median"}),
    ("search", {"method": "random", "stop": "asha"}),
    ("search", {"method": "random", "stop": {"name": "asha", "reduction": 2}}),
    ("search", {"budget": {"steps": 10**6}}),
    ("search", {"budget": {"seconds": 60.0}}),
    ("fitness", {"final_anneal": 5}),
    ("fitness", {"lookahead": {"steps": 5}}),
    ("fitness", {"lookahead": {"steps": 5, "shape": "cosine"}}),
    ("init", {"freeze": "head.*"}),
    ("groups", {"head": {"match": "head.*"}}),
    ("groups", {"head": {"match": "head.*", "learning_rate": 0.5}}),
    ("groups", {"head": {"match": "head.*", "learning_rate": LOG}}),
    ("groups", {"head": {"match": "hidden.*"}}),
    ("groups", {"body": {"match": "head.*"}}),
    ("precision", {"compute": "bfloat16"}),
    ("precision", {"matmul": "highest"}),
    ("precision", {"remat": True}),
    ("data", {"fraction": 0.9}),
    ("data", {"classes": [0, 1]}),
]
NO_CHANGES = [
    ("checkpoint", {"every": 2}),
    ("data", {"placement": "host"}),
    ("plan", {"name": "strict"}),
    ("plan", {"devices": 1}),
    ("plan", {"chunk": 2}),
    ("plan", {"lowering": "im2col"}),
    ("plan", {"unroll": 4}),
    ("plan", {"generations_per_dispatch": 3}),
]


def test_any_setting_changes_the_run_id(blob_task):
    trees = [BASE, BASE | {"seed": 1}, *(changed(section, **values) for section, values in CHANGES)]
    configs = [resolve(tree, task=blob_task)[0] for tree in trees]
    assert len({config.run_id for config in configs}) == len(trees)
    assert all(len(config.run_id) == 12 and int(config.run_id, 16) >= 0 for config in configs)


@pytest.mark.parametrize(("section", "values"), NO_CHANGES)
def test_where_a_run_is_trained_and_how_often_it_is_kept_does_not_change_the_run_id(section, values, blob_task):
    config, _ = resolve(changed(section, **values), task=blob_task)
    plain, _ = resolve(BASE, task=blob_task)
    assert config.tree[section] == plain.tree[section] | values != plain.tree[section]
    assert config.run_id == plain.run_id
    assert config.essence == plain.essence


def test_every_setting_is_among_the_changes(blob_task):
    """So that the tests above cannot miss a setting that is added later."""
    tree = resolve(BASE, task=blob_task)[0].tree
    given = {(section, key) for section, values in CHANGES + NO_CHANGES for key in values}
    given |= {("init", key) for key in ("from", "part", "sha256")}  # the test below
    known = {(section, key) for section, table in tree.items() if section != "seed" for key in table}
    assert known - given == {("task", "name")}


def test_the_weights_that_members_begin_with_change_the_run_id(blob_task, tmp_path):
    ids = set()
    for shift in (0, 1):
        weights = jax.tree.map(lambda leaf, shift=shift: np.asarray(leaf) + shift, blob_task.init(jax.random.key(0), None)[0])
        save_file({f"params.{name}": leaf for name, leaf in named(weights).items()}, tmp_path / "weights.safetensors")
        for part in ("*", "head.*"):
            init = {"from": str(tmp_path / "weights.safetensors"), "part": part}
            ids.add(resolve(BASE | {"init": init}, task=blob_task)[0].run_id)
    assert len(ids | {resolve(BASE, task=blob_task)[0].run_id}) == 5


# ---------------------------------------------------------------------------------------------------------- with_values


def test_with_values_is_one_plain_training_run(blob_task):
    tree = BASE | {
        "seed": 5,
        "task": {"dropout": {"low": 0.0, "high": 0.5}},
        "optimizer": {"learning_rate": LOG, "b1": 0.8},
        "schedule": {
            "name": "cosine",
            "warmup": {"choices": [0.0, 0.1]},
            "weight_decay": {"name": "cosine", "end": {"low": 0.0, "high": 1.0}},
        },
        "plan": {"devices": 1},
        "population": {"size": 8, "segment_steps": 5, "generations": 4},
    }
    config, task = resolve(tree, task=blob_task)
    values = {
        "task.dropout": 0.25,
        "optimizer.learning_rate": 0.01,
        "schedule.warmup": 0.1,
        "schedule.weight_decay.end": 0.5,
    }
    single = config.with_values(values | {"optimizer.b1": 0.1})  # b1 is no axis: the config's own value stays
    assert single.space.dimension == 0
    assert single.space.constants == config.space.constants | values
    assert single.space.constants["optimizer.b1"] == 0.8
    assert (single.population.size, single.population.horizon) == (1, config.population.horizon)
    assert single.search.name == "random"
    assert (single.seed, single.batch) == (config.seed, config.batch)
    assert (single.plan.devices, single.plan.chunk) == (0, 0)
    assert resolve(single.tree, task=task)[0] == single
    assert config.space.dimension == 4


# -------------------------------------------------------------------------------------------------------------- vectors

TABLE = {"name": "table", "values": [1.0, {"low": 0, "high": 1}, 0.5]}


def test_an_axis_stands_where_a_number_of_a_vector_would(blob_task):
    config, task = resolve(BASE | {"schedule": TABLE}, task=blob_task)
    assert config.schedules["optimizer.learning_rate"].values["values"] == (1.0, Axis(0.0, 1.0), 0.5)
    assert config.space.axes == {"schedule.values.1": Axis(0.0, 1.0)}
    assert {name: config.space.constants[f"schedule.values.{name}"] for name in "02"} == {"0": 1.0, "2": 0.5}
    assert config.tree["schedule"]["values"] == [1.0, {"low": 0.0, "high": 1.0}, 0.5]
    assert resolve(config.tree, task=blob_task)[0] == config
    given = {"name": "table", "values": (1, Axis(0.0, 1.0), 0.5)}
    assert resolve(BASE | {"schedule": given}, task=blob_task)[0].run_id == config.run_id
    shaped = config.recipe(task).shaped(config.space.decode(jnp.array([0.25])), jnp.array([0, 500, 750, 999]))
    np.testing.assert_allclose(shaped["optimizer.learning_rate"], 1e-3 * np.array([1, 0.25, 0.375, 0.4995]), rtol=1e-4)


def test_with_values_pins_the_numbers_of_a_vector(blob_task):
    config, _ = resolve(BASE | {"schedule": TABLE | {"weight_decay": TABLE}}, task=blob_task)
    single = config.with_values({"schedule.values.1": 0.25, "schedule.weight_decay.values.1": 0.75})
    assert single.space.dimension == 0
    assert single.tree["schedule"]["values"] == [1.0, 0.25, 0.5]
    assert single.tree["schedule"]["weight_decay"]["values"] == [1.0, 0.75, 0.5]


def test_a_searched_vector_is_trained_recorded_and_written(blob_task, tmp_path):
    tree = BASE | {"schedule": TABLE, "population": {"size": 2, "segment_steps": 2, "generations": 3}}
    tree |= {"optimizer": {"learning_rate": 0.1}, "search": {"method": "random"}}
    result = tune(tree, task=blob_task, out=tmp_path / "run", start={"schedule.values.1": [0.125, 0.75]})
    history, best = result.history, result.best
    np.testing.assert_array_equal(history["schedule.values.1"], np.where(history["trial"] == 0, 0.125, 0.75))
    assert best.hyperparameters == {"schedule.values.1": [0.125, 0.75][best.trial]}
    assert resolve(read_toml(tmp_path / "run" / "config.toml"), task=blob_task)[0] == result.config
    pinned = read_toml(tmp_path / "run" / "best" / "hyperparameters.toml")
    assert pinned["schedule"]["values"] == [1.0, best.hyperparameters["schedule.values.1"], 0.5]


# ---------------------------------------------------------------------------------------------------------- differences


def test_equal_trees_do_not_differ(blob_task):
    tree = resolve(BASE, task=blob_task)[0].tree
    assert differences(tree, copy.deepcopy(tree)) == []


def test_differences_are_one_line_a_setting(blob_task):
    old = resolve(changed("optimizer", learning_rate=LOG), task=blob_task)[0].tree
    new = resolve(BASE | {"seed": 2, "optimizer": {"b1": 0.95}}, task=blob_task)[0].tree
    assert differences(old, new) == [
        "optimizer.b1: 0.9 -> 0.95",
        "optimizer.learning_rate: absent -> 0.001",
        "optimizer.learning_rate.high: 0.1 -> absent",
        "optimizer.learning_rate.low: 0.0001 -> absent",
        "optimizer.learning_rate.scale: log -> absent",
        "seed: 0 -> 2",
    ]


# ------------------------------------------------------------------------------------------------------- golden errors

SECTIONS = (
    "batch, checkpoint, data, fitness, groups, init, optimizer, plan, plateau, population, precision, schedule, search, seed, "
    "sinks, task"
)
REGULARISERS = ["class_balance", "dropout", "input_noise", "label_smoothing", "mixup"]  # of classification, and a model's
SGD = sorted(settings(OPTIMIZERS["sgd"]))
LIST = "expected list of float >= 0 at least 2 long"
SHARED = "it shapes the compiled program, which all members share"
STATIC = f"{SHARED} (`vmaptune run` opens a cohort for each of {{ choices = [...] }})"

ERRORS = [
    # Sections and keys
    ({"optimiser": {}}, "there is no section or setting 'optimiser'; did you mean 'optimizer'?"),
    ({"zzz": 1}, f"there is no section or setting 'zzz'; known: {SECTIONS}"),
    ({"optimizer": 3}, "optimizer: expected a table, [optimizer]; given: 3"),
    ({"task": "digits"}, "task: expected a table, [task]; given: 'digits'"),
    ({"batch": [1]}, "batch: expected a table, [batch]; given: [1]"),
    ({"schedule": "constant"}, "schedule: expected a table, [schedule]; given: 'constant'"),
    ({"optimizer": {"lr": 0.1}}, "optimizer: adamw has no setting 'lr'; did you mean 'learning_rate'?"),
    ({"optimizer": {"name": "sgd", "b1": 0.9}}, f"optimizer: sgd has no setting 'b1'; known: {', '.join(SGD)}"),
    ({"optimizer": {"weightdecay": 0.1}}, "optimizer: adamw has no setting 'weightdecay'; did you mean 'weight_decay'?"),
    ({"batch": {"sise": 32}}, "batch: this section has no setting 'sise'; did you mean 'size'?"),
    (
        {"population": {"steps": 32}},
        "population: this section has no setting 'steps'; did you mean 'seeds'?",
    ),
    ({"search": {"quantil": 0.2}}, "search: truncation has no setting 'quantil'; did you mean 'quantile'?"),
    (
        {"search": {"method": "random", "quantile": 0.2}},
        "search: random has no setting 'quantile'; known: aggregate, budget, replicates, stop, trials",
    ),
    ({"search": {"method": "random", "trails": 9}}, "search: random has no setting 'trails'; did you mean 'trials'?"),
    ({"schedule": {"end": 0.1}}, "schedule: constant has no setting 'end'; known: warmup, warmup_power, warmup_shape"),
    ({"plateau": {"factr": 0.5}}, "plateau: it has no setting 'factr'; did you mean 'factor'?"),
    ({"plateau": 0.5}, "plateau: expected a table, [plateau]; given: 0.5"),
    ({"plateau": {"factor": 0.0}}, "plateau.factor: expected float > 0 and <= 1; given: 0.0"),
    ({"search": {"method": "random", "trials": -1}}, "search.trials: expected int >= 0; given: -1"),
    ({"task": {"dropuot": 0.1}}, f"task: {FROM_PYTHON} has no setting 'dropuot'; did you mean 'dropout'?"),
    (
        {"plan": {"zzz": 0}},
        "plan: this section has no setting 'zzz'; known: chunk, devices, generations_per_dispatch, lowering, name, unroll",
    ),
    # Rows
    ({"optimizer": {"name": "admw"}}, "optimizer.name: there is no optimizer 'admw'; did you mean 'adamw'?"),
    ({"optimizer": {"name": "zzz"}}, f"optimizer.name: there is no optimizer 'zzz'; known: {', '.join(sorted(OPTIMIZERS))}"),
    ({"schedule": {"name": "zzz"}}, f"schedule.name: there is no schedule 'zzz'; known: {', '.join(sorted(SCHEDULES))}"),
    ({"search": {"method": "zzz"}}, f"search.method: there is no search method 'zzz'; known: {', '.join(sorted(SELECTORS))}"),
    (
        {"schedule": {"name": "cosin"}},
        "schedule.name: there is no schedule 'cosin'; did you mean 'cosine'?",
    ),
    ({"search": {"method": "truncaton"}}, "search.method: there is no search method 'truncaton'; did you mean 'truncation'?"),
    # Types and ranges
    ({"seed": -1}, "seed: expected int >= 0 and < 4294967296; given: -1"),
    ({"seed": "0"}, "seed: expected int >= 0 and < 4294967296; given: '0'"),
    ({"seed": True}, "seed: expected int >= 0 and < 4294967296; given: True"),
    ({"optimizer": {"learning_rate": "0.1"}}, "optimizer.learning_rate: expected float >= 0; given: '0.1'"),
    ({"optimizer": {"learning_rate": math.nan}}, "optimizer.learning_rate: expected float >= 0; given: nan"),
    ({"optimizer": {"b1": 1.0}}, "optimizer.b1: expected float >= 0 and < 1; given: 1.0"),
    ({"optimizer": {"eps": 0}}, "optimizer.eps: expected float > 0; given: 0"),
    ({"optimizer": {"nesterov": 1}}, "optimizer.nesterov: expected bool; given: 1"),
    (
        {"optimizer": {"b1": datetime.date(2020, 1, 1)}},
        "optimizer.b1: expected float >= 0 and < 1; given: datetime.date(2020, 1, 1)",
    ),
    ({"batch": {"size": 32.0}}, "batch.size: expected int >= 1; given: 32.0"),
    ({"batch": {"size": 0}}, "batch.size: expected int >= 1; given: 0"),
    ({"batch": {"order": "random"}}, "batch.order: expected shared | independent; given: 'random'"),
    ({"batch": {"size": 73}}, "batch.size: must be between 1 and the 72 training examples; given: 73"),
    ({"population": {"size": 0}}, "population.size: expected int >= 1; given: 0"),
    ({"checkpoint": {"every": 0}}, "checkpoint.every: expected int >= 1; given: 0"),
    ({"plan": {"devices": -1}}, "plan.devices: expected int >= 0; given: -1"),
    ({"plan": {"chunk": -1}}, "plan.chunk: expected int >= 0; given: -1"),
    ({"plan": {"unroll": 1.5}}, "plan.unroll: expected int >= 0; given: 1.5"),
    ({"plan": {"generations_per_dispatch": -1}}, "plan.generations_per_dispatch: expected int >= 0; given: -1"),
    ({"search": {"quantile": 0.6}}, "search.quantile: expected float >= 0 and <= 0.5; given: 0.6"),
    ({"task": {"dropout": 1.0}}, "task.dropout: expected float >= 0 and < 1; given: 1.0"),
    # Axes
    (
        {"population": {"size": {"low": 1, "high": 4}}},
        f"population.size: an axis cannot stand here, because size is static (int >= 1): {SHARED}; "
        "given: {'low': 1, 'high': 4}",
    ),
    (
        {"optimizer": {"nesterov": {"choices": [False, True]}}},
        f"optimizer.nesterov: an axis cannot stand here, because nesterov is static (bool): {STATIC}; "
        "given: {'choices': [False, True]}",
    ),
    (
        {"search": {"sigma": {"low": 0.1, "high": 0.2}}},
        "search.sigma: a setting of the search itself cannot be searched; given: {'low': 0.1, 'high': 0.2}",
    ),
    (
        {"optimizer": {"b1": {"low": 0.1, "hihg": 0.2}}},
        "optimizer.b1: an axis has no key 'hihg'; did you mean 'high'?",
    ),
    (
        {"optimizer": {"b1": {"low": 0.1}}},
        "optimizer.b1: an axis needs both low and high, or choices; given: {'low': 0.1}",
    ),
    ({"optimizer": {"b1": {"low": 0.1, "high": 1}}}, "optimizer.b1.high: expected float >= 0 and < 1; given: 1"),
    ({"optimizer": {"b1": {"low": 0.5, "high": 0.1}}}, "optimizer.b1: low must be below high; given: low = 0.5, high = 0.1"),
    (
        {"optimizer": {"weight_decay": {"low": 0, "high": 0.1, "scale": "log"}}},
        "optimizer.weight_decay: a log scale needs low > 0; given: low = 0",
    ),
    (
        {"optimizer": {"learning_rate": {"low": 0, "high": math.inf}}},
        "optimizer.learning_rate: an axis needs a finite low and high, or choices; given: low = 0.0, high = inf",
    ),
    (
        {"optimizer": {"learning_rate": {"choices": [0.1]}}},
        "optimizer.learning_rate: choices must be two or more different finite numbers; given: [0.1]",
    ),
    (
        {"schedule": {"name": "cosine", "warmup": {"low": 0.0, "high": 1.0}}},
        "schedule.warmup.high: expected float >= 0 and < 1; given: 1.0",
    ),
    ({"task": {"dropout": {"low": 0.0, "high": 1.0}}}, "task.dropout.high: expected float >= 0 and < 1; given: 1.0"),
    # Vectors
    ({"schedule": {"name": "table", "values": [1.0]}}, f"schedule.values: {LIST}; given: [1.0]"),
    ({"schedule": {"name": "table", "values": []}}, f"schedule.values: {LIST}; given: []"),
    ({"schedule": {"name": "table", "values": 3}}, f"schedule.values: {LIST}; given: 3"),
    ({"schedule": {"name": "table", "values": [1.0, -1]}}, f"schedule.values: {LIST}; given: [1.0, -1]"),
    ({"schedule": {"name": "table", "values": [1.0, math.nan]}}, f"schedule.values: {LIST}; given: [1.0, nan]"),
    (
        {"schedule": {"name": "table", "values": [1.0, {"low": 0, "hgih": 1}]}},
        "schedule.values[1]: an axis has no key 'hgih'; did you mean 'high'?",
    ),
    (
        {"schedule": {"name": "table", "values": [1.0, {"low": 0, "high": -1}]}},
        "schedule.values[1].high: expected float >= 0; given: -1",
    ),
    (
        {"schedule": {"weight_decay": {"name": "table", "values": [{"low": 1, "high": 0.5}, 1.0]}}},
        "schedule.weight_decay.values[0]: low must be below high; given: low = 1, high = 0.5",
    ),
    # Schedules of other hyperparameters
    (
        {"schedule": {"weight_deacy": {"name": "constant"}}},
        "schedule.weight_deacy: there is no hyperparameter 'weight_deacy' to shape; did you mean 'weight_decay'?",
    ),
    (
        {"schedule": {"nesterov": {"name": "constant"}}},
        "schedule.nesterov: there is no hyperparameter 'nesterov' to shape; "
        f"known: {', '.join(sorted({*traced(OPTIMIZERS['adamw']), *REGULARISERS, 'batch'}))}",
    ),
    (
        {"schedule": {"name": "constant", "learning_rate": {"name": "cosine"}}},
        "schedule.learning_rate: the learning rate's schedule stands in [schedule] already; keep one of the two",
    ),
    (
        {"schedule": {"weight_decay": {"name": "cosin"}}},
        "schedule.weight_decay.name: there is no schedule 'cosin'; did you mean 'cosine'?",
    ),
    (
        {"schedule": {"weight_decay": {"name": "cosine", "ende": 0.5}}},
        "schedule.weight_decay: cosine has no setting 'ende'; did you mean 'end'?",
    ),
    (
        {"schedule": {"weight_decay": {"name": "cosine", "end": -0.5}}},
        "schedule.weight_decay.end: expected float >= 0; given: -0.5",
    ),
]


@pytest.mark.parametrize(("tree", "sentence"), ERRORS, ids=[str(tree)[:60] for tree, _ in ERRORS])
def test_a_bad_config_is_refused_in_one_sentence(tree, sentence, blob_task):
    assert refusal(BASE | tree, task=blob_task) == f"config: {sentence}"


def test_an_error_begins_with_its_source(blob_task):
    assert refusal({"seed": -1}, task=blob_task, source="run.toml").startswith("run.toml: seed: expected")


ROW_NAMES = [
    ("optimizer", "name"),
    ("schedule", "name"),
    ("search", "method"),
]


@pytest.mark.parametrize("value", [["adamw"], {"a": 1}, 1.5, True, datetime.date(2020, 1, 1)])
@pytest.mark.parametrize(("section", "key"), ROW_NAMES)
def test_a_row_is_named_by_a_string(section, key, value, blob_task):
    assert refusal(changed(section, **{key: value}), task=blob_task).startswith(f"config: {section}")


def test_a_nested_row_is_named_by_a_string(blob_task):
    refusal(changed("schedule", weight_decay={"name": ["constant"]}), task=blob_task)


@pytest.mark.parametrize(("name", "value"), [("b2", 1 - 1e-12), ("eps", 1e-60), ("learning_rate", 1e300)])
def test_a_value_keeps_to_its_range_as_a_float32(name, value, blob_task):
    """A member trains with the float32: a b2 that rounds to 1 divides by zero at the first step."""
    try:
        config, _ = resolve(changed("optimizer", **{name: value}), task=blob_task)
    except ConfigError:
        return
    trained_with = float(config.space.decode(jnp.zeros(0))[f"optimizer.{name}"])
    convert(settings(OPTIMIZERS["adamw"])[name], trained_with, name)
    assert math.isfinite(trained_with)


# ---------------------------------------------------------------------------------------------------------------- tasks

TASK_FILE = """
import numpy as np
from vmaptune import models, tasks
from vmaptune.data.splits import split_classification

def build(*, width: int = 4, depth: int) -> tasks.Task:
    '''A small task.

    Args:
        width: Of the layers.
        depth: Number of layers.
    '''
    labels = np.arange(60) % 3
    inputs = np.eye(3, dtype=np.float32)[labels]
    network = lambda rngs: models.MLP(3, [width] * depth, 3, rngs=rngs)
    return tasks.classification(models.from_nnx(network), split_classification(inputs, labels.astype(np.int32)))

def number():
    return 3

def careless(*, width=4):
    return None

def positional(width):
    return None

constant = 3
"""


@pytest.fixture
def task_file(tmp_path):
    path = tmp_path / "task_of_a_test.py"
    path.write_text(TASK_FILE)
    return path


def test_a_task_is_built_from_a_file(task_file):
    tree = {"task": {"name": f"{task_file}:build", "depth": 2, "dropout": 0.5}, "batch": {"size": 8}}
    config, task = resolve(tree)
    assert task.splits.size("train") == 36
    given = {"width": 4, "depth": 2, "dropout": 0.5}
    assert config.tree["task"] == {"name": f"{task_file}:build"} | defaults(task.loss) | given
    assert config.task.traced == dict.fromkeys(REGULARISERS, 0.0) | {"dropout": 0.5}


def test_a_task_is_built_from_a_module():
    config, task = resolve({"task": {"name": "vmaptune.tasks:digits", "hidden": [8]}, "batch": {"size": 8}})
    assert config.task.values == dict.fromkeys(REGULARISERS, 0.0) | {
        **{"model": "mlp", "hidden": (8,), "layers": 0, "units": 64, "activation": "relu", "norm": "none", "residual": False}
    }
    assert isinstance(task, Task)


FILE_ERRORS = [
    (
        {"depth": 0, "width": "wide"},
        "build",
        "task.width: expected int; given: 'wide'",
    ),
    ({}, "build", "task.depth: must be given (int); it has no default"),
    ({"depth": 1, "widht": 3}, "build", "task: FILE:build has no setting 'widht'; did you mean 'width'?"),
    ({}, "number", "task.name: FILE:number must return a vmaptune.Task; it returned int"),
    ({}, "bulid", "task.name: FILE has no function 'bulid'"),
    (
        {},
        "careless",
        "careless: setting 'width' has no annotation; write float (traced) or int/bool/str (static)",
    ),
    (
        {"depth": {"low": 1, "high": 3}},
        "build",
        f"task.depth: an axis cannot stand here, because depth is static (int): {STATIC}; given: {{'low': 1, 'high': 3}}",
    ),
]


@pytest.mark.parametrize(("given", "function", "sentence"), FILE_ERRORS)
def test_a_bad_task_file_is_refused_in_one_sentence(given, function, sentence, task_file):
    tree = {"task": {"name": f"{task_file}:{function}"} | given}
    assert refusal(tree) == f"config: {sentence}".replace("FILE", str(task_file))


TASK_NAMES = [
    ("digit", "task.name: no task 'digit'; did you mean 'digits'? (or give package.module:function, or file.py:function)"),
    (
        "zzz",
        f"task.name: no task 'zzz'; known: {', '.join(sorted(TASKS))} (or give package.module:function, or file.py:function)",
    ),
    (3, "task.name: expected a string; given: 3"),
    (["digits"], "task.name: expected a string; given: ['digits']"),
    ("no_such_package.tasks:build", "task.name: cannot load 'no_such_package.tasks:build': No module named 'no_such_package'"),
    ("vmaptune.tasks:digit", "task.name: vmaptune.tasks has no function 'digit'"),
    (
        FROM_PYTHON,
        "task.name: this run's task was passed from Python; go on there: tune(config, task=..., out=..., resume=True)",
    ),
]


@pytest.mark.parametrize(("name", "sentence"), TASK_NAMES)
def test_a_bad_task_name_is_refused_in_one_sentence(name, sentence):
    assert refusal({"task": {"name": name}}) == f"config: {sentence}"


def test_a_missing_task_file_is_named(tmp_path):
    path = tmp_path / "absent.py"
    sentence = refusal({"task": {"name": f"{path}:build"}})
    assert sentence.startswith(f"config: task.name: cannot load '{path}:build': ")
    assert "No such file" in sentence


@pytest.mark.parametrize(
    "name", ["math:pi", "json:decoder", "json:", "vmaptune.tasks:TASKS", "FILE:constant", "FILE:positional"]
)
def test_a_task_name_that_leads_to_no_builder_is_refused(name, task_file):
    assert refusal({"task": {"name": name.replace("FILE", str(task_file))}}).startswith("config: task.name: ")


def test_settings_of_digits_are_checked():
    assert refusal({"task": {"hiden": [8]}}) == "config: task: digits has no setting 'hiden'; did you mean 'hidden'?"
    assert refusal({"task": {"model": "cnn"}}) == "config: task.model: expected mlp; given: 'cnn'"
    assert refusal({"task": {"hidden": [8, 0]}}) == "config: task.hidden: expected list of int >= 1; given: [8, 0]"
    assert (
        refusal({"batch": {"size": 1078}})
        == "config: batch.size: must be between 1 and the 1077 training examples; given: 1078"
    )


# ------------------------------------------------------------------------------------------------------------ mutations

WORDS = st.sampled_from(["low", "high", "scale", "integer", "choices", "name", "warmup", "constant", "log", "sgd", "random"])
SCALARS = (
    st.booleans()
    | st.integers(-5, 5)
    | st.integers(-(2**70), 2**70)
    | st.floats(0, 1)
    | st.floats()
    | WORDS
    | st.text(max_size=5)
    | st.dates()
    | st.times()
    | st.datetimes()
)
AXES = st.fixed_dictionaries(
    {},
    optional={
        "low": SCALARS,
        "high": SCALARS,
        "scale": SCALARS,
        "integer": SCALARS,
        "choices": st.lists(SCALARS, max_size=3),
    },
)
VALUES = st.recursive(
    SCALARS | AXES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=3)
)
DEFAULT = default_tree()
PLACES = [(section,) for section in DEFAULT] + [
    (section, key) for section, table in DEFAULT.items() if isinstance(table, dict) for key in table
]
TASK_PLACES = [("task", "name"), ("task", "model"), ("task", "hidden")]


def mutated(tree, place, value):
    if len(place) == 1:
        return tree | {place[0]: value}
    return tree | {place[0]: tree[place[0]] | {place[1]: value}}


@hypothesis_settings(max_examples=300)
@given(place=st.sampled_from([p for p in PLACES if p not in TASK_PLACES]), value=VALUES)
@example(place=("optimizer", "name"), value=["adamw"])
@example(place=("schedule", "name"), value={"name": "constant"})
@example(place=("search", "method"), value=[])
@example(place=("optimizer", "learning_rate"), value={"low": 0.0, "high": 1e300})
@example(place=("optimizer", "learning_rate"), value={"choices": [0.0, 1e300]})
@example(place=("optimizer", "learning_rate"), value=10**400)
@example(place=("optimizer", "learning_rate"), value=1e300)
@example(place=("schedule", "warmup"), value={"name": "constant"})
def test_a_mutated_config_resolves_or_is_refused(place, value, blob_task):
    """Whatever stands in a config, a user sees a sentence and never a traceback; what resolves has an identity."""
    tree = DEFAULT | {"task": {"dropout": DEFAULT["task"]["dropout"]}, "batch": {"size": 32, "order": "shared"}}
    try:
        config, task = resolve(mutated(tree, place, value), task=blob_task)
    except ConfigError:
        return
    assert resolve(config.tree, task=task)[0].run_id == config.run_id
    assert all(v.shape == () for v in jax_values(config))
    config.recipe(task)
    config.selector()


def jax_values(config):
    """The values that a member would train with, with NumPy's overflow an error as everywhere in the tests."""
    space = config.space
    return space.decode(space.encode({k: (a.choices or (a.low,))[0] for k, a in space.axes.items()})).values()


@hypothesis_settings(max_examples=40)
@given(place=st.sampled_from([("task",), *TASK_PLACES]), value=VALUES)
def test_a_mutated_task_resolves_or_is_refused(place, value):
    try:
        config, _ = resolve(mutated(DEFAULT, place, value))
    except ConfigError:
        return
    assert config.task.name == "digits"
