"""Generations are one program: however they are cut into dispatches, the same happens, to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from tests.conftest import SMALL
from vmaptune import generation as module
from vmaptune.config import resolve
from vmaptune.generation import Generations, records_of
from vmaptune.plan import Plan
from vmaptune.population import Status, init_population

TOTAL = 6


def config_of(task, *, size=8, generations=TOTAL, method="truncation", **sections):
    tree = {k: v for k, v in SMALL.items() if k not in ("task", "plan")} | {
        "task": {"dropout": {"low": 0.0, "high": 0.5}},
        "batch": {"size": 16},
        "population": {"size": size, "segment_steps": 3, "generations": generations},
        "search": {"method": method},
    }
    return resolve(tree | sections, task=task)[0]


def bits(tree):
    """Every number of a tree, NaN payloads included."""
    return [(leaf.dtype, leaf.shape, leaf.tobytes()) for leaf in map(np.asarray, jax.tree.leaves(jax.device_get(tree)))]


def run(generations, cuts, state=None, first=0):
    """Runs dispatches of the given lengths; returns the state after them and the records of all."""
    state, records = state or generations.begin(), []
    for count in cuts:
        state, facts, ran = generations(state, first, count)
        assert int(ran) == count
        records += records_of(jax.device_get(facts), first, count, {"train": 1.0})
        first += count
    return jax.device_get(state), records


def facts_of(record):
    return {key: value for key, value in vars(record).items() if key not in ("generation", "seconds")}


@pytest.fixture(scope="module")
def wild(blob_task):
    """Generations in which members survive, are copied, diverge and are born anew; and all of them, one by one."""
    optimizer = {"name": "sgd", "learning_rate": {"low": 1e-3, "high": 1e25, "scale": "log"}}
    generations = Generations(config_of(blob_task, optimizer=optimizer), blob_task, Plan(2, 2))
    return generations, run(generations, [1] * TOTAL)


def test_the_run_that_is_cut_has_all_that_can_happen(wild):
    _, (_, records) = wild
    slots = np.arange(8)
    assert any((record.status != Status.OK).any() for record in records)
    assert any(((record.parent != slots) & (record.parent >= 0)).any() for record in records[:-1])
    assert all((record.parent == slots).any() for record in records)


@effort(max_examples=20)
@given(cuts=st.lists(st.booleans(), min_size=TOTAL - 1, max_size=TOTAL - 1))
def test_how_generations_are_cut_into_dispatches_changes_no_bit(wild, cuts):
    generations, (state, records) = wild
    ends = [i + 1 for i, cut in enumerate(cuts) if cut] + [TOTAL]
    lengths = np.diff([0, *ends]).tolist()
    found, told = run(generations, lengths)
    assert bits(found) == bits(state)
    assert [record.generation for record in told] == list(range(TOTAL))
    for one, other in zip(told, records, strict=True):
        assert bits(facts_of(one)) == bits(facts_of(other))


def test_the_rows_of_a_dispatch_that_it_did_not_run_stay_empty(wild):
    generations, _ = wild
    _, facts, _ = generations(generations.begin(), 0, 2)
    facts = jax.device_get(facts)
    assert {len(leaf) for leaf in jax.tree.leaves(facts)} == {generations.capacity}
    assert (facts.step[:2] > 0).all()
    assert all((leaf[2:] == 0).all() for leaf in jax.tree.leaves(facts))


def test_a_dispatch_takes_its_state_with_it(wild):
    generations, _ = wild
    begun = generations.begin()
    after, _, _ = generations(begun, 0, 1)
    assert begun.population.trial.is_deleted()
    assert not after.population.trial.is_deleted()


@pytest.mark.parametrize("method", ["truncation", "random", "sobol"])
def test_the_last_generation_replaces_nobody(blob_task, method):
    """Also where members have failed, and in a dispatch that it shares with others; the one before does replace."""
    wild = {"name": "sgd", "learning_rate": {"low": 1e-3, "high": 1e25, "scale": "log"}}
    generations = Generations(config_of(blob_task, method=method, generations=3, optimizer=wild, seed=1), blob_task, Plan(1, 8))
    state, records = run(generations, [1, 2])
    slots = np.arange(8)
    assert records[-1].failed.any()
    np.testing.assert_array_equal(records[-1].parent, slots)
    np.testing.assert_array_equal(records[-1].next_trial, records[-1].trial)
    np.testing.assert_array_equal(state.offspring.parent, slots)
    np.testing.assert_array_equal(state.offspring.genotype, state.population.genotype)
    assert (records[-2].parent != slots).any()


@pytest.mark.parametrize("plan", [Plan(1, 8), Plan(2, 1), Plan(2, 3)])
def test_the_first_generation_is_born_by_an_order(blob_task, plan):
    """Trials 0..N-1, and the members that `init_population` makes: one generation of no learning shows them."""
    still = {"name": "sgd", "learning_rate": 0.0, "momentum": 0.0}
    config = config_of(blob_task, generations=2, optimizer=still)
    generations = Generations(config, blob_task, plan)
    begun = generations.begin()
    assert np.asarray(begun.population.trial).tolist() == [-1] * 8
    assert np.asarray(begun.offspring.parent).tolist() == [-1] * 8
    assert float(begun.champion.fitness) == -np.inf
    state, (record,) = run(generations, [1], begun)
    recipe = config.recipe(blob_task)
    born = init_population(blob_task, recipe.space, recipe.optimizer, size=8, seed=0)
    assert record.trial.tolist() == list(range(8))
    np.testing.assert_array_equal(state.population.genotype, born.genotype)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state.population.params, jax.device_get(born.params))
    assert state.population.step.tolist() == [3] * 8
    values = recipe.space.decode(born.genotype)
    assert set(record.hyperparameters) == set(recipe.space.axes)
    for name, found in record.hyperparameters.items():
        np.testing.assert_allclose(found, values[name], rtol=1e-6)


def test_a_seed_begins_with_other_members(blob_task):
    one, other = (
        run(Generations(config_of(blob_task, generations=1, seed=seed), blob_task, Plan(1, 8)), [1])[0] for seed in (0, 1)
    )
    assert (one.population.genotype != other.population.genotype).all()
    assert (one.population.params["head"]["kernel"] != other.population.params["head"]["kernel"]).all()


@pytest.mark.parametrize("generations", [1, 5, 1000])
def test_capacity_is_all_generations_of_a_small_run(blob_task, generations):
    assert Generations(config_of(blob_task, generations=generations), blob_task, Plan(1, 8)).capacity == generations


def test_capacity_is_what_the_facts_leave_room_for(blob_task, monkeypatch):
    """Each fact is four bytes a member: step, trial, status, fitness, parent, next trial, 4 metrics and 4 axes."""
    config = config_of(blob_task, generations=10**6)
    each = 4 * 8 * (6 + 4 + 4)
    for room, capacity in ((module._RECORDS_BYTES, module._RECORDS_BYTES // each), (3 * each, 3), (3 * each - 1, 2), (1, 1)):
        monkeypatch.setattr(module, "_RECORDS_BYTES", room)
        assert Generations(config, blob_task, Plan(2, 4)).capacity == capacity


def test_seven_members_on_two_devices(blob_task):
    """What does not come out even: the slot that is added is seen by nobody, and no bit of a member knows of it."""
    config = config_of(blob_task, size=7)
    one, records = run(Generations(config, blob_task, Plan(1, 7)), [TOTAL])
    for plan in (Plan(2, 4), Plan(2, 2), Plan(2, 1)):
        two, told = run(Generations(config, blob_task, plan), [2, 4])
        assert {np.shape(leaf)[0] for leaf in jax.tree.leaves(two.population)} == {7}
        assert max(record.next_trial.max() for record in told) == max(record.next_trial.max() for record in records)
        for a, b in zip(told, records, strict=True):
            assert a.trial.shape == a.fitness.shape == (7,)
            np.testing.assert_array_equal(a.trial, b.trial)
            np.testing.assert_array_equal(a.parent, b.parent)
            np.testing.assert_allclose(a.metrics["train.loss"], b.metrics["train.loss"], rtol=2e-4)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6), two.population, one.population)


def test_records_are_the_facts_of_each_generation_unstacked():
    stacked = module.Facts(
        *(np.arange(12).reshape(4, 3) + 100 * i for i in range(4)),
        metrics={"validation.loss": np.arange(12.0).reshape(4, 3)},
        hyperparameters={"optimizer.b1": np.arange(12.0).reshape(4, 3) / 12},
        parent=np.arange(12).reshape(4, 3) + 400,
        next_trial=np.arange(12).reshape(4, 3) + 500,
    )
    records = records_of(stacked, 7, 3, {"train": 0.5})
    assert [record.generation for record in records] == [7, 8, 9]
    for i, record in enumerate(records):
        row = np.arange(3 * i, 3 * i + 3)
        found = [record.trial, record.step, record.status, record.fitness, record.parent, record.next_trial]
        assert [each.tolist() for each in found] == [(row + 100 * k).tolist() for k in range(6)]
        assert record.metrics["validation.loss"].tolist() == row.tolist()
        assert record.hyperparameters["optimizer.b1"].tolist() == (row / 12).tolist()
        assert record.seconds == {"train": 0.5}
    assert records_of(stacked, 0, 0, {}) == []


def test_a_metric_that_is_finite_does_not_hide_a_network_that_is_not(blob_task):
    """Accuracy is a number even where the loss is NaN."""
    generations = Generations(config_of(blob_task, generations=3), blob_task, Plan(1, 8))
    state, _, _ = generations(generations.begin(), 0, 1)
    params = jax.tree.map(lambda leaf: leaf.at[2].set(jnp.nan), state.population.params)
    stay = state.offspring._replace(parent=jnp.arange(8, dtype=jnp.int32), genotype=jnp.array(state.population.genotype))
    broken = state._replace(population=state.population._replace(params=params), offspring=stay)
    _, (record,) = run(generations, [1], broken, 1)
    assert np.isfinite(record.metrics["validation.accuracy"][2])
    assert record.failed.tolist() == [slot == 2 for slot in range(8)]
    assert record.status[2] == Status.NONFINITE_LOSS


def test_another_seed_and_another_start_are_the_same_program(blob_task):
    """So that a persistent compilation cache serves every seed, and every table of trials of one length."""

    def program(seed, start):
        tree = {k: v for k, v in SMALL.items() if k != "task"} | {"seed": seed, "task": {}}
        config, _ = resolve(tree, task=blob_task)
        table = np.full((9, config.space.dimension), start, np.float32)
        generations = Generations(config, blob_task, Plan(2, 2), table)
        arguments = generations._feed(0), generations.begin(), jnp.int32(0), jnp.int32(1)
        return generations._program._jitted.lower(*arguments).as_text()

    assert program(0, 0.1) == program(1, 0.9)
