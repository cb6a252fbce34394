"""Several schedule families in one population: each member follows its own, in one program, as if it ran alone."""

import csv
import math
import tomllib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmaptune.config import resolve
from vmaptune.errors import ConfigError
from vmaptune.loop import tune
from vmaptune.optimizers import sgd
from vmaptune.population import init_population, take_member
from vmaptune.schedules import SCHEDULES, constant, rex
from vmaptune.schedules.mixture import Mixture, knobs_of
from vmaptune.settings import settings
from vmaptune.space import Axis, Space
from vmaptune.toml import to_toml
from vmaptune.train import make_segment

FAMILIES = ["cosine", "rex", "wsd"]
SHARED = {"warmup": {"low": 0.0, "high": 0.3}, "warmup_shape": "cosine"}
OWN = {
    "cosine": {"exponent": {"low": 0.25, "high": 4.0, "scale": "log"}},
    "rex": {"beta": {"low": 0.1, "high": 10.0, "scale": "log"}},
    "wsd": {"decay": {"low": 0.1, "high": 0.5}, "end": 0.1, "cooldown": "sqrt"},
}
KNOB = {"cosine": "exponent", "rex": "beta", "wsd": "decay"}
MIXED = {"name": FAMILIES, **SHARED, **OWN}
BASE = {
    "batch": {"size": 16},
    "optimizer": {"name": "sgd", "learning_rate": {"low": 0.01, "high": 0.3, "scale": "log"}},
    "population": {"size": 6, "segment_steps": 5, "generations": 3},
    "search": {"method": "random"},
    "checkpoint": {"every": 100},
}
# What the six trials are: families in turn.
FAMILY = np.array([0, 1, 2, 0, 1, 2])
TRIALS = {"optimizer.learning_rate": np.geomspace(0.02, 0.2, 6), "schedule.warmup": np.linspace(0.05, 0.3, 6)}
KNOBS = {"cosine": [0.5, 3.0], "rex": [0.2, 5.0], "wsd": [0.15, 0.45]}


def of_family(index, values):
    """A column of numbers for the trials of a family; NaN for the others."""
    column = np.full(6, math.nan)
    column[index == FAMILY] = values
    return column


@pytest.fixture(scope="module")
def mixed(blob_task, tmp_path_factory):
    """A run of all three families."""
    own = {f"schedule.{name}.{KNOB[name]}": of_family(i, KNOBS[name]) for i, name in enumerate(FAMILIES)}
    start = TRIALS | {"schedule.family": FAMILY} | own
    return tune(BASE | {"schedule": MIXED}, task=blob_task, out=tmp_path_factory.mktemp("mixed") / "run", start=start)


def test_it_is_one_program(mixed):
    assert {name: mixed.compilations[name] for name in ("generations", "test")} == {"generations": 1, "test": 1}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_member_is_what_it_would_be_among_its_own_family(mixed, family, blob_task, tmp_path):
    """Member by member: the run in which all six follow one family, at the same trials and seeds."""
    index = FAMILIES.index(family)
    knobs = of_family(index, KNOBS[family])
    start = TRIALS | {f"schedule.{KNOB[family]}": np.where(np.isnan(knobs), np.nanmin(knobs), knobs)}
    schedule = {"name": family, **SHARED, **OWN[family]}
    alone = tune(BASE | {"schedule": schedule}, task=blob_task, out=tmp_path / "run", start=start)
    for slot in np.flatnonzero(index == FAMILY):
        one, other = (take_member(run.population, int(slot)) for run in (mixed, alone))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one.params, other.params)
        rows = [run.history[run.history["trial"] == slot] for run in (mixed, alone)]
        for name in ("train.loss", "validation.loss", "validation.accuracy"):
            np.testing.assert_allclose(rows[0][name], rows[1][name], rtol=1e-4, atol=1e-6)
    other = np.flatnonzero(index != FAMILY)
    apart = np.abs(mixed.population.params["head"]["kernel"][other] - alone.population.params["head"]["kernel"][other])
    assert (apart.max(axis=(1, 2)) > 1e-4).all(), "the families train alike, so nothing was tested"


def test_knobs_of_other_families_are_absent(mixed):
    history = mixed.history
    np.testing.assert_array_equal(history["schedule.family"], FAMILY[history["trial"]])
    for i, name in enumerate(FAMILIES):
        column = history[f"schedule.{name}.{KNOB[name]}"]
        np.testing.assert_array_equal(np.isnan(column), history["schedule.family"] != i)
        np.testing.assert_allclose(column, of_family(i, KNOBS[name])[history["trial"]], rtol=1e-5)
    best, family = mixed.best, FAMILIES[FAMILY[mixed.best.trial]]
    always = {"optimizer.learning_rate", "schedule.family", "schedule.warmup"}
    assert set(best.hyperparameters) == always | {f"schedule.{family}.{KNOB[family]}"}


def test_the_winner_is_a_config_of_its_one_family(mixed, blob_task):
    trial = mixed.best.trial
    family = FAMILIES[FAMILY[trial]]
    tree = tomllib.loads((mixed.run / "best" / "hyperparameters.toml").read_text())
    given = {"warmup": TRIALS["schedule.warmup"][trial], KNOB[family]: KNOBS[family][trial // 3]}
    assert tree["schedule"]["name"] == family
    assert {name: tree["schedule"][name] for name in given} == pytest.approx(given, rel=1e-5)
    assert resolve(tree, task=blob_task)[0].space.dimension == 0
    with (mixed.run / "best" / "schedule.csv").open(newline="") as file:
        course = [float(row["optimizer.learning_rate"]) for row in csv.DictReader(file)]
    static = {name: value for name, value in (SHARED | OWN[family]).items() if not isinstance(value, dict)}
    expected = SCHEDULES[family](jnp.arange(15, dtype=jnp.float32) / 15, **static, **given)
    np.testing.assert_allclose(course, TRIALS["optimizer.learning_rate"][trial] * expected, rtol=1e-4, atol=1e-7)


# ------------------------------------------------------------------------------------------------------ the function


def test_a_mixture_is_the_families_by_index():
    names = ["cosine", "rex", "wsd", "table"]
    mixture = Mixture({name: SCHEDULES[name] for name in names}, {"warmup_shape": "polynomial"})
    knobs = {"cosine.exponent": 2.0, "rex.beta": 3.0, "wsd.decay": 0.4, "table.values": [1.0, 0.2, 0.7]}
    t = jnp.linspace(0.0, 0.999, 41)

    def member(family):
        return mixture(t, {k: jnp.array(v) for k, v in knobs.items()} | {"family": family, "warmup": jnp.float32(0.2)})

    found = jax.jit(jax.vmap(member))(jnp.arange(4.0))
    for i, name in enumerate(names):
        own = {key.partition(".")[2]: value for key, value in knobs.items() if key.startswith(f"{name}.")}
        expected = SCHEDULES[name](t, **own, warmup=0.2, warmup_shape="polynomial")
        np.testing.assert_allclose(found[i], expected, rtol=1e-5, atol=1e-7)


def test_its_knobs_are_the_index_the_warmup_and_each_familys_own():
    assert list(knobs_of(Mixture({"rex": SCHEDULES["rex"], "sqrt": SCHEDULES["sqrt"]}))) == [
        "family",
        "warmup",
        "warmup_power",
        "rex.beta",
        "sqrt.alpha",
    ]
    assert list(knobs_of(rex)) == ["beta", "warmup", "warmup_power"]


def test_it_may_shape_another_hyperparameter(blob_task):
    """Weight decay by a mixture equals weight decay by each of its families."""

    def trained(schedule, space, genotype):
        population = init_population(blob_task, space, sgd, size=2)._replace(genotype=jnp.array(genotype, jnp.float32))
        schedules = {"optimizer.learning_rate": constant, "optimizer.weight_decay": schedule}
        segment = make_segment(blob_task, space, sgd, schedules, steps=8, horizon=10, batch_size=16)
        return np.asarray(segment(population, 0)[0].params["head"]["kernel"])

    values = {"optimizer.learning_rate": 0.05, "optimizer.weight_decay": 1.0}
    families = Axis(choices=(0.0, 1.0))
    mixture = Mixture({"cosine": SCHEDULES["cosine"], "rex": rex})
    both = trained(
        mixture,
        Space(values | {"schedule.weight_decay.rex.beta": 4.0, "schedule.weight_decay.family": families}),
        [[0.25], [0.75]],
    )
    none = np.zeros((2, 0))
    np.testing.assert_allclose(both[0], trained(SCHEDULES["cosine"], Space(values), none)[0], rtol=1e-4, atol=1e-6)
    by_rex = trained(rex, Space(values | {"schedule.weight_decay.beta": 4.0}), none)
    np.testing.assert_allclose(both[1], by_rex[1], rtol=1e-4, atol=1e-6)
    assert np.abs(both[0] - trained(rex, Space(values | {"schedule.weight_decay.beta": 4.0}), none)[0]).max() > 1e-3


def test_two_mixtures_and_a_plain_schedule_stand_side_by_side(blob_task, tmp_path):
    """Each knob is absent where its own mixture, not the other one, follows another family."""
    pair = {"name": ["rex", "linear"], "rex": {"beta": {"low": 0.1, "high": 2.0}}}
    ending = {"name": "cosine", "end": {"low": 0.0, "high": 1.0}}
    tree = BASE | {
        "schedule": pair | {"weight_decay": pair, "dropout": ending},
        "optimizer": {"learning_rate": 0.01, "weight_decay": 0.1},
        "task": {"dropout": 0.2},
        "population": {"size": 4, "segment_steps": 1, "generations": 1},
    }
    families = {"schedule.family": [0, 0, 1, 1], "schedule.weight_decay.family": [0, 1, 0, 1]}
    nan = math.nan
    knobs = {"schedule.rex.beta": [0.5, 0.6, nan, nan], "schedule.weight_decay.rex.beta": [0.7, nan, 0.8, nan]}
    start = families | knobs | {"schedule.dropout.end": [0.1, 0.2, 0.3, 0.4]}
    history = tune(tree, task=blob_task, out=tmp_path / "run", start=start).history
    for name, column in start.items():
        np.testing.assert_allclose(history[name], column, rtol=1e-5, err_msg=name)


# ----------------------------------------------------------------------------------------------------------- config


def test_the_space_has_the_families_and_the_knobs_of_each(blob_task):
    config, _ = resolve(BASE | {"schedule": MIXED}, task=blob_task)
    assert config.space.axes["schedule.family"] == Axis(choices=(0.0, 1.0, 2.0))
    knobs = {name: f"schedule.{name}.{KNOB[name]}" for name in FAMILIES}
    assert set(config.space.axes) == {"optimizer.learning_rate", "schedule.family", "schedule.warmup", *knobs.values()}
    assert config.space.constants["schedule.wsd.end"] == 0.1
    assert config.space.constants["schedule.cosine.end"] == 0.0


def test_the_order_of_the_families_tables_moves_no_genes(blob_task):
    turned = {k: MIXED[k] for k in reversed(MIXED)}
    one, other = (resolve(BASE | {"schedule": schedule}, task=blob_task)[0] for schedule in (MIXED, turned))
    assert one.run_id == other.run_id
    assert list(one.space.axes) == list(other.space.axes)


@pytest.mark.parametrize(
    "schedule",
    [
        {"name": FAMILIES},
        MIXED,
        {"name": ["table", "constant"], "table": {"values": [1.0, {"low": 0.0, "high": 1.0}, 0.5]}},
        {"name": "rex", "beta": 2.0, "weight_decay": MIXED},
        MIXED | {"weight_decay": MIXED, "momentum": {"name": "cosine", "end": 0.5}},
        {"learning_rate": MIXED},
    ],
)
def test_what_is_written_resolves_to_the_same_config(schedule, blob_task):
    config, task = resolve(BASE | {"schedule": schedule}, task=blob_task)
    text = to_toml(config, task)
    tree = tomllib.loads(text)
    assert tree == config.tree
    assert resolve(tree, task=blob_task)[0] == config
    assert resolve(config.tree, task=blob_task)[0].run_id == config.run_id
    lines = text.splitlines()
    for i, line in enumerate(lines):
        assert not line or line[0] in "#[" or lines[i - 1].startswith("# "), line


def test_families_are_written_with_a_table_each(blob_task):
    config, task = resolve(BASE | {"schedule": MIXED}, task=blob_task)
    tree = tomllib.loads(to_toml(config, task))["schedule"]
    for family in FAMILIES:
        known = set(settings(SCHEDULES[family])) - {"warmup", "warmup_shape", "warmup_power"}
        assert set(tree[family]) == known
        assert tree[family].items() >= OWN[family].items()
    assert {k: v for k, v in tree.items() if k not in FAMILIES} == {"name": FAMILIES, "warmup_power": 2.0} | SHARED


@pytest.mark.parametrize(("index", "family"), [*enumerate(FAMILIES)])
def test_with_values_is_the_one_family(index, family, blob_task):
    config, task = resolve(BASE | {"schedule": MIXED | {"weight_decay": MIXED}}, task=blob_task)
    values = {"optimizer.learning_rate": 0.1}
    for prefix, i in (("schedule", index), ("schedule.weight_decay", 1)):
        values |= {f"{prefix}.family": float(i), f"{prefix}.warmup": 0.2, f"{prefix}.{FAMILIES[i]}.{KNOB[FAMILIES[i]]}": 0.25}
    single = config.with_values(values)
    plain = {"warmup": 0.2, "warmup_shape": "cosine"}
    of_rate = {"name": family, **OWN[family], KNOB[family]: 0.25, **plain}
    of_decay = {"name": "rex", "beta": 0.25, **plain}
    pinned = BASE | {"schedule": of_rate | {"weight_decay": of_decay}}
    pinned |= {"optimizer": {"name": "sgd", "learning_rate": 0.1}, "population": BASE["population"] | {"size": 1}}
    assert single == resolve(pinned, task=blob_task)[0]
    assert resolve(tomllib.loads(to_toml(single, task)), task=blob_task)[0] == single


LIST = "expected one family, or a list of two or more different ones; given:"
REFUSED = [
    ({"name": ["cosine", "rexx"]}, "schedule.name: there is no schedule 'rexx'; did you mean 'rex'?"),
    ({"name": ["cosine", "rex", "cosine"]}, f"schedule.name: {LIST} ['cosine', 'rex', 'cosine']"),
    ({"name": ["cosine"]}, f"schedule.name: {LIST} ['cosine']"),
    ({"name": []}, f"schedule.name: {LIST} []"),
    (
        {"name": ["cosine", 3]},
        f"schedule.name: there is no schedule 3; known: {', '.join(sorted(SCHEDULES))}",
    ),
    (
        {"name": ["cosine", "rex"], "wsd": {"decay": 0.1}},
        "schedule.wsd: not one of the families in schedule.name; given: ['cosine', 'rex']",
    ),
    (
        {"name": ["cosine", "rex"], "cosin": {"end": 0.1}},
        "schedule.cosin: there is no such family in schedule.name; did you mean 'cosine'?",
    ),
    ({"name": ["cosine", "rex"], "rex": {"betta": 1}}, "schedule.rex: rex has no setting 'betta'; did you mean 'beta'?"),
    ({"name": ["cosine", "rex"], "rex": {"beta": -1}}, "schedule.rex.beta: expected float >= 0; given: -1"),
    ({"name": ["cosine", "rex"], "rex": 3}, "schedule.rex: expected a table, [schedule.rex]; given: 3"),
    (
        {"name": ["cosine", "rex"], "rex": {"beta": {"low": 0.1, "high": 0.01}}},
        "schedule.rex.beta: low must be below high; given: low = 0.1, high = 0.01",
    ),
    (  # the warm-up is shared, so it stands above the families
        {"name": ["cosine", "rex"], "cosine": {"warmup": 0.1}},
        "schedule.cosine: cosine has no setting 'warmup'; known: end, exponent",
    ),
    (
        {"name": ["cosine", "rex"], "wramup": 0.1},
        "schedule: a list of families, but for their own tables, has no setting 'wramup'; did you mean 'warmup'?",
    ),
    (  # which family is searched needs no saying
        {"name": ["cosine", "rex"], "family": {"choices": [0, 1]}},
        "schedule: a list of families, but for their own tables, has no setting 'family'; "
        "known: warmup, warmup_power, warmup_shape",
    ),
    (
        {"name": ["cosine", "wsd"], "wsd": {"cooldown": "sqr"}},
        "schedule.wsd.cooldown: expected linear | cosine | sqrt; given: 'sqr'",
    ),
]


@pytest.mark.parametrize(("schedule", "sentence"), REFUSED, ids=[str(schedule)[:60] for schedule, _ in REFUSED])
def test_a_bad_mixture_is_refused_in_one_sentence(schedule, sentence, blob_task):
    with pytest.raises(ConfigError) as error:
        resolve(BASE | {"schedule": schedule}, task=blob_task)
    assert str(error.value) == f"config: {sentence}"
    with pytest.raises(ConfigError) as error:
        resolve(BASE | {"schedule": {"weight_decay": schedule}}, task=blob_task)
    nested = sentence.replace("schedule", "schedule.weight_decay", 1).replace("[schedule.", "[schedule.weight_decay.")
    assert str(error.value) == f"config: {nested.replace('in schedule.name', 'in schedule.weight_decay.name')}"
