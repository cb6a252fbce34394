"""Every stopper against an independent reference, trial by trial, while slots are refilled; then what each promises."""

import functools
import math
import statistics
from collections import defaultdict
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmaptune.errors import ConfigError
from vmaptune.stoppers import STOPPERS, Report, asha, hyperband, median, none, patience, threshold
from vmaptune.stoppers.hyperband import bracket_shares, deal

optuna.logging.set_verbosity(optuna.logging.WARNING)

# References: dicts and loops, written from the papers. Each takes one generation, {trial: (age, fitness)}, and says who stops.


class NoneReference:
    def __init__(self, generations):
        pass

    def generation(self, reports):
        return set()


class AshaReference:
    def __init__(self, generations, reduction=3, grace=1):
        self.generations, self.reduction, self.grace = generations, reduction, grace
        self.recorded = defaultdict(dict)

    def is_rung(self, age):
        while age > self.grace and age % self.reduction == 0:
            age //= self.reduction
        return age == self.grace

    def generation(self, reports):
        standing = {t: (age, f) for t, (age, f) in reports.items() if self.is_rung(age) and age < self.generations}
        for trial, (age, fitness) in standing.items():
            self.recorded[age][trial] = fitness
        stopped = set()
        for trial, (age, fitness) in standing.items():
            better = sum(other > fitness for other in self.recorded[age].values())
            if better >= max(1, len(self.recorded[age]) // self.reduction):
                stopped.add(trial)
        return stopped


class HyperbandReference:
    def __init__(self, generations, reduction=3, grace=1, brackets=0):
        s_max = 0
        while grace * reduction ** (s_max + 1) <= generations:
            s_max += 1
        self.n = [math.ceil(Fraction((s_max + 1) * reduction**s, s + 1)) for s in range(s_max, -1, -1)]
        self.n = self.n[: brackets or None]
        self.ashas = [AshaReference(generations, reduction, grace * reduction**b) for b in range(len(self.n))]
        turns = [(Fraction(2 * j + 1, 2 * n), b) for b, n in enumerate(self.n) for j in range(n)]
        self.round = [b for _, b in sorted(turns)]

    def generation(self, reports):
        stopped = set()
        for b, reference in enumerate(self.ashas):
            stopped |= reference.generation({t: r for t, r in reports.items() if self.round[t % len(self.round)] == b})
        return stopped


class MedianReference:
    def __init__(self, generations, warmup=1, startup=5, interval=1, window=512):
        self.generations, self.warmup, self.startup = generations, warmup, startup
        self.interval, self.window = interval, window
        self.history = defaultdict(list)
        self.averages = defaultdict(dict)  # age -> trial -> running average
        self.mean = {}

    def generation(self, reports):
        due = {}
        for trial, (age, fitness) in reports.items():
            self.history[trial].append(fitness)
            mean = self.mean.get(trial, np.float32(0))
            self.mean[trial] = mean + (fitness - mean) / np.float32(len(self.history[trial]))
            assert self.mean[trial] == pytest.approx(statistics.fmean(map(float, self.history[trial])), abs=1e-6)
            if self.warmup < age < self.generations and (age - self.warmup - 1) % self.interval == 0:
                due[trial] = age
                self.averages[age][trial] = self.mean[trial]
        for age, averages in self.averages.items():  # of those that share a place, the newest is remembered
            newest = {trial % self.window: trial for trial in sorted(averages)}
            self.averages[age] = {trial: averages[trial] for trial in newest.values()}
        stopped = set()
        for trial, age in due.items():
            others = [average for other, average in self.averages[age].items() if other != trial]
            if len(others) >= self.startup and max(self.history[trial]) < np.median(others):
                stopped.add(trial)
        return stopped


class PatienceReference:
    def __init__(self, generations, patience=5, delta=0.0):
        self.generations, self.patience, self.delta = generations, patience, np.float32(delta)
        self.best, self.at = {}, {}

    def generation(self, reports):
        stopped = set()
        for trial, (age, fitness) in reports.items():
            if trial not in self.best or fitness - self.delta > self.best[trial]:
                self.best[trial], self.at[trial] = fitness, age
            elif age >= self.at[trial] + self.patience and age < self.generations:
                stopped.add(trial)
        return stopped


class ThresholdReference:
    def __init__(self, generations, worst, warmup=1):
        self.generations, self.worst, self.warmup = generations, np.float32(worst), warmup

    def generation(self, reports):
        return {t for t, (age, f) in reports.items() if self.warmup < age < self.generations and f < self.worst}


REFERENCES = {
    "none": NoneReference,
    "asha": AshaReference,
    "hyperband": HyperbandReference,
    "median": MedianReference,
    "patience": PatienceReference,
    "threshold": ThresholdReference,
}

# Settings that are legal with 9 generations and more; a few, because each compiles its own program.
CASES = [
    ("none", {}),
    ("asha", {}),
    ("asha", {"reduction": 2, "grace": 2}),
    ("asha", {"reduction": 4}),
    ("hyperband", {}),
    ("hyperband", {"reduction": 2}),
    ("hyperband", {"reduction": 2, "brackets": 2}),
    ("median", {"startup": 1, "warmup": 0}),
    ("median", {"interval": 3}),
    ("median", {"startup": 2, "window": 5}),
    ("patience", {"patience": 1}),
    ("patience", {"patience": 3, "delta": 0.25}),
    ("threshold", {"worst": 0.4}),
    ("threshold", {"worst": 0.0, "warmup": 3}),
]
SHAPES = [(1, 7, 9), (3, 40, 9), (8, 40, 13), (8, 8, 9), (13, 100, 16)]  # slots, trials, generations
cases = pytest.mark.parametrize(("name", "options"), CASES, ids=str)
rows = pytest.mark.parametrize("name", STOPPERS)
DEFAULTS = {name: {"worst": 0.0} if name == "threshold" else {} for name in STOPPERS}


def simulate(reference, curves, slots, silent, failed):
    """Trains every trial, in order of number; a slot whose trial ended takes the next one in the next generation.

    Args:
        reference: Who stops.
        curves: f32[T, G], fitness of each trial at each age.
        slots: N.
        silent: bool[T, G]: the trial reports nothing, and goes on.
        failed: bool[T, G]: it reports nothing, and ends.

    Returns:
        Reports of all generations as arrays [generations, N], and bool[generations, N], who stopped; padded with generations
        in which nobody reports, to the most there can be.
    """
    trials, generations = curves.shape
    longest = generations * math.ceil(trials / slots) + generations
    trial, age, fitness = np.full((longest, slots), -1), np.ones((longest, slots), int), np.zeros((longest, slots), np.float32)
    stop = np.zeros((longest, slots), bool)
    waiting = list(range(trials))
    current = [None] * slots
    for now in range(longest):
        for slot in range(slots):
            if current[slot] is None and waiting:
                current[slot] = [waiting.pop(0), 0]
        reports, place = {}, {}
        for slot, member in enumerate(current):
            if member is not None:
                member[1] += 1
                number, old = member
                age[now, slot] = old
                if not silent[number, old - 1] and not failed[number, old - 1]:
                    trial[now, slot], fitness[now, slot] = number, curves[number, old - 1]
                    reports[number], place[number] = (old, curves[number, old - 1]), slot
        for number in reference.generation(reports):
            stop[now, place[number]] = True
        for slot, member in enumerate(current):
            if member is not None and (stop[now, slot] or failed[member[0], member[1] - 1] or member[1] == generations):
                current[slot] = None
    assert not waiting
    assert all(member is None for member in current)
    return Report(trial.astype(np.int32), age.astype(np.int32), fitness), stop


@functools.cache
def replay(name, options, trials, generations):
    """`reports [generations, N] -> stop [generations, N]`, in one compiled scan."""
    stopper = STOPPERS[name](**dict(options))
    return jax.jit(lambda reports: jax.lax.scan(stopper.update, stopper.init(trials, generations), reports)[1])


def curves_of(kind, trials, generations, rng):
    """f32[T, G] of fitness: smooth, coarse (so that many tie), or all the same."""
    if kind == "tied":
        return rng.integers(-2, 3, (trials, generations)).astype(np.float32) / 4
    if kind == "same":
        return np.full((trials, generations), 0.3, np.float32)
    rise = 1 - np.exp(-np.arange(1, generations + 1) / 5)
    return (rng.normal(size=(trials, 1)) * rise + 0.2 * rng.normal(size=(trials, generations))).astype(np.float32)


@cases
@settings(max_examples=25)
@given(
    shape=st.sampled_from(SHAPES),
    kind=st.sampled_from(["smooth", "smooth", "tied", "same"]),
    quiet=st.sampled_from([0.0, 0.0, 0.1]),
    failing=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 2**31),
)
def test_every_decision_is_the_references(name, options, shape, kind, quiet, failing, seed):
    slots, trials, generations = shape
    rng = np.random.default_rng(seed)
    curves = curves_of(kind, trials, generations, rng)
    silent, failed = rng.random(curves.shape) < quiet, rng.random(curves.shape) < failing
    reports, expected = simulate(REFERENCES[name](generations, **options), curves, slots, silent, failed)
    stop = np.asarray(replay(name, tuple(options.items()), trials, generations)(reports))
    np.testing.assert_array_equal(stop, expected)
    assert not stop[reports.trial < 0].any()
    assert not stop[reports.age == generations].any()


@cases
def test_the_cases_stop_some_and_not_all(name, options):
    """Else the comparison above would compare nothing."""
    curves = curves_of("smooth", 100, 16, np.random.default_rng(0))
    curves[50] = 1 + np.arange(16)  # the others are too noisy for a patience of one generation
    quiet = np.zeros(curves.shape, bool)
    reports, stop = simulate(REFERENCES[name](16, **options), curves, 13, quiet, quiet)
    finished = (reports.trial >= 0) & (reports.age == 16)
    assert finished.any()
    assert stop.any() == (name != "none")


@cases
def test_the_same_op_by_op_in_scan_and_under_vmap_over_seeds(name, options):
    slots, trials, generations = 3, 10, 9
    stopper = STOPPERS[name](**options)
    recorded = []
    for seed in range(2):
        curves = curves_of("smooth", trials, generations, np.random.default_rng(seed))
        quiet = np.zeros(curves.shape, bool)
        recorded.append(simulate(REFERENCES[name](generations, **options), curves, slots, quiet, quiet)[0])
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *recorded)
    scanned = np.stack([replay(name, tuple(options.items()), trials, generations)(reports) for reports in recorded])

    state = jax.vmap(lambda _: stopper.init(trials, generations))(jnp.arange(2))
    update = jax.jit(jax.vmap(stopper.update))
    alone = stopper.init(trials, generations)
    for now in range(batch.trial.shape[1]):
        state, stop = update(state, jax.tree.map(lambda leaf, now=now: leaf[:, now], batch))
        np.testing.assert_array_equal(stop, scanned[:, now])
        if now < 12:
            alone, stop = stopper.update(alone, jax.tree.map(lambda leaf, now=now: leaf[0, now], batch))
            np.testing.assert_array_equal(stop, scanned[0, now])
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(alone))


@pytest.mark.parametrize(
    ("name", "base", "change"),
    [
        ("asha", {}, {"reduction": 2}),
        ("asha", {}, {"grace": 2}),
        ("hyperband", {}, {"reduction": 2}),
        ("hyperband", {}, {"grace": 2}),
        ("hyperband", {}, {"brackets": 2}),
        ("median", {}, {"warmup": 3}),
        ("median", {}, {"startup": 20}),
        ("median", {}, {"interval": 2}),
        ("median", {}, {"window": 7}),
        ("patience", {}, {"patience": 3}),
        ("patience", {}, {"delta": 0.3}),
        ("threshold", {"worst": 0.0}, {"worst": 0.5}),
        ("threshold", {"worst": 0.0}, {"warmup": 4}),
    ],
    ids=str,
)
def test_no_setting_is_dead(name, base, change):
    curves = curves_of("smooth", 100, 16, np.random.default_rng(1))
    quiet = np.zeros(curves.shape, bool)
    reports, _ = simulate(NoneReference(16), curves, 13, quiet, quiet)
    stops = [np.asarray(replay(name, tuple(o.items()), 100, 16)(reports)) for o in (base, base | change)]
    assert (stops[0] != stops[1]).any()


@rows
def test_a_trial_that_always_leads_and_always_improves_is_never_stopped(name):
    options = DEFAULTS[name]
    curves = curves_of("smooth", 40, 13, np.random.default_rng(2))
    curves[17] = np.abs(curves).max() + np.arange(13)
    quiet = np.zeros(curves.shape, bool)
    reports, _ = simulate(REFERENCES[name](13, **options), curves, 8, quiet, quiet)
    stop = np.asarray(replay(name, tuple(options.items()), 40, 13)(reports))
    assert not stop[reports.trial == 17].any()
    assert (reports.age[reports.trial == 17] == 13).any()


@rows
def test_nothing_reported_stops_nothing_and_leaves_no_trace(name):
    stopper = STOPPERS[name](**DEFAULTS[name])
    state = stopper.init(20, 9)
    empty = Report(jnp.full(4, -1), jnp.array([1, 3, 8, 9]), jnp.array([-9.0, np.nan, np.inf, 9.0]))
    after, stop = stopper.update(state, empty)
    assert stop.dtype == bool
    assert not stop.any()
    jax.tree.map(np.testing.assert_array_equal, state, after)


@pytest.mark.parametrize(
    ("name", "options"), [("asha", {}), ("hyperband", {}), ("median", {}), ("patience", {}), ("threshold", {"worst": 0.0})]
)
def test_the_state_of_many_trials_is_small(name, options):
    """A hundred thousand trials of a thousand generations: no table of one by the other, which would be 400 MB."""
    leaves = jax.tree.leaves(jax.eval_shape(lambda: STOPPERS[name](**options).init(100_000, 1000)))
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) < 10e6


def ask(pruner, curves, obey=True):
    """Optuna's decisions on curves shown one after the other: the ages at which each is stopped, without its last age.

    Ages and steps are the same; where `obey` is False, a trial that is stopped goes on, and counts as complete.
    """
    study = optuna.create_study(direction="maximize", pruner=pruner)
    stopped = []
    for curve in curves:
        trial, ages = study.ask(), []
        for age, fitness in enumerate(curve[:-1], 1):
            trial.report(float(fitness), age)
            if trial.should_prune():
                ages.append(age)
                if obey:
                    break
        state = optuna.trial.TrialState.PRUNED if ages and obey else optuna.trial.TrialState.COMPLETE
        study.tell(trial, None if state == optuna.trial.TrialState.PRUNED else float(curve[-1]), state=state)
        stopped.append(ages)
    return stopped


def answer(stopper, curves, obey=True):
    """The same of a stopper, one slot."""
    trials, generations = curves.shape
    update, state, stopped = jax.jit(stopper.update), stopper.init(trials, generations), []
    for number, curve in enumerate(curves):
        ages = []
        for age, fitness in enumerate(curve[:-1], 1):
            state, stop = update(state, Report(jnp.array([number]), jnp.array([age]), jnp.array([fitness])))
            if stop[0]:
                ages.append(age)
                if obey:
                    break
        stopped.append(ages)
    return stopped


@pytest.mark.parametrize("kind", ["smooth", "tied"])
@pytest.mark.parametrize(("reduction", "grace"), [(2, 1), (3, 1), (4, 2)])
def test_asha_stops_whom_optuna_stops(kind, reduction, grace):
    curves = curves_of(kind, 40, 13, np.random.default_rng(3))
    expected = ask(optuna.pruners.SuccessiveHalvingPruner(min_resource=grace, reduction_factor=reduction), curves)
    assert answer(asha(reduction=reduction, grace=grace), curves) == expected
    assert any(expected)


def test_a_bracket_of_hyperband_stops_whom_optuna_stops():
    """Bracket by bracket, since Optuna deals its trials out by a hash of the study's name."""
    curves = curves_of("smooth", 60, 13, np.random.default_rng(4))
    found = answer(hyperband(reduction=2), curves)
    number = np.resize(deal(bracket_shares(4, 2)), 60)
    for bracket in range(4):
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2, min_early_stopping_rate=bracket)
        own = np.flatnonzero(number == bracket)
        assert [found[i] for i in own] == ask(pruner, curves[own])
        assert any(found[i] for i in own)


@pytest.mark.parametrize("kind", ["smooth", "tied"])
def test_the_median_rule_is_optunas_at_the_first_generation(kind):
    """Later Optuna takes the median of values, not of averages; and of complete trials, so all are let go on here."""
    curves = curves_of(kind, 40, 9, np.random.default_rng(5))
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1, interval_steps=9)
    expected = ask(pruner, curves, obey=False)
    assert answer(median(warmup=0, startup=5, interval=9), curves, obey=False) == expected
    assert any(expected)


def test_the_median_rule_is_optunas_on_constant_trials():
    curves = np.repeat(curves_of("smooth", 40, 9, np.random.default_rng(5))[:, -1:], 9, axis=1)
    expected = ask(optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=4), curves, obey=False)
    assert answer(median(warmup=3, startup=4), curves, obey=False) == expected
    assert any(expected)


@pytest.mark.parametrize("wait", [1, 3])
def test_patience_is_optunas_without_ties(wait):
    """Optuna's window is one longer, and with ties or a delta it waits for a fall where Keras waits for a rise."""
    curves = curves_of("smooth", 40, 13, np.random.default_rng(6))
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        pruner = optuna.pruners.PatientPruner(None, patience=wait)
    expected = ask(pruner, curves)
    assert answer(patience(patience=wait + 1), curves) == expected
    assert any(expected)


def test_the_threshold_is_optunas():
    curves = curves_of("smooth", 40, 9, np.random.default_rng(7))
    expected = ask(optuna.pruners.ThresholdPruner(lower=0.1, n_warmup_steps=3), curves)
    assert answer(threshold(worst=0.1, warmup=2), curves) == expected
    assert any(expected)


def test_the_shares_are_those_of_the_paper():
    """Table 1 of Li et al. 2018: R = 81, eta = 3."""
    assert bracket_shares(5, 3) == [81, 34, 15, 8, 5]
    assert np.bincount(deal([81, 34, 15, 8, 5])).tolist() == [81, 34, 15, 8, 5]


@given(fit=st.integers(2, 6), reduction=st.integers(2, 4), length=st.integers(1, 300))
def test_brackets_get_their_shares_of_any_number_of_trials(fit, reduction, length):
    shares = bracket_shares(fit, reduction)
    dealt = np.bincount(np.resize(deal(shares), length), minlength=fit)
    # Each is within 1/2 of its share of where the round stands, which is within 1/2 per bracket of the length.
    assert np.abs(dealt - length * np.array(shares) / sum(shares)).max() <= 1 / 2 + fit / 2


def test_one_bracket_is_asha():
    curves = curves_of("smooth", 40, 9, np.random.default_rng(8))
    quiet = np.zeros(curves.shape, bool)
    reports, expected = simulate(AshaReference(9), curves, 8, quiet, quiet)
    np.testing.assert_array_equal(replay("hyperband", (("brackets", 1),), 40, 9)(reports), expected)


def test_all_of_a_generation_are_recorded_before_any_is_judged():
    stopper = asha(reduction=2)
    report = Report(jnp.arange(4), jnp.ones(4, int), jnp.array([1.0, 2.0, 3.0, 4.0]))
    stop = stopper.update(stopper.init(4, 9), report)[1]
    assert stop.tolist() == [True, True, False, False]


def test_ties_go_on():
    stopper = asha(reduction=4)
    report = Report(jnp.arange(4), jnp.ones(4, int), jnp.array([1.0, 2.0, 2.0, 2.0]))
    assert stopper.update(stopper.init(4, 9), report)[1].tolist() == [True, False, False, False]


@given(count=st.integers(1, 30), reduction=st.integers(2, 4), seed=st.integers(0, 100))
def test_so_many_go_on_and_they_are_the_best(count, reduction, seed):
    fitness = np.full(30, -1.0, np.float32)
    fitness[:count] = np.random.default_rng(seed).permutation(count)
    trial = np.where(np.arange(30) < count, np.arange(30), -1)
    reports = Report(trial[None], np.ones((1, 30), np.int32), fitness[None])
    stop = np.asarray(replay("asha", (("reduction", reduction),), 40, 9)(reports))[0]
    assert sorted(fitness[:count][~stop[:count]]) == list(range(count))[count - max(1, count // reduction) :]


@pytest.mark.parametrize("delta", [0.0, 0.5])
def test_patience_waits_as_long_as_it_says(delta):
    curve = np.array([[0.0, 1.0, 1.0 + delta, 1.0, 1.0, 9.0, 9.0, 9.0]], np.float32)
    assert answer(patience(patience=3, delta=delta), curve) == [[5]]


def test_small_steps_add_up_to_an_improvement():
    slow = np.arange(13, dtype=np.float32)[None] / 4
    assert answer(patience(patience=3, delta=0.5), slow) == [[]]
    assert answer(patience(patience=2, delta=0.5), slow) == [[3]]


def test_more_slots_than_the_window_of_the_median():
    """The newest stay, however many report at once; the answer does not hang on the order of the slots."""
    rng = np.random.default_rng(9)
    curves = curves_of("smooth", 24, 9, rng)
    quiet = np.zeros(curves.shape, bool)
    reports, expected = simulate(MedianReference(9, startup=2, window=5), curves, 24, quiet, quiet)
    order = rng.permutation(24)
    shuffled = jax.tree.map(lambda leaf: leaf[:, order], reports)
    options = (("startup", 2), ("window", 5))
    np.testing.assert_array_equal(replay("median", options, 24, 9)(shuffled), expected[:, order])
    assert expected.any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: asha(grace=9).init(5, 9), "search.stop.grace: .* trials end after 9; given: 9"),
        (lambda: asha().init(5, 1), "search.stop.grace"),
        (lambda: hyperband(grace=4).init(5, 9), "search.stop.grace: hyperband needs .* 12 generations.* given: 4"),
        (lambda: hyperband(brackets=4).init(5, 9), "search.stop.brackets: 3 fit into 9 generations.* given: 4"),
        (lambda: median(warmup=8).init(5, 9), "search.stop.warmup"),
        (lambda: median(startup=5, window=5), "search.stop.window: expected more trials than startup, 5; given: 5"),
        (lambda: patience(patience=8).init(5, 9), "search.stop.patience"),
        (lambda: threshold(worst=0.0, warmup=8).init(5, 9), "search.stop.warmup"),
    ],
)
def test_a_setting_that_could_stop_nothing_is_refused(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_the_least_that_fits_is_accepted():
    asha(grace=8).init(5, 9)
    hyperband(grace=3, brackets=2).init(1, 9)
    median(warmup=7).init(1, 9)
    patience(patience=7).init(1, 9)
    threshold(worst=0.0, warmup=7).init(1, 9)
    assert none().init(1, 1) == ()
