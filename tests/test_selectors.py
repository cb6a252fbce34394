"""The selector contract, for every row of the table; then what each method promises of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmaptune.population import Status
from vmaptune.selectors import SELECTORS, View, truncation
from vmaptune.selectors.contract import ranking
from vmaptune.selectors.explore import perturb, reflect, shares
from vmaptune.space import Axis, Space

rows = pytest.mark.parametrize("name", SELECTORS)
values = st.one_of(st.floats(-2, 2, width=32), st.sampled_from([np.nan, np.inf, -np.inf, 0.5]))
sizes = st.sampled_from([1, 2, 3, 8])  # few, because every size compiles its own operations


def view_of(fitness, status=None, done=None, seed=0, dimension=3):
    n = len(fitness)
    zeros = jnp.zeros(n, jnp.int32)
    return View(
        genotype=jax.random.uniform(jax.random.key(seed), (n, dimension)),
        step=zeros,
        trial=jnp.arange(n, dtype=jnp.int32),
        status=zeros if status is None else jnp.array(status, jnp.int32),
        done=jnp.zeros(n, bool) if done is None else jnp.array(done),
    )


def space(dimension=3):
    return Space({f"x{d}": Axis(0, 1) for d in range(dimension)})


def run(selector, fitness, view, seed=0):
    state = selector.init(jax.random.key(9), space(view.genotype.shape[1]), len(fitness))
    return selector.update(jax.random.key(seed), state, view, jnp.array(fitness, jnp.float32))[1]


@rows
@given(n=sizes, data=st.data())
def test_contract(name, n, data):
    fitness = data.draw(st.lists(values, min_size=n, max_size=n))
    status = data.draw(st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=n, max_size=n))
    done = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    view = view_of(fitness, status, done, seed=n)
    parent, genotype = map(np.asarray, run(SELECTORS[name](), fitness, view))
    sound = np.isfinite(np.float32(fitness)) & (np.array(status) == Status.OK)
    assert parent.dtype == np.int32
    assert genotype.dtype == np.float32
    assert ((parent >= -1) & (parent < n)).all()
    assert ((genotype >= 0) & (genotype <= 1)).all()
    survivors = parent == np.arange(n)
    np.testing.assert_array_equal(genotype[survivors], np.asarray(view.genotype)[survivors])
    if sound.any():
        assert sound[parent[parent >= 0]].all(), "a failed member is a parent, or survives"
        best = sound & (np.float32(fitness) == np.float32(fitness)[sound].max())
        if (best & ~np.array(done)).any():  # a finished one has nothing left to train
            assert (survivors & best).any(), "the best was lost"
    else:
        assert (parent == -1).all()


@rows
@pytest.mark.parametrize("fitness", [[0.1, np.nan, 0.7, 0.7, -1.0, 0.3], [np.nan] * 6, [0.5] * 6, [0.5]])
def test_the_same_under_jit_scan_and_vmap_over_seeds(name, fitness):
    selector = SELECTORS[name]()
    if not selector.pure:
        return
    view, values = view_of(fitness), jnp.array(fitness, jnp.float32)
    state = selector.init(jax.random.key(9), space(), len(fitness))
    keys = jax.random.split(jax.random.key(1), 3)

    def update(key):
        return selector.update(key, state, view, values)[1]

    plain = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[update(key) for key in keys])
    scanned = jax.lax.scan(lambda carry, key: (carry, update(key)), 0, keys)[1]
    for other in (jax.lax.map(jax.jit(update), keys), scanned, jax.vmap(update)(keys)):
        np.testing.assert_array_equal(plain.parent, other.parent)
        np.testing.assert_allclose(plain.genotype, other.genotype, atol=1e-6)


@rows
def test_nothing_to_search_is_legal(name):
    offspring = run(SELECTORS[name](), [0.1, 0.9, 0.5, np.nan], view_of([0.0] * 4, dimension=0))
    assert offspring.genotype.shape == (4, 0)


def test_ranking_puts_failures_last_and_keeps_ties_in_order():
    fitness = jnp.array([0.5, np.nan, 0.9, 0.5, np.inf, -np.inf, 0.1])
    assert ranking(view_of(fitness, status=[0, 0, 0, 0, 0, 0, 1]), fitness).tolist()[:3] == [2, 0, 3]


@given(n=st.sampled_from([2, 3, 8, 17]), quantile=st.floats(0, 0.5), seed=st.integers(0, 5))
def test_truncation_replaces_the_worst_by_the_best(n, quantile, seed):
    fitness = np.random.default_rng(seed).permutation(n).astype(np.float32)
    parent = np.asarray(run(truncation(quantile=quantile), fitness, view_of(fitness)).parent)
    cut = min(int(np.ceil(n * quantile)), n // 2)
    worst, best = set(np.argsort(fitness)[:cut]), set(np.argsort(fitness)[n - cut :])
    assert set(np.flatnonzero(parent != np.arange(n))) == worst
    assert {int(parent[slot]) for slot in worst} <= best


def test_truncation_leaves_ties_alone():
    parent = np.asarray(run(truncation(), [0.5] * 8, view_of([0.5] * 8)).parent)
    assert parent.tolist() == list(range(8))


def test_truncation_replaces_every_failure_whatever_the_quantile():
    fitness = [0.1, np.nan, np.nan, np.nan, np.nan, 0.3, np.nan, 0.2]
    parent = np.asarray(run(truncation(quantile=0.0), fitness, view_of(fitness)).parent)
    assert parent.tolist() == [0, 5, 5, 5, 5, 5, 5, 7]


def test_parents_are_drawn_evenly_from_the_best():
    fitness = np.arange(40, dtype=np.float32)
    drawn = np.concatenate(
        [np.asarray(run(truncation(quantile=0.25), fitness, view_of(fitness), seed=s).parent)[:10] for s in range(100)]
    )
    counts = np.bincount(drawn - 30, minlength=10)
    assert counts.sum() == 1000
    assert abs(counts - 100).max() < 4 * np.sqrt(90)


def test_two_children_of_one_parent_differ():
    fitness = [1.0, np.nan, np.nan, np.nan, 0.0, 0.0]
    offspring = run(truncation(quantile=0.0), fitness, view_of(fitness))
    children = np.asarray(offspring.genotype)[np.asarray(offspring.parent) == 0]
    assert len(np.unique(children, axis=0)) == len(children) > 2


def test_no_perturbation_copies_the_parents_settings():
    fitness = [3.0, 2.0, 1.0, 0.0]
    view = view_of(fitness)
    offspring = run(truncation(quantile=0.25, sigma=0.0, resample=0.0), fitness, view)
    np.testing.assert_allclose(offspring.genotype[3], view.genotype[0], atol=1e-6)


def test_settings_of_truncation_are_alive():
    fitness = np.arange(16, dtype=np.float32)
    base = run(truncation(quantile=0.25, sigma=0.1, resample=0.1), fitness, view_of(fitness))
    for change in ({"quantile": 0.5}, {"sigma": 0.3}, {"resample": 0.9}):
        other = run(truncation(**({"quantile": 0.25, "sigma": 0.1, "resample": 0.1} | change)), fitness, view_of(fitness))
        assert (np.asarray(base.genotype) != np.asarray(other.genotype)).any(), change


@given(st.floats(-50, 50, width=32))
def test_reflection_lands_inside_and_keeps_what_is_inside(x):
    folded = float(reflect(jnp.float32(x)))
    assert 0.0 <= folded <= 1.0
    if 0 <= x <= 1:
        assert folded == pytest.approx(x, abs=1e-6)


def test_a_perturbation_is_gaussian_on_the_axis():
    moved = perturb(jax.random.key(0), jnp.full((20_000, 1), 0.5), jnp.zeros(1), sigma=0.05, resample=0.0) - 0.5
    assert float(moved.mean()) == pytest.approx(0, abs=4 * 0.05 / np.sqrt(20_000))
    assert float(moved.std()) == pytest.approx(0.05, rel=0.03)


def test_resampling_happens_at_its_probability():
    moved = perturb(jax.random.key(0), jnp.full((20_000, 1), 0.5), jnp.zeros(1), sigma=0.0, resample=0.3)
    assert float((moved != 0.5).mean()) == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 20_000))


def test_bounds_hold_and_integers_grow_and_shrink_over_a_thousand_perturbations():
    axes = {
        "lr": Axis(1e-4, 1e-1, "log"),
        "wd": Axis(0.0, 0.3),
        "k": Axis(1, 8, integer=True),
        "b1": Axis(choices=(0.8, 0.9, 0.95, 0.99)),
    }
    walk_space = Space(axes)

    def move(genotype, key):
        genotype = perturb(key, genotype, shares(walk_space), sigma=0.05, resample=0.0)
        return genotype, walk_space.decode(genotype)

    start = jnp.full((4, 4), 0.5)
    _, path = jax.lax.scan(move, start, jax.random.split(jax.random.key(0), 1000))
    for name, axis in axes.items():
        values = np.asarray(path[name], np.float64)
        if axis.choices:
            assert set(values.ravel()) == {float(np.float32(c)) for c in axis.choices}
        else:
            assert values.min() >= axis.low
            assert values.max() <= axis.high
    steps = np.diff(np.asarray(path["k"]), axis=0)
    assert (steps > 0).any()
    assert (steps < 0).any()
    assert set(np.asarray(path["k"]).ravel()) == set(range(1, 9))


@pytest.mark.parametrize(
    "axis",
    [
        Axis(choices=(0.8, 0.9, 0.95)),
        Axis(choices=(1.0, 2.0)),
        Axis(1, 4, integer=True),
        Axis(1, 1000, integer=True),
        Axis(1, 64, "log", integer=True),
    ],
)
@pytest.mark.parametrize("sigma", [1e-3, 0.1, 0.5])
def test_a_step_on_a_discrete_axis_always_changes_the_value(axis, sigma):
    """Else a child would be trained with its parent's settings, on the same batches: a twin."""
    own_space = Space({"k": axis})
    genotype = jax.random.uniform(jax.random.key(0), (2000, 1))
    moved = perturb(jax.random.key(1), genotype, shares(own_space), sigma=sigma, resample=0.0)
    before, after = (np.asarray(own_space.decode(g)["k"]) for g in (genotype, moved))
    same = np.mean(before == after)
    assert same == 0 if sigma < 0.5 else same < 0.1  # long steps may come back by reflection


def test_a_step_is_small_on_a_fine_axis():
    own_space = Space({"k": Axis(1, 1000, integer=True)})
    moved = perturb(jax.random.key(1), jnp.full((2000, 1), 0.5), shares(own_space), sigma=1e-3, resample=0.0)
    assert np.abs(np.asarray(own_space.decode(moved)["k"]) - 500).max() <= 5
