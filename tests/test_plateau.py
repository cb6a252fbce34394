"""Decay on plateaus: PyTorch's rules, written out again here; each member by itself; and what a run shows of it."""

import csv
import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmaptune.loop import tune
from vmaptune.plateau import fresh, plateau
from vmaptune.store.reading import read_run

AXIS = {"low": 1e-3, "high": 1e-1, "scale": "log"}


class Reference:
    """torch.optim.lr_scheduler.ReduceLROnPlateau with mode "max", threshold_mode "rel" and a learning rate of 1, in float32.

    Two things differ from PyTorch's text, because its best is a metric of a user and ours a fitness of either sign: an
    improvement is measured by the size of the best (PyTorch's `best * (1 + threshold)` asks for less than the best when
    that is negative), and its `eps`, which keeps back falls too small to matter, is 0.
    """

    def __init__(self, factor, patience, cooldown, threshold, min_lr):
        self.factor, self.patience, self.cooldown = np.float32(factor), patience, cooldown
        self.threshold, self.min_lr = np.float32(threshold), np.float32(min_lr)
        self.lr, self.best, self.num_bad_epochs, self.cooldown_counter = np.float32(1), np.float32(-np.inf), 0, 0

    def is_better(self, a):
        margin = self.threshold * abs(self.best) if math.isfinite(self.best) else np.float32(0)
        return a > self.best + margin

    def step(self, metric):
        if self.is_better(np.float32(metric)):
            self.best = np.float32(metric)
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self.lr = min(self.lr, max(self.lr * self.factor, self.min_lr))
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        return self.lr


@jax.jit
def courses(fitness, settings):
    """f32[N, T]: the scales of N members after each of T generations, given fitness f32[N, T] and settings f32[N]."""

    def member(fitness, settings):
        def generation(state, value):
            state = plateau(state, value, **settings)
            return state, state[0]

        return jax.lax.scan(generation, fresh(), fitness)[1]

    return jax.vmap(member)(fitness, settings)


def reference(fitness, settings):
    """The same by the reference, member by member."""
    names = ("factor", "patience", "cooldown", "threshold", "floor")
    members = [Reference(*(settings[name][i] for name in names)) for i in range(len(fitness))]
    return np.array([[member.step(value) for value in row] for member, row in zip(members, fitness, strict=True)])


# Quarters, so that a threshold of a half or a quarter is met exactly, and often.
values = st.sampled_from([*(np.arange(-8, 9) / 4).tolist(), math.nan, math.inf, -math.inf])
members = st.fixed_dictionaries(
    {
        "factor": st.sampled_from([0.1, 0.5, 0.9, 1.0]),
        "patience": st.sampled_from([0, 1, 2, 5]),
        "cooldown": st.sampled_from([0, 1, 3]),
        "threshold": st.sampled_from([0.0, 1e-4, 0.25, 0.5]),
        "floor": st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    }
)


@given(st.lists(st.tuples(st.lists(values, min_size=24, max_size=24), members), min_size=4, max_size=4))
def test_it_is_pytorchs_reduce_lr_on_plateau_for_each_member(population):
    fitness = np.array([row for row, _ in population], np.float32)
    settings = {name: np.array([given[name] for _, given in population], np.float32) for name in population[0][1]}
    np.testing.assert_allclose(courses(fitness, settings), reference(fitness, settings), rtol=1e-6)


def test_members_fall_each_by_its_own_settings():
    fitness = np.zeros((3, 6), np.float32)
    settings = {"factor": [0.5, 0.1, 0.5], "patience": [1, 1, 3], "cooldown": [0] * 3, "threshold": [0] * 3, "floor": [0] * 3}
    found = courses(fitness, {name: np.float32(column) for name, column in settings.items()})
    expected = [[1, 1, 0.5, 0.5, 0.25, 0.25], [1, 1, 0.1, 0.1, 0.01, 0.01], [1, 1, 1, 1, 0.5, 0.5]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_falling_negative_metric_is_no_improvement():
    """Of losses, whose fitness is negative, the threshold asks for more, not for less."""
    state = plateau(fresh(), np.float32(-2.0), factor=0.5, patience=0.0, threshold=0.5)
    assert float(plateau(state, np.float32(-2.5), factor=0.5, patience=0.0, threshold=0.5)[0]) == 0.5
    assert float(plateau(state, np.float32(-1.5), factor=0.5, patience=0.0, threshold=0.5)[0]) == 0.5
    assert float(plateau(state, np.float32(-0.5), factor=0.5, patience=0.0, threshold=0.5)[0]) == 1.0


# --------------------------------------------------------------------------------------------------------------- a run

BASE = {
    "batch": {"size": 16},
    "optimizer": {"learning_rate": AXIS},
    "schedule": {"name": "linear", "end": 0.5},
    "population": {"size": 6, "segment_steps": 3, "generations": 8},
    "search": {"method": "random"},
    "checkpoint": {"every": 100},
}
FALLING = {"factor": {"choices": [0.25, 0.5]}, "patience": 0.0, "cooldown": 1.0, "threshold": 0.02, "floor": 0.1}


@pytest.fixture(scope="module")
def falling(blob_task, tmp_path_factory):
    """A run in which learning rates fall."""
    return tune(BASE | {"plateau": FALLING}, task=blob_task, out=tmp_path_factory.mktemp("plateau") / "run")


def of_trial(history, trial):
    rows = history[history["trial"] == trial]
    return rows[np.argsort(rows["generation"])]


def test_the_history_shows_the_scale_that_each_generation_was_trained_at(falling):
    seen = set()
    for trial in range(6):
        rows = of_trial(falling.history, trial)
        fixed = [FALLING[name] for name in ("patience", "cooldown", "threshold", "floor")]
        after = Reference(rows["plateau.factor"][0], *fixed)
        expected = [1.0, *(after.step(value) for value in rows["fitness"])]  # judged after a generation, felt in the next
        np.testing.assert_allclose(rows["plateau.scale"], expected[:-1], rtol=1e-6)
        seen |= set(np.round(rows["plateau.scale"], 4).tolist())
    assert {1.0, 0.5, 0.25} <= seen, "no learning rate has fallen, so nothing was tested"
    assert falling.compilations["generations"] == 1


def test_the_winners_schedule_has_the_fallen_learning_rate(falling):
    best = falling.best
    rows = of_trial(falling.history, best.trial)
    with (falling.run / "best" / "schedule.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == best.step == 24
    scale = np.repeat(rows["plateau.scale"], 3)
    course = best.hyperparameters["optimizer.learning_rate"] * (1 - 0.5 * np.arange(24) / 24) * scale
    np.testing.assert_allclose([float(row["optimizer.learning_rate"]) for row in table], course, rtol=1e-5)
    assert not any("plateau" in name for name in table[0])


def test_weights_are_trained_with_the_fallen_learning_rate(blob_task, tmp_path):
    """A member whose learning rate falls to nothing stays where it is; one whose rate never falls goes on."""
    stopped = {"factor": {"choices": [1e-30, 1.0]}, "patience": 0.0, "threshold": 100.0}
    config = BASE | {"optimizer": {"learning_rate": 0.05}, "plateau": stopped}
    start = {"plateau.factor": [1e-30, 1.0] * 3}
    result = tune(config, task=blob_task, out=tmp_path / "run", start=start)
    for trial in range(6):
        loss = of_trial(result.history, trial)["validation.loss"]
        assert (len(set(loss[2:].tolist())) == 1) == (trial % 2 == 0)  # the fall is judged after the second generation
        assert loss[0] != loss[1]


def test_a_factor_of_one_leaves_nothing_in_the_run(blob_task, tmp_path):
    result = tune(BASE | {"plateau": {"patience": 0.0}} | SHORT, task=blob_task, out=tmp_path / "run")
    assert not [name for name in result.history.dtype.names if name.startswith("plateau")]
    assert read_run_config(result)["plateau"]["factor"] == 1.0


SHORT = {"population": {"size": 2, "segment_steps": 2, "generations": 2}}


def read_run_config(result):
    from vmaptune.store.folder import RunFolder

    return read_run(RunFolder(result.run))["config"]


def test_a_copy_goes_on_with_its_parents_scale_and_a_newborn_afresh(blob_task):
    import jax.numpy as jnp

    from vmaptune.optimizers import adamw
    from vmaptune.population import Offspring, inherit, init_population, make_newborn
    from vmaptune.space import Axis, Space

    space = Space({"optimizer.learning_rate": Axis(1e-3, 1e-1)})
    population = init_population(blob_task, space, adamw, size=3)
    worn = population._replace(plateau=jnp.arange(12, dtype=jnp.float32).reshape(3, 4))
    order = Offspring(jnp.array([0, 0, -1], jnp.int32), population.genotype)
    after = inherit(worn, order, make_newborn(blob_task, adamw))
    np.testing.assert_array_equal(after.plateau, [[0, 1, 2, 3], [0, 1, 2, 3], fresh()])
