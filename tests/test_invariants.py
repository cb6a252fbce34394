"""The invariants of the design, each by name. Details are in the tests of the modules; these hold the whole together."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vmaptune as vt
from tests.conftest import SMALL
from vmaptune.config import resolve
from vmaptune.generation import Generations, records_of
from vmaptune.optimizers import OPTIMIZERS, adamw
from vmaptune.plan import Plan, make_plan
from vmaptune.population import Offspring, Stream, inherit, init_population, make_newborn, stream_key, take_member
from vmaptune.programs import CompileLog
from vmaptune.schedules import SCHEDULES, bare, cosine
from vmaptune.schedules.mixture import Mixture, warmup_settings
from vmaptune.selectors import TRIAL_METHODS
from vmaptune.settings import settings
from vmaptune.space import Axis, Space
from vmaptune.train import make_segment

SPACE = Space(
    {
        "optimizer.learning_rate": Axis(1e-4, 1e-1, "log"),
        "schedule.warmup": Axis(0.0, 0.3),
        "task.dropout": Axis(0.0, 0.5),
    }
)


def config_of(tree, task):
    return resolve(
        {k: v for k, v in tree.items() if k != "task"} | {"task": {"dropout": {"low": 0.0, "high": 0.5}}}, task=task
    )[0]


def run_generations(config, task, dispatches, *, diverge=False, plan=None):
    """Drives a run's program by hand; returns compilations by program after the first two dispatches and at the end."""
    with CompileLog() as log:
        generations = Generations(config, task, plan or make_plan(config.population.size))
        state, first = generations.begin(), 0
        for count in dispatches:
            if diverge and first:
                state = state._replace(population=with_a_broken_member(state.population, first % config.population.size))
            state, facts, _ = generations(state, first, count)
            records = records_of(jax.device_get(facts), first, count, {})
            first += count
            if first <= 2:
                early = dict(log.compilations)
        return early, dict(log.compilations), state, records[-1]


def with_a_broken_member(population, slot):
    broken = jax.tree.map(lambda leaf: leaf.at[slot].set(jnp.nan), population.params)
    return population._replace(params=jax.device_put(broken, jax.tree.map(lambda leaf: leaf.sharding, population.params)))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_1_slot_independence(blob_task, size):
    def train(n, plan=None):
        population = init_population(blob_task, SPACE, adamw, size=n, seed=0)
        segment = make_segment(blob_task, SPACE, adamw, cosine, steps=30, horizon=60, batch_size=16, plan=plan)
        return segment(population, 0)[0]

    many, few = train(8), train(size)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[:size], b, rtol=2e-4, atol=2e-6), many, few)


def test_1_slot_independence_holds_in_any_slot(blob_task):
    population = init_population(blob_task, SPACE, adamw, size=6, seed=0)
    turned = jax.tree.map(lambda leaf: leaf[::-1], population)
    segment = make_segment(blob_task, SPACE, adamw, cosine, steps=30, horizon=60, batch_size=16, plan=Plan(1, 6))
    forward = segment(population, 0)[0]
    backward = jax.tree.map(lambda leaf: leaf[::-1], segment(turned, 0)[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6), forward, backward)


@pytest.mark.parametrize("method", ["truncation", "multifrequency", "pb2", "sobol"])
def test_2_one_compilation_whatever_the_number_of_generations(blob_task, method):
    config = config_of(
        SMALL | {"search": {"method": method}, "population": {"size": 8, "segment_steps": 5, "generations": 12}}, blob_task
    )
    early, late, _, _ = run_generations(config, blob_task, [1, 1, 3, 7])
    assert early == late, "something was compiled after the second generation"
    assert late["generations"] == 1


@pytest.mark.parametrize("method", ["truncation", "random"])
def test_2_divergence_and_rebirth_compile_nothing(blob_task, method):
    config = config_of(
        SMALL | {"search": {"method": method}, "population": {"size": 8, "segment_steps": 5, "generations": 4}}, blob_task
    )
    early, late, state, _ = run_generations(config, blob_task, [1] * 8, diverge=True)
    assert {k: v for k, v in late.items() if k != "other"} == {k: v for k, v in early.items() if k != "other"}
    assert (np.asarray(state.population.trial) >= 8).sum() >= 1


def test_2_new_values_compile_nothing(blob_task):
    segment = make_segment(blob_task, SPACE, adamw, cosine, steps=5, horizon=10, batch_size=16)
    segment(init_population(blob_task, SPACE, adamw, size=4, seed=0), 0)
    other = init_population(blob_task, SPACE, adamw, size=4, seed=1)
    with CompileLog() as log:
        segment(other, 3)
    assert sum(log.compilations.values()) == 0


# Every way of keeping a state; test_search does the same for methods that propose.
@pytest.mark.parametrize("method", ["truncation", "multifrequency", "differential", "pb2", "random", "evolution"])
def test_3_resume_equals_uninterrupted(tmp_path, small, method):
    small["search"] = {"method": method} | ({"trials": 12} if method in TRIAL_METHODS else {})
    whole = vt.tune(small, out=tmp_path / "whole")
    stops = iter([False, True, True])
    while True:
        part = vt.tune(small, out=tmp_path / "parts", resume=True, should_stop=lambda: next(stops, False))
        if part.status == "finished":
            break
    np.testing.assert_array_equal(part.history, whole.history)
    jax.tree.map(np.testing.assert_array_equal, part.population, whole.population)
    jax.tree.map(np.testing.assert_array_equal, part.best.params, whole.best.params)
    assert part.as_json()["best"] == whole.as_json()["best"]
    assert part.best.test == whole.best.test


def test_4_no_two_members_share_a_key(blob_task):
    newborn = make_newborn(blob_task, adamw)
    population = init_population(blob_task, SPACE, adamw, size=6)
    trials = population.trial.tolist()
    for parent in ([0, 0, 0, 3, 4, -1], [5, 1, 1, 1, -1, 5]):
        population = inherit(population, Offspring(jnp.array(parent, jnp.int32), population.genotype), newborn)
        trials += [t for t, p, s in zip(population.trial.tolist(), parent, range(6), strict=True) if p != s]
    keys = {tuple(np.asarray(jax.random.key_data(stream_key(0, Stream.STEP, t))).tolist()) for t in trials}
    assert len(keys) == len(trials) == 6 + 3 + 4


def test_4_two_children_of_one_parent_go_different_ways(blob_task):
    space = Space({"task.dropout": 0.5, "optimizer.learning_rate": 0.01})  # nothing to search: only their keys tell them apart
    population = init_population(blob_task, space, adamw, size=4)
    population = inherit(
        population, Offspring(jnp.array([0, 0, 0, 3], jnp.int32), population.genotype), make_newborn(blob_task, adamw)
    )
    twins = [take_member(population, slot).params for slot in (1, 2)]
    jax.tree.map(np.testing.assert_array_equal, *twins)
    after = make_segment(blob_task, space, adamw, cosine, steps=5, horizon=10, batch_size=16)(population, 0)[0]
    kernels = np.asarray(after.params["head"]["kernel"])
    assert all((kernels[a] != kernels[b]).any() for a, b in ((0, 1), (0, 2), (1, 2)))


def ends(setting):
    """An axis over where a setting is usually searched; a wide one for the few that are not."""
    return Axis(*setting.usual) if setting.usual else Axis(0.01, 2.0)


def dead(task, space, optimizer, schedule, resting, moved):
    """Those axes that change nothing: for each, two members that differ in it alone are trained side by side.

    Args:
        resting: Genes of both members, by axis.
        moved: By axis: the gene of the second member, and other genes of both.
    """
    axes = list(space.axes)
    pairs = [(resting | others, resting | others | {name: gene}) for name, (gene, others) in moved.items()]
    genotype = jnp.array([[member[axis] for axis in axes] for pair in pairs for member in pair], jnp.float32)
    population = init_population(task, space, optimizer, size=len(genotype))
    one = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), population)  # one trial: the same draws
    plan = Plan(1, len(genotype))
    segment = make_segment(task, space, optimizer, schedule, steps=10, horizon=10, batch_size=16, plan=plan)
    after = segment(one._replace(genotype=genotype), 0)[0]
    weights = jax.tree.leaves(jax.vmap(vt.optimizers.evaluation_params)(after.opt_state, after.params))
    flat = np.concatenate([np.asarray(leaf).reshape(len(genotype), -1) for leaf in weights], axis=1)
    apart = np.abs(flat[1::2] - flat[::2]).max(axis=1)
    return [name for name, distance in zip(moved, apart, strict=True) if not distance > 1e-5]


# The engine passes the settings of all rows on in the same way; that each row then uses them, test_optimizers holds.
@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop", "schedule_free_adamw"])
def test_5_no_dead_setting_of_an_optimizer(blob_task, name):
    """Changing one traced setting changes what a member becomes, all the way through the engine."""
    known = {f"optimizer.{s.name}": s for s in settings(OPTIMIZERS[name]).values() if s.traced}
    space = Space({"schedule.warmup": 0.5} | {name: ends(setting) for name, setting in known.items()})
    resting = {axis: float("clip" in axis) for axis in known}  # clipped as little as can be
    felt = {"learning_rate": 0.7, "weight_decay": 0.5, "l1": 1.0, "adam_ratio": 1.0, "estim_lr0": 1.0, "estim_lr_coef": 1.0}
    resting |= {axis: gene for axis in known if (gene := felt.get(axis.partition(".")[2])) is not None}
    moved = {axis: (1.0 - round(resting[axis]), {}) for axis in known}
    assert dead(blob_task, space, OPTIMIZERS[name], cosine, resting, moved) == []


def test_5_no_dead_knob_of_a_schedule(blob_task):
    mixture = Mixture({name: partial(family) for name, family in SCHEDULES.items()}, {"warmup_shape": "polynomial"})
    entries = {s.name: ends(s) for s in warmup_settings().values()}
    for name, family in SCHEDULES.items():
        own = [s for s in settings(bare(family)).values() if s.traced]
        entries |= {f"{name}.{s.name}": ends(s) for s in own if not s.vector}
        entries |= {f"{name}.{s.name}.{i}": ends(s.number) for s in own if s.vector for i in range(3)}
    axes = {f"schedule.{knob}": axis for knob, axis in entries.items()}
    families = Axis(choices=tuple(map(float, range(len(SCHEDULES)))))
    space = Space({"optimizer.learning_rate": 0.05, "schedule.family": families} | axes)
    moved = {}
    for axis in axes:
        owner = axis.split(".")[1]
        index = list(SCHEDULES).index(owner) if owner in SCHEDULES else 0
        of_owner = {"schedule.family": (index + 0.5) / len(SCHEDULES)}
        moved[axis] = (0.9, of_owner | ({"schedule.warmup": 0.5} if owner == "warmup_power" else {}))
    resting = dict.fromkeys(space.axes, 0.25) | {"schedule.warmup": 0.0}
    assert dead(blob_task, space, adamw, mixture, resting, moved) == []


def test_5_no_dead_setting_of_a_loss(blob_task):
    inputs, labels = blob_task.splits.train
    kept = np.flatnonzero((np.asarray(labels) > 0) | (np.arange(len(labels)) < 30))  # classes of different sizes
    splits = blob_task.splits._replace(train=(inputs[kept], labels[kept]))
    network = vt.models.from_nnx(lambda rngs: vt.models.MLP(4, [8], 3, rngs=rngs))
    task = vt.tasks.classification(network, splits)
    names = [f"task.{s.name}" for s in settings(task.loss).values() if s.traced]
    space = Space({"optimizer.learning_rate": 0.05} | {name: Axis(0.0, 0.5) for name in names})
    assert len(names) >= 5
    assert dead(task, space, adamw, cosine, dict.fromkeys(names, 0.0), {name: (1.0, {}) for name in names}) == []


def test_5_a_setting_that_nothing_reads_is_found(blob_task):
    """That the tests above can fail: the power of a warm-up that has none, and a warm-up of no length."""
    space = Space({"optimizer.learning_rate": 0.05, "schedule.warmup": Axis(0.0, 0.5), "schedule.warmup_power": Axis(1.0, 4.0)})
    resting = {"schedule.warmup": 0.5, "schedule.warmup_power": 0.5}
    moved = {"schedule.warmup": (0.9, {}), "schedule.warmup_power": (0.9, {})}
    assert dead(blob_task, space, adamw, cosine, resting, moved) == ["schedule.warmup_power"]


def test_6_the_best_finite_member_is_never_lost(blob_task):
    """Until trials finish, the champion's fitness is the best in the history, and the best member of a generation survives."""
    config = config_of(SMALL, blob_task)
    generations = Generations(config, blob_task, make_plan(8))
    state, best = generations.begin(), -np.inf
    for generation in range(3):
        state, facts, _ = generations(state, generation, 1)
        (record,) = records_of(jax.device_get(facts), generation, 1, {})
        best = max(best, np.nanmax(record.fitness))
        assert float(state.champion.fitness) == best
        survivors = record.parent == np.arange(8)
        assert np.nanmax(record.fitness[survivors]) == np.nanmax(record.fitness)
