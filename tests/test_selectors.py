"""The selector contract, for every row of the table; then what each method promises of its own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmaptune.errors import ConfigError
from vmaptune.population import BIRTH, EMPTY, Status
from vmaptune.selectors import SELECTORS, TRIAL_METHODS, View, truncation
from vmaptune.selectors.contract import ranking
from vmaptune.selectors.explore import perturb, reflect, scales
from vmaptune.selectors.multifrequency import homes
from vmaptune.selectors.pb2 import _process
from vmaptune.settings import settings
from vmaptune.space import Axis, Space

rows = pytest.mark.parametrize("name", SELECTORS)
EVOLVING = [name for name in SELECTORS if name not in TRIAL_METHODS and name != "fixed"]
evolving = pytest.mark.parametrize("name", EVOLVING)
HUGE = float(np.finfo(np.float32).max)
values = st.one_of(st.floats(-2, 2, width=32), st.sampled_from([np.nan, np.inf, -np.inf, 0.5, HUGE, -HUGE]))
sizes = st.sampled_from([1, 2, 3, 8])  # few, because every size compiles its own operations


def view_of(fitness, status=None, done=None, seed=0, dimension=3, step=0, trial=None):
    n = len(fitness)
    zeros = jnp.zeros(n, jnp.int32)
    whole = zeros + jnp.asarray(step, jnp.int32)
    return View(
        genotype=jax.random.uniform(jax.random.key(seed), (n, dimension)),
        step=whole,
        trial=jnp.arange(n, dtype=jnp.int32) if trial is None else jnp.array(trial, jnp.int32),
        status=zeros if status is None else jnp.array(status, jnp.int32),
        done=jnp.zeros(n, bool) if done is None else jnp.array(done),
        age=whole // 10,
        progress=whole / 100,
    )


def space(dimension=3):
    return Space({f"x{d}": Axis(0, 1) for d in range(dimension)})


def run(selector, fitness, view, seed=0):
    state = selector.init(jax.random.key(9), space(view.genotype.shape[1]), len(fitness))
    return selector.update(jax.random.key(seed), state, view, jnp.array(fitness, jnp.float32))[1]


QUICK = {"pb2": {"observations": 16}, "multifrequency": {"frequencies": (1, 3)}}  # what compiles sooner than the defaults


@functools.cache
def compiled(name, n):
    """A row's first state and its update as one program: every example would compile anew otherwise."""
    selector = SELECTORS[name](**QUICK.get(name, {}))
    return selector.init(jax.random.key(9), space(), n), jax.jit(selector.update)


@rows
@given(n=sizes, data=st.data())
def test_contract(name, n, data):
    """Three generations on end, because what a method remembers must not break it either."""
    state, update = compiled(name, n)
    view = view_of([0.0] * n, seed=n)
    for generation in range(3):
        fitness = data.draw(st.lists(values, min_size=n, max_size=n))
        status = data.draw(st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=n, max_size=n))
        done = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
        trial = data.draw(st.lists(st.sampled_from([0, 1, 2, -1]), min_size=n, max_size=n))
        view = view_of(fitness, status, done, step=10 * generation, trial=trial)._replace(genotype=view.genotype)
        state, order = update(jax.random.key(generation), state, view, jnp.array(fitness, jnp.float32))
        check_order(name, view, np.float32(fitness), *map(np.asarray, order))
        view = view._replace(genotype=order.genotype)
    assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.float32)


def check_order(name, view, fitness, parent, genotype):
    n = len(fitness)
    status, done, trial = np.asarray(view.status), np.asarray(view.done), np.asarray(view.trial)
    sound = np.isfinite(fitness) & (status == Status.OK) & (trial >= 0)
    survivors = parent == np.arange(n)
    assert parent.dtype == np.int32
    assert genotype.dtype == np.float32
    assert ((parent >= (EMPTY if SELECTORS[name]().trials else BIRTH)) & (parent < n)).all()
    assert ((genotype >= 0) & (genotype <= 1)).all()
    np.testing.assert_array_equal(genotype[survivors], np.asarray(view.genotype)[survivors])
    if name == "fixed":  # replaces nobody, so nobody copies a failed member either
        assert survivors.all()
    elif sound.any():
        assert sound[parent[parent >= 0]].all(), "a failed member is a parent, or survives"
        best = sound & (fitness == fitness[sound].max())
        if (best & ~done).any():  # a finished one has nothing left to train
            assert (survivors & best).any(), "the best was lost"
    else:
        assert (parent == BIRTH).all()


@rows
@pytest.mark.parametrize("cases", [[[0.1, np.nan, 0.7, 0.7, -1.0, 0.3], [np.nan] * 6, [0.5] * 6], [[0.5]]])
def test_the_same_under_jit_scan_and_vmap_over_seeds(name, cases):
    selector = SELECTORS[name](**QUICK.get(name, {}))
    view = view_of(cases[0])
    state = selector.init(jax.random.key(9), space(), len(cases[0]))
    keys = jax.random.split(jax.random.key(1), 3)

    def update(key, values):
        return selector.update(key, state, view, values)[1]

    ways = [  # each compiled once for all cases
        jax.jit(lambda values: jax.lax.map(lambda key: update(key, values), keys)),
        jax.jit(lambda values: jax.lax.scan(lambda carry, key: (carry, update(key, values)), 0, keys)[1]),
        jax.jit(lambda values: jax.vmap(update, (0, None))(keys, values)),
    ]
    for fitness in cases:
        values = jnp.array(fitness, jnp.float32)
        plain = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[update(key, values) for key in keys])
        for way in ways:
            other = way(values)
            np.testing.assert_array_equal(plain.parent, other.parent)
            np.testing.assert_allclose(plain.genotype, other.genotype, atol=1e-6)


@rows
def test_nothing_to_search_is_legal(name):
    selector = SELECTORS[name](**QUICK.get(name, {}))
    state = selector.init(jax.random.key(9), space(0), 4)
    fitness = jnp.array([0.1, 0.9, 0.5, np.nan])
    _, offspring = jax.jit(selector.update)(jax.random.key(0), state, view_of([0.0] * 4, dimension=0), fitness)
    assert offspring.genotype.shape == (4, 0)


def test_ranking_puts_failures_last_and_keeps_ties_in_order():
    fitness = jnp.array([0.5, np.nan, 0.9, 0.5, np.inf, -np.inf, 0.1])
    assert ranking(view_of(fitness, status=[0, 0, 0, 0, 0, 0, 1]), fitness).tolist()[:3] == [2, 0, 3]


CHANGED = {  # every setting of every population-based row, and a value that must make a difference
    "quantile": 0.5,
    "interval": 21,
    "burn_in": 31,
    "elite": 16,
    "explore": "factors",
    "sigma": 0.3,
    "factor": 3.0,
    "resample": 0.9,
    "crossover": 0.9,
    "settings_from": "self",
    "weight": 1.5,
    "kappa": 20.0,
    "observations": 4,
    "frequencies": (3, 1),
}
BESIDES = {"factor": {"explore": "factors"}}


@functools.cache
def history(name, generations=6, n=16, **given):
    """Parents and genotypes of some generations in which the fitness is what the genotype says."""
    selector = SELECTORS[name](**{**QUICK.get(name, {}), **given})

    def generation(carry, i):
        genotype, state = carry
        view = view_of([0.0] * n, step=10 * (i + 1))._replace(genotype=genotype)
        fitness = jnp.sum(genotype, axis=1) * (i + 1)
        state, order = selector.update(jax.random.fold_in(jax.random.key(1), i), state, view, fitness)
        return (order.genotype, state), (order, fitness)

    start = (view_of([0.0] * n).genotype, selector.init(jax.random.key(9), space(), n))
    return jax.tree.map(np.asarray, jax.lax.scan(generation, start, jnp.arange(generations))[1])


@pytest.mark.parametrize(("name", "setting"), [(name, s) for name in EVOLVING for s in settings(SELECTORS[name])])
def test_no_dead_setting(name, setting):
    beside = BESIDES.get(setting, {})
    base, other = history(name, **beside)[0], history(name, **beside, **{setting: CHANGED[setting]})[0]
    assert (base.genotype != other.genotype).any()


@evolving
@pytest.mark.parametrize("rule", [{"interval": 21}, {"burn_in": 31}, {"elite": 16}])
def test_nobody_sound_is_replaced_before_it_is_ready(name, rule):
    (order, _), n = history(name, **rule), 16
    replaced = order.parent != np.arange(n)
    if "elite" in rule:
        assert not replaced.any()
    elif "burn_in" in rule:
        assert not replaced[:3].any()
        assert replaced[3:].any()
    else:  # changes of a slot, and the begin of all, lie 3 generations apart
        assert replaced.any()
        for slot in replaced.T:
            assert (np.diff(np.concatenate([[-1], np.flatnonzero(slot)])) >= 3).all()


@evolving
def test_the_failed_are_replaced_ready_or_not(name):
    fitness = [0.1, np.nan, 0.7, np.inf, -1.0, 0.3, 0.2, np.nan]
    selector = SELECTORS[name](interval=1000, burn_in=1000, elite=8)
    parent = np.asarray(run(selector, fitness, view_of(fitness)).parent)
    assert (np.flatnonzero(parent != np.arange(8)) == [1, 3, 7]).all()


def test_an_interval_counts_from_the_step_at_which_the_copy_was_made():
    """Not from the step of the slot's last tenant: the copy goes on at its parent's."""
    selector = truncation(quantile=0.5, interval=10)
    state = selector.init(jax.random.key(0), space(), 2)
    parents = []
    for steps, fitness in (([5, 50], [np.nan, 1.0]), ([55, 55], [0.0, 1.0]), ([60, 60], [0.0, 1.0])):
        state, order = selector.update(jax.random.key(1), state, view_of(fitness, step=steps), jnp.array(fitness))
        parents.append(np.asarray(order.parent).tolist())
    assert parents == [[1, 1], [0, 1], [1, 1]]


def test_a_tournament_is_lost_to_the_rival_that_was_drawn():
    """The r-th best of N loses with probability (r - 1) / (N - 1), always to a better one, and to any of those alike."""
    n, draws = 8, 2000
    selector, fitness = SELECTORS["tournament"](elite=0), jnp.arange(8.0)
    state = selector.init(jax.random.key(0), space(), n)
    keys = jax.random.split(jax.random.key(1), draws)
    parent = np.asarray(jax.jit(jax.vmap(lambda k: selector.update(k, state, view_of([0.0] * n), fitness)[1].parent))(keys))
    wins = np.array([(parent == slot).mean(axis=0) for slot in range(n)]).T  # [loser, winner]
    for loser in range(n):
        np.testing.assert_allclose(wins[loser, loser + 1 :], 1 / (n - 1), atol=4 * np.sqrt(1 / 7 * 6 / 7 / draws))
        assert (wins[loser, :loser] == 0).all()


@pytest.mark.parametrize("settings_from", ["parent", "self"])
def test_selection_only_perturbs_nothing(settings_from):
    fitness = [3.0, 2.0, np.nan, 0.0]
    view = view_of(fitness)
    parent, genotype = run(SELECTORS["selection_only"](quantile=0.5, settings_from=settings_from), fitness, view)
    own = [0, 1, int(parent[2]), 3]  # the failed member's settings are not worth keeping
    np.testing.assert_array_equal(genotype, view.genotype[parent if settings_from == "parent" else np.array(own)])
    assert parent[3] in (0, 1)


def test_own_settings_are_perturbed_if_asked():
    fitness = np.arange(8.0)
    view = view_of(fitness)
    row = truncation(quantile=0.5, sigma=1e-3, resample=0.0, settings_from="self")
    parent, genotype = run(row, fitness, view)
    assert (parent[:4] >= 4).all()
    np.testing.assert_allclose(genotype, view.genotype, atol=6e-3)


def test_crossover_takes_genes_of_the_best_quarter():
    fitness = np.arange(64.0)
    view = view_of(fitness, dimension=4)
    row = truncation(sigma=0.0, resample=0.0, crossover=0.5)
    parent, genotype = map(np.asarray, run(row, fitness, view))
    old = np.asarray(view.genotype)
    gene_of_parent = (genotype == old[parent])[:16]
    of_one_other = (genotype[:16, None] == old[None, 48:]) | gene_of_parent[:, None]
    assert of_one_other.all(axis=2).any(axis=1).all()
    assert gene_of_parent.mean() == pytest.approx(0.5 + 0.5 / 16, abs=4 * np.sqrt(0.25 / 64))


def test_differential_moves_along_differences():
    """Whole genotypes cross, without noise: each child is its parent plus a weighted difference of two others, reflected."""
    fitness = np.arange(8.0)
    view = view_of(fitness, dimension=3)
    row = SELECTORS["differential"](quantile=0.5, weight=0.7, crossover=1.0, sigma=0.0)
    parent, genotype = map(np.asarray, run(row, fitness, view))
    old = np.asarray(view.genotype)
    steps = (0.7 * (old[:, None] - old[None]))[~np.eye(8, dtype=bool)]
    for slot in range(4):
        reached = old[parent[slot]] + steps
        reached = np.where(reached < 0, -reached, np.where(reached > 1, 2 - reached, reached))
        assert np.abs(reached - genotype[slot]).max(axis=1).min() < 1e-5


def test_differential_moves_one_gene_at_least():
    fitness = np.arange(32.0)
    view = view_of(fitness, dimension=5)
    parent, genotype = map(np.asarray, run(SELECTORS["differential"](crossover=0.0, sigma=0.0), fitness, view))
    moved = genotype != np.asarray(view.genotype)[parent]
    assert (moved[:8].sum(axis=1) == 1).all()
    assert len(set(np.argmax(moved[:8], axis=1))) > 1


@pytest.mark.parametrize(("n", "sizes"), [(1, [1]), (7, [7]), (8, [4, 4]), (13, [5, 4, 4]), (16, [4] * 4), (64, [16] * 4)])
def test_sub_populations_are_even_and_not_too_small(n, sizes):
    assert np.bincount(homes(n, 4)).tolist() == sizes


def test_sub_populations_evolve_at_their_frequencies():
    order, _ = history("multifrequency", generations=8, n=32, frequencies=(1, 2, 4))
    replaced = order.parent != np.arange(32)
    for i, frequency in enumerate((1, 2, 4)):
        evolved = replaced[:, homes(32, 3) == i].any(axis=1)
        assert np.flatnonzero(evolved).tolist() == list(range(frequency - 1, 8, frequency))


@given(seed=st.integers(0, 1000))
def test_migrants_come_as_published(seed):
    """Against plain loops over the rules of the paper: three sub-populations of 8, all of which evolve."""
    fitness = np.random.default_rng(seed).permutation(24).astype(np.float32)
    state, update, frequencies = migration()
    view = view_of(fitness, seed=seed)
    parent, genotype = map(np.asarray, update(jax.random.key(seed), state, view, jnp.array(fitness))[1])
    old, best_first = np.asarray(view.genotype), [int(slot) for slot in np.argsort(-fitness)]
    for i in range(3):
        here = [slot for slot in best_first if slot // 8 == i]
        winners, losers = here[:2], here[6:]
        assert all(parent[slot] in winners for slot in losers)
        elsewhere = [slot for slot in best_first if slot // 8 != i]
        for slot in here[4:6]:
            if fitness[slot] >= fitness[elsewhere[0]]:
                assert parent[slot] == slot
                continue
            migrant = elsewhere.pop(0)
            donor = migrant if frequencies[migrant // 8] >= frequencies[i] else here[0]
            assert parent[slot] == migrant
            np.testing.assert_array_equal(genotype[slot], old[donor])
        assert all(parent[slot] == slot for slot in [*winners, *here[2:4]])


@functools.cache
def migration():
    frequencies = (1, 2, 4)
    selector = SELECTORS["multifrequency"](frequencies=frequencies)
    state = selector.init(jax.random.key(0), space(), 24)
    return state._replace(generation=jnp.int32(3)), jax.jit(selector.update), frequencies


def test_pb2_refuses_choices():
    mixed = Space({"lr": Axis(1e-4, 1e-1, "log"), "b1": Axis(choices=(0.8, 0.9))})
    with pytest.raises(ConfigError, match=r"^search.method: pb2 models continuous axes only; b1 is an axis of choices$"):
        SELECTORS["pb2"]().init(jax.random.key(0), mixed, 4)


def bandit(name, generations=10, n=8, seed=0, **given):
    """Members whose gain is the larger the nearer their genes are to 0.8: genotypes, parents, states, by generation."""
    selector = SELECTORS[name](**given)

    def generation(carry, i):
        total, genotype, state = carry
        fitness = total + 1 - 4 * jnp.mean((genotype - 0.8) ** 2, axis=1)
        view = view_of([0.0] * n, step=10 * (i + 1))._replace(genotype=genotype)
        state, order = selector.update(jax.random.fold_in(jax.random.key(seed), i), state, view, fitness)
        return (fitness[order.parent], order.genotype, state), (genotype, fitness, order.parent, state)

    start = (jnp.zeros(n), view_of([0.0] * n, seed=seed).genotype, selector.init(jax.random.key(9), space(), n))
    return jax.tree.map(np.asarray, jax.lax.scan(generation, start, jnp.arange(generations))[1])


def test_pb2_measures_gains_from_the_weights_a_member_went_on_with():
    genotype, fitness, parent, state = bandit("pb2", generations=4, observations=24)
    rows = []
    for i in range(1, 4):
        before = fitness[i - 1][parent[i - 1]]
        rows += [(i, *row) for row in zip(before, fitness[i] - before, *genotype[i].T, strict=True)]
    seen = jax.tree.map(lambda leaf: leaf[-1], state.seen)
    assert seen.known.all()
    ours = np.column_stack([seen.generation, seen.before, seen.gain, seen.genotype])
    expected = np.array(rows)
    np.testing.assert_allclose(ours[np.lexsort(ours.T)], expected[np.lexsort(np.float32(expected).T)], rtol=1e-6)


def test_pb2_keeps_the_newest_observations():
    *_, state = bandit("pb2", generations=5, observations=12)
    assert np.bincount(state.seen.generation[-1].astype(int)).tolist() == [0, 0, 0, 4, 8]
    assert state.seen.known.sum(axis=1).tolist() == [0, 8, 12, 12, 12]


def test_pb2_finds_what_gains_most():
    """Children of its last generations stand nearer to the best settings than uniform draws do."""
    genotype, _, parent, _ = bandit("pb2", generations=12, observations=64)
    born = np.roll(parent != np.arange(8), 1, axis=0)
    born[0] = False
    late = genotype[8:][born[8:]]
    assert len(late) >= 4
    assert np.median(np.linalg.norm(late - 0.8, axis=1)) < 0.3  # the median: now and then it looks into a far corner


def test_pb2_forgets_no_axis_and_keeps_children_apart():
    fitness = [1.0] + [np.nan] * 7
    for generation in range(2):
        parent, genotype = run(SELECTORS["pb2"](observations=16), fitness, view_of(fitness, seed=generation))
        assert parent.tolist() == [0] * 8
        distance = np.linalg.norm(np.asarray(genotype)[:, None] - np.asarray(genotype)[None], axis=2)
        assert distance[~np.eye(8, dtype=bool)].min() > 0.2


def test_the_gaussian_process_of_pb2_is_that_of_the_paper():
    """Against NumPy, on the rows that are known; a masked row must not matter."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(12, 4)), rng.normal(size=12)
    x[:, 0] = np.arange(12) // 3
    at = np.column_stack([np.full(5, 4.0), rng.uniform(size=(5, 3))])
    known = np.arange(12) < 9

    def kernel(a, b):
        apart = ((a[:, None, 1:] - b[None, :, 1:]) ** 2).sum(axis=2)
        return np.exp(-apart / (2 * 1.025**2)) * (1 - 0.2505) ** (np.abs(a[:, None, 0] - b[None, :, 0]) / 2)

    middle = tuple(jnp.zeros(3))  # half way between the bounds: length 1.025, forgetting 0.2505, noise 0.505
    process = _process(middle, jnp.float32(x), jnp.array(known))
    mean, variance = process.predict(jnp.where(known, jnp.float32(y), 0.0), jnp.float32(at), return_var=True)
    inverse = np.linalg.inv(kernel(x[known], x[known]) + 0.505 * np.eye(9))
    across = kernel(at, x[known])
    np.testing.assert_allclose(mean, across @ inverse @ y[known], atol=1e-4)
    added = np.sqrt(np.finfo(np.float32).eps)  # by tinygp, to every variance
    np.testing.assert_allclose(variance, 1 + added - np.diag(across @ inverse @ across.T), atol=1e-5)


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


@given(st.floats(-50, 50, width=32))
def test_reflection_lands_inside_and_keeps_what_is_inside(x):
    folded = float(reflect(jnp.float32(x)))
    assert 0.0 <= folded <= 1.0
    if 0 <= x <= 1:
        assert folded == pytest.approx(x, abs=1e-6)


def test_a_perturbation_is_gaussian_on_the_axis():
    moved = perturb(jax.random.key(0), jnp.full((20_000, 1), 0.5), scales(space(1)), sigma=0.05, resample=0.0) - 0.5
    assert float(moved.mean()) == pytest.approx(0, abs=4 * 0.05 / np.sqrt(20_000))
    assert float(moved.std()) == pytest.approx(0.05, rel=0.03)


def test_resampling_happens_at_its_probability():
    moved = perturb(jax.random.key(0), jnp.full((20_000, 1), 0.5), scales(space(1)), sigma=0.0, resample=0.3)
    assert float((moved != 0.5).mean()) == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 20_000))


STEPS = [
    {"sigma": 0.05},
    {"sigma": 0.9},
    {"explore": "factors", "factor": 1.2},
    {"explore": "factors", "factor": 50.0},
    {"sigma": 0.05, "resample": 0.3},
]


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_bounds_hold_and_integers_grow_and_shrink_over_a_thousand_perturbations(step):
    axes = {
        "lr": Axis(1e-4, 1e-1, "log"),
        "wd": Axis(0.0, 0.3),
        "k": Axis(1, 8, integer=True),
        "b1": Axis(choices=(0.8, 0.9, 0.95, 0.99)),
    }
    walk_space = Space(axes)

    def move(genotype, key):
        genotype = perturb(key, genotype, scales(walk_space), **step)
        return genotype, walk_space.decode(genotype)

    start = jax.random.uniform(jax.random.key(5), (4, 4))
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
    moved = perturb(jax.random.key(1), genotype, scales(own_space), sigma=sigma, resample=0.0)
    before, after = (np.asarray(own_space.decode(g)["k"]) for g in (genotype, moved))
    same = np.mean(before == after)
    assert same == 0 if sigma < 0.5 else same < 0.1  # long steps may come back by reflection


def test_factors_multiply_the_value():
    axes = {"lr": Axis(1e-4, 1e-1, "log"), "wd": Axis(0.0, 0.3), "shift": Axis(-2.0, 2.0), "zero": Axis(0.0, 1.0)}
    own_space = Space(axes)
    start = jnp.asarray(own_space.encode({"lr": 0.01, "wd": 0.1, "shift": -0.5, "zero": 0.0}))
    moved = perturb(jax.random.key(0), jnp.tile(start, (200, 1)), scales(own_space), explore="factors", factor=1.25)
    values = own_space.decode(moved)
    for name, value in (("lr", 0.01), ("wd", 0.1), ("shift", -0.5), ("zero", 0.0)):
        ratio = np.asarray(values[name])
        up = np.abs(ratio) > abs(value)
        np.testing.assert_allclose(ratio, np.where(up, 1.25 * value, value / 1.25), rtol=1e-4)
        assert not value or 60 < up.sum() < 140


@pytest.mark.parametrize(
    "axis",
    [Axis(choices=(0.8, 0.9, 0.95)), Axis(1, 6, integer=True), Axis(0, 3, integer=True), Axis(1, 64, "log", integer=True)],
)
def test_factors_move_a_discrete_axis_to_another_value(axis):
    own_space = Space({"k": axis})
    genotype = jax.random.uniform(jax.random.key(0), (2000, 1))
    moved = perturb(jax.random.key(1), genotype, scales(own_space), explore="factors", factor=1.05)
    before, after = (np.asarray(own_space.decode(g)["k"]) for g in (genotype, moved))
    assert (before != after).all()
    if axis.choices:  # a neighbour, but for a gene so near its border that rounding up leaps over one
        index = [np.searchsorted(np.float32(axis.choices), values) for values in (before, after)]
        assert np.mean(np.abs(index[0] - index[1]) == 1) > 0.99


@pytest.mark.parametrize("name", ["differential", "pb2"])
def test_bounds_hold_for_the_methods_with_steps_of_their_own(name):
    order, _ = history(name, generations=20, n=8, **({"weight": 2.0, "sigma": 1.0} if name == "differential" else {}))
    assert ((order.genotype >= 0) & (order.genotype <= 1)).all()


def test_a_step_is_small_on_a_fine_axis():
    own_space = Space({"k": Axis(1, 1000, integer=True)})
    moved = perturb(jax.random.key(1), jnp.full((2000, 1), 0.5), scales(own_space), sigma=1e-3, resample=0.0)
    assert np.abs(np.asarray(own_space.decode(moved)["k"]) - 500).max() <= 5
