"""The proposer contract, for every row of the table; then what each method promises of its own."""

import itertools
import math
import runpy
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from scipy.stats import qmc

from vmaptune.errors import ConfigError
from vmaptune.proposers import PROPOSERS, Told, cmaes, evolution, gp, grid, sobol, tpe
from vmaptune.proposers.contract import costs, generator
from vmaptune.proposers.gp import log_improvement, snap
from vmaptune.proposers.memory import even, thinned
from vmaptune.settings import settings as settings_of
from vmaptune.space import Axis, Space

rows = pytest.mark.parametrize("name", PROPOSERS)
searchers = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "searchers.py"))

MIXED = {"x": Axis(1e-3, 1.0, "log"), "choice": Axis(choices=(1.0, 5.0, 2.0)), "count": Axis(1, 6, "log", integer=True)}
SPACES = [Space({}), Space({"x": Axis(-1, 1)}), Space(MIXED)]
OTHER = {  # of each setting, a value that is not its default
    "random": {},
    "sobol": {"scramble": False},
    "grid": {"points": 4},
    "tpe": {"startup": 100, "candidates": 3, "multivariate": False, "memory": 12},
    "cmaes": {"size": 12, "sigma": 0.4},
    "gp": {"startup": 100, "candidates": 64, "memory": 12},
    "evolution": {"algorithm": "PSO", "size": 12, "sigma": 0.4},
}


def made(name, **given):
    return PROPOSERS[name](**({"points": 3} if name == "grid" else {}) | given)


def told_of(genotype, value, *, ended=None, step=None, horizon=10):
    n = len(genotype)
    arrays = (
        np.asarray(genotype, np.float32),
        np.asarray(value, np.float64),
        np.full(n, horizon, np.int64) if step is None else np.asarray(step, np.int64),
        np.ones(n, bool) if ended is None else np.asarray(ended, bool),
    )
    for array in arrays:
        array.flags.writeable = False  # a proposer has no business there
    return Told(*arrays, horizon)


def solved(dimension, n, seed=0, centre=0.3):
    """Trials of a bowl."""
    genotype = np.random.default_rng(seed).random((n, dimension)).astype(np.float32)
    return told_of(genotype, -((genotype - centre) ** 2).sum(axis=1))


@rows
@given(data=st.data())
@settings(max_examples=15)
def test_contract(name, data):
    space = data.draw(st.sampled_from(SPACES))
    n, count = data.draw(st.sampled_from([0, 5, 24])), data.draw(st.sampled_from([0, 1, 7]))
    seed = data.draw(st.integers(0, 2**32 - 1))
    known = st.lists(st.sampled_from([0.5, 0.5, -1e30, 3.0, np.nan, np.nan, np.inf, -np.inf]), min_size=n, max_size=n)
    value = data.draw(st.one_of(known, st.just([np.nan] * n), st.just([0.25] * n)))
    ended = data.draw(st.one_of(st.just([True] * n), st.lists(st.booleans(), min_size=n, max_size=n)))
    step = data.draw(st.lists(st.sampled_from([0, 1, 10]), min_size=n, max_size=n))
    genotype = np.random.default_rng(seed).random((n, space.dimension))
    told = told_of(genotype, value, ended=ended, step=step)
    first = made(name).propose(space, told, count, seed)
    assert first.shape == (count, space.dimension)
    assert first.dtype == np.float32
    assert ((first >= 0) & (first <= 1)).all()
    again = made(name)
    again.propose(space, solved(space.dimension, 30), 2, seed + 1)
    np.testing.assert_array_equal(again.propose(space, told, count, seed), first, "it remembers something")


@rows
@pytest.mark.parametrize("n", [0, 40])
def test_a_batch_is_of_different_trials_and_the_next_seed_gives_others(name, n):
    space = Space({f"x{d}": Axis(0, 1) for d in range(3)})
    told = solved(3, n)
    batch = made(name).propose(space, told, 20, 0)
    assert len(np.unique(batch, axis=0)) == 20
    assert not np.array_equal(batch, made(name).propose(space, told, 20, 1))


@rows
def test_results_matter_to_adaptive_rows_alone(name):
    space = Space({"x": Axis(0, 1), "y": Axis(0, 1)})
    told = solved(2, 40)
    batch = made(name).propose(space, told, 4, 0)
    upside_down = made(name).propose(space, told._replace(value=-told.value), 4, 0)
    assert np.array_equal(batch, upside_down) == (not made(name).adaptive)


@pytest.mark.parametrize("name", [name for name in PROPOSERS if not made(name).adaptive])
@given(cut=st.integers(0, 15), seed=st.integers(0, 3))
def test_asking_in_pieces_equals_asking_at_once(name, cut, seed):
    space = SPACES[2]
    proposer = made(name)
    pieces = [proposer.propose(space, solved(3, n), count, seed) for n, count in ((0, cut), (cut, 15 - cut))]
    np.testing.assert_array_equal(np.concatenate(pieces), proposer.propose(space, solved(3, 0), 15, seed))


@rows
def test_no_setting_is_dead(name):
    assert set(OTHER[name]) == set(settings_of(PROPOSERS[name]))
    space = Space({"x": Axis(0, 1), "y": Axis(0, 1), "c": Axis(choices=(1.0, 2.0, 3.0))})
    told = solved(3, 48)
    usual = made(name).propose(space, told, 6, 0)
    for setting, value in OTHER[name].items():
        assert not np.array_equal(made(name, **{setting: value}).propose(space, told, 6, 0), usual), setting


@pytest.mark.parametrize("name", ["tpe", "cmaes", "gp", "evolution"])
def test_what_fails_is_avoided(name):
    """Half of the square fails; elsewhere it does not matter how near that is."""
    space = Space({"x": Axis(0, 1), "y": Axis(0, 1)})
    told = told_of(np.zeros((0, 2)), [])
    for _ in range(8):
        drawn = made(name).propose(space, told, 8, 4)
        value = np.where(drawn[:, 0] > 0.5, np.nan, drawn[:, 1])
        told = told_of(np.concatenate([told.genotype, drawn]), np.concatenate([told.value, value]))
    assert np.isnan(told.value[:16]).any()
    assert np.mean(np.isnan(told.value[-24:])) < 0.3


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_trials_that_only_failed_say_nothing_of_where_to_go(name):
    space = Space({"x": Axis(0, 1)})
    told = told_of(np.full((30, 1), 0.9), np.full(30, np.nan))
    drawn = made(name).propose(space, told, 40, 0)
    assert 0.3 < drawn.mean() < 0.7


def test_costs_turn_fitness_over_and_put_failures_last():
    np.testing.assert_array_equal(costs(np.array([2.0, np.nan, -3.0, np.inf]))[[0, 2]], [-2.0, 3.0])
    assert (costs(np.array([2.0, np.nan, -3.0, -np.inf]))[[1, 3]] > 3.0).all()


@given(n=st.integers(0, 60), memory=st.integers(1, 60))
def test_memory_keeps_the_best_and_some_of_all_others(n, memory):
    ranking = np.random.default_rng(n).permutation(n)
    kept = thinned(ranking, memory)
    assert len(kept) == min(n, memory)
    assert (np.diff(kept) > 0).all()
    assert set(ranking[: -(-memory // 4)]) <= set(kept)
    assert np.array_equal(thinned(ranking, 0), np.arange(n))
    gaps = np.diff(even(n, memory))
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


def test_sobol_is_the_sequence_of_scipy():
    space = Space({f"x{d}": Axis(0, 1) for d in range(4)})
    reference = qmc.Sobol(4, scramble=False).random_base2(5)
    drawn = np.concatenate([sobol(scramble=False).propose(space, solved(4, n), 8, 0) for n in (0, 8, 16, 24)])
    np.testing.assert_array_equal(drawn, reference.astype(np.float32))
    scrambled = sobol().propose(space, solved(4, 0), 128, 3)
    uniform = np.random.default_rng(0).random((128, 4))
    assert qmc.discrepancy(scrambled) < 0.2 * qmc.discrepancy(uniform)


def test_grid_is_every_combination_once():
    space = Space(MIXED | {"y": Axis(-1, 1)})
    size = grid(points=3).size(space)
    assert size == 3 * 3 * 6 * 3
    drawn = grid(points=3).propose(space, solved(4, 0), size, 5)
    values = space.decode(jnp.asarray(drawn))
    found = sorted(zip(*[np.asarray(values[name], float).round(6).tolist() for name in space.axes], strict=True))
    x = np.float32([1e-3, 10**-1.5, 1]).astype(float).round(6).tolist()
    assert found == sorted(itertools.product(x, (1.0, 5.0, 2.0), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), (-1.0, 0.0, 1.0)))
    np.testing.assert_array_equal(grid(points=3).propose(space, solved(4, size), 9, 5), drawn[:9], "it begins anew")


def test_a_grid_cut_short_has_looked_everywhere():
    drawn = grid(points=10).propose(Space({"x": Axis(0, 1), "y": Axis(0, 1)}), solved(2, 0), 30, 0)
    assert all(len(np.unique(drawn[:, d])) >= 9 for d in range(2))


def test_grid_says_what_it_needs():
    with pytest.raises(ConfigError, match=r"^search.points: grid needs points for the continuous axis 'x'; given: 0$"):
        grid().size(Space(MIXED))
    with pytest.raises(ConfigError, match="1,000 x 1,001 = 1,001,000 combinations"):
        grid(points=1000).size(Space({"x": Axis(0, 1), "n": Axis(0, 1000, integer=True)}))
    assert grid().size(Space({})) == 1
    assert grid(points=1).propose(Space({"x": Axis(0, 1)}), solved(1, 0), 1, 0) == 0.5


def optuna_regret(sampler, function, seeds, trials=40):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    dimension, evaluate, minimum = searchers["FUNCTIONS"][function]
    play = searchers["with_optuna"]
    return [min(play(searchers["SAMPLERS"][sampler], evaluate, dimension, trials, 4, seed)) - minimum for seed in seeds]


def own_regret(proposer, function, seeds, trials=40):
    dimension, evaluate, minimum = searchers["FUNCTIONS"][function]
    return [min(searchers["with_proposer"](proposer, evaluate, dimension, trials, 4, seed)) - minimum for seed in seeds]


@pytest.mark.parametrize("function", ["Branin", "Hartmann 6", "Rosenbrock 2"])
@pytest.mark.parametrize(("name", "sampler"), [("tpe", "Optuna TPE"), ("cmaes", "Optuna CMA-ES")])
def test_finds_what_optunas_own_sampler_finds(name, sampler, function):
    seeds = range(10)
    assert stats.mannwhitneyu(own_regret(made(name), function, seeds), optuna_regret(sampler, function, seeds)).pvalue > 0.02


def test_tpe_proposes_what_a_study_of_the_same_trials_would_ask():
    """Full, stopped, running, failed and waiting trials, as Optuna has words for them."""
    space = Space({"x": Axis(0, 1), "c": Axis(choices=(3.0, 1.0, 2.0))})
    genotype = np.random.default_rng(1).random((30, 2)).astype(np.float32)
    value, step, ended = np.arange(30) % 7 + 0.5, np.full(30, 10), np.ones(30, bool)
    step[10:20], ended[15:] = 4, False
    value[20:], ended[20:25], step[25:] = np.nan, True, 0
    distributions = {
        "a": optuna.distributions.FloatDistribution(0, 1),
        "b": optuna.distributions.CategoricalDistribution((0, 1, 2)),
    }
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=int(generator(5, 30).integers(2**32)))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for i in range(30):
        state = ("COMPLETE", "PRUNED", "PRUNED", "RUNNING")[0 if i < 10 else 1 if i < 20 else 2 if i < 25 else 3]
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState[state],
                params={"a": float(genotype[i, 0]), "b": int(genotype[i, 1] * 3)},
                distributions=distributions,
                value=value[i] if i < 10 else None,
                intermediate_values={4: value[i]} if 10 <= i < 20 else {},
            )
        )
    asked = [study.ask(distributions).params for _ in range(5)]
    expected = np.float32([[params["a"], (params["b"] + 0.5) / 3] for params in asked])
    np.testing.assert_array_equal(tpe().propose(space, told_of(genotype, value, ended=ended, step=step), 5, 5), expected)


def test_tpe_leaves_optunas_announcements_as_they_were():
    optuna.logging.set_verbosity(optuna.logging.INFO)
    tpe().propose(SPACES[1], solved(1, 20), 2, 0)
    assert optuna.logging.get_verbosity() == optuna.logging.INFO


def test_cmaes_is_the_package_told_batch_by_batch():
    from cmaes import CMA

    space, batch = Space({f"x{d}": Axis(0, 1) for d in range(3)}), 7
    reference = CMA(mean=np.full(3, 0.5), sigma=1 / 6, bounds=np.array([[0.0, 1.0]] * 3))
    told = told_of(np.zeros((0, 3)), [])
    for _ in range(6):
        n = len(told.value)
        expected = []
        for number in range(n, n + batch):
            reference.reseed_rng(int(generator(4, number).integers(2**32)))
            expected.append(reference.ask())
        drawn = cmaes().propose(space, told, batch, 4)
        np.testing.assert_allclose(drawn, expected, atol=1e-6)
        value = -((drawn - [0.2, 0.9, 0.5]) ** 2).sum(axis=1).astype(float)
        reference.tell([(x.astype(float), -v) for x, v in zip(drawn, value, strict=True)])
        told = told_of(np.concatenate([told.genotype, drawn]), np.append(told.value, value))
    waiting = told._replace(ended=np.arange(len(told.value)) != 38)
    earlier = told_of(told.genotype[:35], told.value[:35])
    assert not np.array_equal(cmaes().propose(space, told, 3, 0), cmaes().propose(space, waiting, 3, 0))
    np.testing.assert_array_equal(
        cmaes().propose(space, waiting, 3, 0), cmaes().propose(space, earlier, 10, 0)[7:], "a batch counts once it has ended"
    )


def test_cmaes_begins_anew_once_it_has_converged():
    space, told = Space({"x": Axis(0, 1)}), told_of(np.zeros((0, 1)), [])
    spread = []
    for _ in range(150):
        drawn = cmaes().propose(space, told, 4, 0)
        spread.append(np.ptp(drawn))
        told = told_of(np.concatenate([told.genotype, drawn]), np.append(told.value, -np.abs(drawn[:, 0] - 0.3)))
    narrow = int(np.argmin(spread))
    assert spread[narrow] < 1e-6
    assert max(spread[narrow:]) > 0.01


def test_cmaes_needs_a_batch_that_a_covariance_can_be_learned_from():
    with pytest.raises(ConfigError, match=r"^search.size: expected 0 or a batch of 4 trials or more; given: 3$"):
        cmaes(size=3)


@pytest.mark.parametrize("algorithm", ["CMA_ES", "PSO", "SimpleGA"])
def test_evolution_gets_nearer_from_generation_to_generation(algorithm):
    space, told = Space({f"x{d}": Axis(0, 1) for d in range(3)}), told_of(np.zeros((0, 3)), [])
    for _ in range(15):
        drawn = evolution(algorithm=algorithm, size=16).propose(space, told, 16, 2)
        value = -((drawn - 0.8) ** 2).sum(axis=1)
        told = told_of(np.concatenate([told.genotype, drawn]), np.append(told.value, value))
    assert np.median(told.value[-16:]) > 0.2 * np.median(told.value[:16])  # of a negative number: five times nearer


def test_evolution_asks_for_one_generation_however_many_at_a_time():
    space, told = SPACES[2], solved(3, 8)
    at_once = evolution(size=8).propose(space, told, 16, 0)
    rest = told_of(np.concatenate([told.genotype, at_once[:3]]), np.append(told.value, [1.0, 2.0, np.nan]))
    np.testing.assert_array_equal(evolution(size=8).propose(space, rest, 10, 0), at_once[3:13])


def test_evolution_names_what_it_lacks(monkeypatch):
    with pytest.raises(ConfigError, match=r"^search.algorithm: evosax has no 'CMAES'; did you mean 'CMA_ES'\?$"):
        evolution(algorithm="CMAES")
    with pytest.raises(ConfigError, match=r"^search.size: PGPE refuses generations of 7"):
        evolution(algorithm="PGPE", size=7).propose(SPACES[1], solved(1, 0), 2, 0)
    monkeypatch.setitem(sys.modules, "evosax.algorithms", None)
    with pytest.raises(ConfigError, match=r"^search.method: evolution needs evosax: pip install 'vmaptune\[evosax\]'$"):
        evolution()


def test_gp_finds_the_bottom_of_a_bowl():
    regret = own_regret(gp(), "Branin", range(3))
    assert np.median(regret) < 0.05 * np.median(own_regret(made("random"), "Branin", range(3)))


def test_gp_spreads_a_batch_and_keeps_away_from_what_waits():
    space, told = Space({"x": Axis(0, 1), "y": Axis(0, 1)}), solved(2, 24)
    told = told._replace(value=np.prod(np.sin(9.0 * told.genotype), axis=1))
    batch = gp().propose(space, told, 6, 0)
    assert min(np.abs(a - b).max() for a, b in itertools.combinations(batch, 2)) > 1e-4
    genotype = np.concatenate([told.genotype, np.repeat(batch[:1], 8, axis=0)])
    late = np.arange(32) >= 24
    waiting = told_of(genotype, np.append(told.value, [np.nan] * 8), ended=~late, step=np.where(late, 0, 10))
    assert np.abs(gp().propose(space, waiting, 1, 0) - batch[0]).max() > 0.01


@given(genes=st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3))
def test_snapping_keeps_the_value(genes):
    space = SPACES[2]
    genotype = np.float32([genes])
    moved = snap(space, genotype)
    before, after = space.decode(jnp.asarray(genotype)), space.decode(jnp.asarray(moved, jnp.float32))
    assert all(float(before[name][0]) == pytest.approx(float(after[name][0]), rel=1e-5) for name in ("x", "choice"))
    assert abs(float(before["count"][0]) - float(after["count"][0])) <= (0 if _clear(genes[2]) else 1)
    np.testing.assert_allclose(snap(space, moved), moved, atol=1e-12)


def _clear(gene):
    """Not at the border of two whole numbers, where float32 and float64 may round differently."""
    value = math.exp(math.log(0.5) + gene * (math.log(6.5) - math.log(0.5)))
    return abs(value % 1 - 0.5) > 1e-4


@given(gain=st.floats(-30, 5), deviation=st.floats(0.01, 3))
def test_expected_improvement_is_that_of_a_normal_variable(gain, deviation):
    z = gain / deviation
    if z < -150:
        return
    tail = 1 - abs(z) * math.sqrt(math.pi / 2) * special.erfcx(abs(z) / math.sqrt(2))
    h = stats.norm.logpdf(z) + math.log(tail) if z < 0 else math.log(stats.norm.pdf(z) + z * stats.norm.cdf(z))
    assert float(log_improvement(jnp.float32(gain), jnp.float32(deviation))) == pytest.approx(
        math.log(deviation) + h, rel=2e-3, abs=0.03
    )
