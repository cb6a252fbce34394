"""Every row of `SCHEDULES` meets one contract; a new row needs a reference here and gets the rest of the tests for free."""

import functools
import itertools
from typing import Literal, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from vmaptune import schedules
from vmaptune.schedules import SCHEDULES, bare, rise, warmed, with_warmup
from vmaptune.schedules.pchip import pchip
from vmaptune.settings import NonNegative, convert, settings

# ---------------------------------------------------------------------------------------------------------- references
# NumPy float64 functions of x f64[n] and the row's own settings, written from the papers and not from our code.


def constant(x):
    return np.ones_like(x)


def linear(x, end):
    return end + (1 - end) * (1 - x)


def polynomial(x, power, end):
    return end + (1 - end) * (1 - x) ** power


def cosine(x, exponent, end):
    return end + (1 - end) * ((1 + np.cos(np.pi * x)) / 2) ** exponent


def sqrt(x, alpha):
    return np.sqrt(1 - x**2) ** alpha


def rex(x, beta):
    return (1 - x) / (1 - (1 - beta) * x)


def step(x, factor, every):
    return factor ** np.floor(x / every)


def exponential(x, end):
    return end**x


def inverse_sqrt(x, timescale):
    return np.sqrt(timescale / (timescale + x))


def power(x, exponent, timescale):
    return (1 + x / timescale) ** -exponent


def wsd(x, decay, end, cooldown):
    done = np.zeros_like(x) if decay == 0 else np.maximum(0, (x - (1 - decay)) / decay)
    shape = {"linear": 1 - done, "cosine": (1 + np.cos(np.pi * done)) / 2, "sqrt": 1 - np.sqrt(done)}[cooldown]
    return end + (1 - end) * shape


def cosine_restarts(x, period, period_factor, peak_factor, end):
    values = np.empty_like(x)
    begin, length, peak = 0.0, period, 1.0
    while begin < 1:
        inside = (x >= begin) & (x < begin + length)
        values[inside] = end + (1 - end) * peak * (1 + np.cos(np.pi * (x[inside] - begin) / length)) / 2
        begin, length, peak = begin + length, length * period_factor, peak * peak_factor
    return values


def cyclical(x, period, low, scale):
    """CyclicLR of the paper's listing, whose iterations and step size are fractions of the horizon here."""
    stepsize = period / 2
    cycle = np.floor(1 + x / (2 * stepsize))
    place = np.abs(x / stepsize - 2 * cycle + 1)
    return low + (1 - low) * np.maximum(0, 1 - place) * scale(cycle)


def triangular(x, period, low):
    return cyclical(x, period, low, lambda cycle: 1)


def triangular2(x, period, low):
    return cyclical(x, period, low, lambda cycle: 1 / 2 ** (cycle - 1))


def exp_range(x, period, low, gamma):
    return cyclical(x, period, low, lambda cycle: gamma**x)


def between(x, begin, end, a, b, anneal):
    done = np.clip((x - begin) / (end - begin), 0, 1) if end > begin else np.ones_like(x)
    return a + (b - a) * (done if anneal == "linear" else (1 - np.cos(np.pi * done)) / 2)


def course(x, peak, marks, anneal):
    """Through (place, value) marks in order."""
    (_, values), *rest = marks
    values = np.full_like(x, values)
    for (begin, a), (end, b) in itertools.pairwise([marks[0], *rest]):
        values = np.where(x >= begin, between(x, begin, end, a, b, anneal), values)
    return values


def one_cycle(x, peak, start, end, anneal, three_phase):
    back = [(min(2 * peak, 1.0), start)] if three_phase else []
    if back and back[0][0] == 1:  # no room for a third phase
        return course(x, peak, [(0, start), (peak, 1), *back], anneal)
    return course(x, peak, [(0, start), (peak, 1), *back, (1, end)], anneal)


def one_cycle_momentum(x, peak, low, anneal, three_phase):
    back = [(min(2 * peak, 1.0), 1)] if three_phase else []
    return course(x, peak, [(0, 1), (peak, low), *back, (1, 1)], anneal)


def two_points(delta_x1, y1, delta_x2, delta_y2, delta_end):
    x2, y2 = delta_x1 + delta_x2 * (1 - delta_x1), delta_y2 * y1
    return [0, delta_x1, x2, 1], [1, y1, y2, delta_end * y2]


def two_points_linear(x, **knobs):
    return course(x, None, list(zip(*two_points(**knobs), strict=True)), "linear")


def apart(knots):
    """Neighbours at least 0.01 apart: first pushed to the right, then back to the left of the end."""
    knots = list(knots)
    for k in range(1, len(knots) - 1):
        knots[k] = max(knots[k], knots[k - 1] + 0.01)
    for k in reversed(range(1, len(knots) - 1)):
        knots[k] = min(knots[k], knots[k + 1] - 0.01)
    return knots


def two_points_spline(x, **knobs):
    knots, values = two_points(**knobs)
    return PchipInterpolator(apart(knots), values)(x)


def smooth_nonmonotonic(x, start, delta_x1, y1, peak, delta_x2, y2, end):
    inner = sorted([(delta_x1, y1), (delta_x1 + delta_x2 * (1 - delta_x1), y2), (peak, 1.0)], key=lambda knot: knot[0])
    knots, values = zip((0.0, start), *inner, (1.0, end), strict=True)
    return PchipInterpolator(apart(knots), values)(x)


def table(x, values, interpolation):
    if interpolation == "step":
        return np.asarray(values)[np.minimum(np.floor(x * len(values)).astype(int), len(values) - 1)]
    return np.interp(x, np.linspace(0, 1, len(values)), values)


REFERENCES = {
    f.__name__: f
    for f in (
        *(constant, linear, polynomial, cosine, sqrt, rex, step, exponential, inverse_sqrt, power, wsd, cosine_restarts),
        *(triangular, triangular2, exp_range, one_cycle, one_cycle_momentum),
        *(two_points_linear, two_points_spline, smooth_nonmonotonic, table),
    )
}


def risen(x, shape, power):
    return {
        "linear": lambda: x,
        "cosine": lambda: (1 - np.cos(np.pi * x)) / 2,
        "exponential": lambda: np.expm1(power * x) / np.expm1(power),
        "polynomial": lambda: x**power,
    }[shape]()


def reference(name, t, *, warmup, warmup_shape, warmup_power, **knobs):
    """A row's multiplier f64[n] at progress f64[n] with its warm-up."""
    family = functools.partial(REFERENCES[name], **knobs)
    if warmup == 0:
        return family(t)
    before = t < warmup
    rising = risen(np.where(before, t, 0) / warmup, warmup_shape, warmup_power) * family(np.zeros(1))
    return np.where(before, rising, family(np.where(before, 0, t - warmup) / (1 - warmup)))


# --------------------------------------------------------------------------------------------------------------- knobs
PROGRESS = (np.arange(1000) / 1000).astype(np.float32)
OPEN = 10.0  # as far as a knob without an upper bound is tried
HAIR = 2e-6  # of the horizon; what is not continuous may be on either side of so much
LENGTH = 4  # of a vector
BATCH = 32  # members whose curves are computed together
FAMILIES = list(SCHEDULES)
KNOBS = [(name, knob) for name, family in SCHEDULES.items() for knob in settings(family)]
WARM = {"warmup": 0.0, "warmup_shape": "linear", "warmup_power": 2.0}


def _range(setting):
    """Smallest and largest float32 that the annotation allows."""
    metas = get_args(setting.number.annotation)[1:]
    bound = {k: getattr(m, k) for m in metas for k in ("gt", "ge", "lt", "le") if getattr(m, k, None) is not None}
    low = np.float32(bound.get("ge", bound.get("gt", -OPEN)))
    high = np.float32(bound.get("le", bound.get("lt", low + np.float32(OPEN))))
    tiny = np.finfo(np.float32).tiny  # devices flush anything smaller to zero
    if "gt" in bound:
        low = np.maximum(np.nextafter(low, np.float32(np.inf)), tiny) if low == 0 else np.nextafter(low, np.float32(np.inf))
    if "lt" in bound:
        high = np.nextafter(high, np.float32(-np.inf))
    return float(low), float(high)


def _unbounded(name):
    """The row's traced scalars that have no upper bound."""
    scalars = {k: s for k, s in settings(SCHEDULES[name]).items() if s.traced and not s.vector}
    return [k for k, s in scalars.items() if not any(getattr(m, e, None) for m in get_args(s.annotation) for e in ("lt", "le"))]


def _legal(setting):
    """A strategy of the values that a setting may have."""
    if setting.vector:
        return st.tuples(*[_legal(setting.number)] * LENGTH)
    if setting.traced:
        return st.floats(*_range(setting), width=32, allow_subnormal=False)
    return st.sampled_from(_candidates(setting))


def _candidates(setting):
    """A few legal values that cover the ends and the middle of a setting's range."""
    if setting.vector:
        numbers = _candidates(setting.number)
        return [tuple(np.roll(numbers, i).tolist()) for i in range(LENGTH)]
    if setting.traced:
        low, high = _range(setting)
        return [float(np.float32(v)) for v in (low, low + (high - low) / 4, low + (high - low) / 2, high)]
    if setting.annotation is bool:
        return [False, True]
    if get_origin(setting.annotation) is Literal:
        return list(get_args(setting.annotation))
    return [setting.default, setting.default + 1]


def _corners(name, most=64):
    """Combinations of candidates: all of the row's own knobs if they are few, and a random lot with its warm-up."""
    known = {k: _candidates(s) for k, s in settings(SCHEDULES[name]).items()}
    own = [dict(zip(known, v, strict=True)) for v in itertools.islice(itertools.product(*_without_warmup(known)), most)]
    rng = np.random.default_rng(0)
    return own + [{k: values[rng.integers(len(values))] for k, values in known.items()} for _ in range(most)]


def _without_warmup(known):
    return [[WARM[k]] if k in WARM else values for k, values in known.items()]


@functools.cache
def _compiled(name, static):
    family = functools.partial(SCHEDULES[name], **dict(static))
    return jax.jit(jax.vmap(jax.vmap(lambda t, knobs: family(t, **knobs), in_axes=(0, None)), in_axes=(None, 0)))


def curves(name, t, many):
    """The multipliers f32[m, n] of m sets of values at progress f32[n]; one program for all but what is not traced."""
    known = settings(SCHEDULES[name])
    statics = [tuple((k, v) for k, v in values.items() if not known[k].traced) for values in many]
    found = np.empty((len(many), len(t)), np.float32)
    padded = np.zeros(1024, np.float32)
    padded[: len(t)] = t
    for static in set(statics):
        members = [i for i, s in enumerate(statics) if s == static]
        for some in (members[i : i + BATCH] for i in range(0, len(members), BATCH)):
            filled = [many[i] for i in (some * BATCH)[:BATCH]]
            knobs = {k: np.float32([values[k] for values in filled]) for k in many[0] if known[k].traced}
            found[some] = np.asarray(_compiled(name, static)(padded, knobs))[: len(some), : len(t)]
    return found


def curve(name, t, **values):
    """The multiplier f32[n] at progress f32[n]; settings not given are at their defaults."""
    defaults = {k: s.default for k, s in settings(SCHEDULES[name]).items()}
    return curves(name, np.float32(t), [defaults | values])[0]


def assert_equals_reference(name, t, found, values, rtol=1e-5, atol=2e-6):
    """Up to float32's rounding of the value, and of progress: within what the reference spans about each point."""
    exact = {k: np.float32(v).astype(float) if settings(SCHEDULES[name])[k].traced else v for k, v in values.items()}
    t = t.astype(np.float64)
    near = [reference(name, place, **exact) for place in (t, np.maximum(t - HAIR, 0), t + np.minimum(HAIR, (1 - t) / 2))]
    low, high = np.min(near, axis=0), np.max(near, axis=0)
    atol = atol + 0.05 * (high - low)  # a kink or a jump that lies between the three
    wrong = (found < low - atol - rtol * np.abs(low)) | (found > high + atol + rtol * np.abs(high)) | np.isnan(found)
    assert not wrong.any(), (name, values, t[wrong][:3], found[wrong][:3], near[0][wrong][:3])


# ------------------------------------------------------------------------------------------------------------ contract


def test_every_row_has_a_reference():
    assert list(REFERENCES) == list(SCHEDULES)


@pytest.mark.parametrize("name", FAMILIES)
@hypothesis_settings(max_examples=25)
@given(data=st.data())
def test_a_family_equals_its_reference(name, data):
    values = {k: data.draw(_legal(s), label=k) for k, s in settings(SCHEDULES[name]).items()}
    assert_equals_reference(name, PROGRESS, curves(name, PROGRESS, [values])[0], values)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_equals_its_reference_at_the_ends_of_its_knobs(name):
    corners = _corners(name)
    for values, found in zip(corners, curves(name, PROGRESS, corners), strict=True):
        assert_equals_reference(name, PROGRESS, found, values)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_finite_for_every_progress_and_horizon(name):
    """One past the last step, too: rounding may take what remains after a warm-up there."""
    horizons = [np.arange(h, dtype=np.float32) / np.float32(h) for h in (1, 2, 3)]
    t = np.concatenate([*horizons, [np.nextafter(np.float32(1), np.float32(0)), np.float32(1)]]).astype(np.float32)
    corners = _corners(name)
    for knob in _unbounded(name):
        corners += [values | {knob: float(np.finfo(np.float32).max)} for values in corners[::8]]
    found = curves(name, t, corners)
    assert np.isfinite(found).all(), corners[np.flatnonzero(~np.isfinite(found).all(axis=1))[0]]
    assert (found >= 0).all()


@pytest.mark.parametrize(("name", "knob"), KNOBS)
def test_no_knob_is_dead(name, knob):
    first, *others = _candidates(settings(SCHEDULES[name])[knob])
    corners = _corners(name)[::2]
    base = curves(name, PROGRESS, [values | {knob: first} for values in corners])
    for value in others:
        moved = curves(name, PROGRESS, [values | {knob: value} for values in corners])
        assert not np.allclose(moved, base, atol=1e-3), f"{value} changes no curve"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_traces_with_every_knob_batched(name):
    """As in training: each member has its own knobs, and its own progress."""
    known = settings(SCHEDULES[name])
    static = {k: s.default for k, s in known.items() if not s.traced}
    rng = np.random.default_rng(0)
    shapes = {k: (16, LENGTH) if s.vector else (16,) for k, s in known.items() if s.traced}
    knobs = {k: rng.uniform(*_range(known[k]), shape).astype(np.float32) for k, shape in shapes.items()}
    t = rng.uniform(0, 1, 16).astype(np.float32)
    together = jax.jit(jax.vmap(lambda t, knobs: SCHEDULES[name](t, **static, **knobs)))(t, knobs)
    assert together.shape == (16,)
    assert together.dtype == jnp.float32
    for i in range(16):
        assert_equals_reference(
            name, t[i : i + 1], np.asarray(together[i : i + 1]), static | {k: v[i] for k, v in knobs.items()}
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_elementwise(name):
    defaults = {k: s.default for k, s in settings(SCHEDULES[name]).items()} | {"warmup": 0.25}
    together = jax.jit(lambda t: SCHEDULES[name](t, **defaults))(PROGRESS.reshape(50, 20))
    np.testing.assert_allclose(together.ravel(), curve(name, PROGRESS, **defaults), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_gives_a_float32_scalar(name):
    known = settings(SCHEDULES[name])
    static = {k: s.default for k, s in known.items() if not s.traced}
    knobs = {k: jnp.float32(s.default) for k, s in known.items() if s.traced}
    for own in (knobs, {k: v for k, v in knobs.items() if k not in WARM}, {}):
        out = jax.eval_shape(lambda t, knobs: SCHEDULES[name](t, **static, **knobs), jnp.float32(0), own)
        assert out == jax.ShapeDtypeStruct((), jnp.float32)


@pytest.mark.parametrize(("name", "knob"), KNOBS)
def test_every_knob_is_explained_and_its_default_is_legal(name, knob):
    setting = settings(SCHEDULES[name])[knob]
    assert setting.help
    assert convert(setting, setting.default, knob) == setting.default


@pytest.mark.parametrize(("name", "knob"), [(n, k) for n, k in KNOBS if settings(SCHEDULES[n])[k].traced])
def test_every_knob_says_where_it_is_usually_searched(name, knob):
    setting = settings(SCHEDULES[name])[knob]
    for number in {setting, setting.number}:
        low, high, scale = number.usual
        assert low < high
        assert low > 0 or scale == "linear"
        assert [convert(setting.number, value, knob) for value in (low, high)] == [low, high]


# ------------------------------------------------------------------------------------------------------------- warm-up


@pytest.mark.parametrize("name", FAMILIES)
def test_every_row_takes_the_same_warmup_after_its_own_settings(name):
    own = list(settings(bare(name)))
    assert list(settings(SCHEDULES[name])) == [*own, *WARM]
    assert {k: settings(SCHEDULES[name])[k].default for k in WARM} == WARM
    assert settings(SCHEDULES[name])["warmup"] == settings(warmed)["warmup"]


@pytest.mark.parametrize("shape", get_args(settings(warmed)["warmup_shape"].annotation))
def test_a_warmup_rises_from_zero_to_where_the_family_starts(shape):
    t = np.float32([0.0, 0.1, 0.2, 0.3, 0.4, 0.7])
    found = curve("one_cycle", t, warmup=0.4, warmup_shape=shape, warmup_power=3.0, start=0.5, peak=0.5, anneal="linear")
    np.testing.assert_allclose(found, [*(0.5 * risen(t[:4] / 0.4, shape, 3.0)), 0.5, 1.0], rtol=1e-5, atol=1e-7)


def test_the_power_of_a_warmup_bends_only_the_shapes_that_have_one():
    x = jnp.linspace(0, 1, 11, dtype=jnp.float32)
    for shape in ("linear", "cosine"):
        np.testing.assert_array_equal(rise(x, shape, 0.5), rise(x, shape, 5.0))
    for power in (1e-30, 1e-4, 1.0, 80.0, 1e30):
        found = np.asarray(rise(x, "exponential", jnp.float32(power)))
        assert (found[0], found[-1]) == (0, 1)
        assert (np.diff(found) >= 0).all()
    np.testing.assert_allclose(rise(x, "exponential", jnp.float32(1e-30)), x, atol=1e-6)
    with pytest.raises(ValueError, match="no warm-up has the shape 'square'"):
        rise(x, "square", 1.0)


@pytest.mark.parametrize("none", [0, 0.0])
def test_no_warmup_leaves_nothing_in_the_program(none):
    t = jnp.float32(0.5)
    plain = str(jax.make_jaxpr(bare("cosine"))(t))
    assert str(jax.make_jaxpr(schedules.cosine)(t)) == plain
    assert str(jax.make_jaxpr(functools.partial(schedules.cosine, warmup=none, warmup_shape="cosine"))(t)) == plain
    assert str(jax.make_jaxpr(functools.partial(schedules.cosine, warmup=0.1))(t)) != plain


def test_warmed_calls_its_function_once():
    calls = []
    warmed(lambda x: calls.append(x) or jnp.ones_like(x), jnp.float32(0.5), warmup=jnp.float32(0.1))
    assert len(calls) == 1


def test_one_warmup_can_stand_before_several_families():
    """As in a mixture: the family is an index, and differs between members."""

    def mixture(t, family, warmup):
        return warmed(lambda x: jax.lax.switch(family, list(map(bare, FAMILIES)), x), t, warmup=warmup, warmup_shape="cosine")

    t, members = PROGRESS[::10], np.arange(len(FAMILIES))
    found = jax.jit(jax.vmap(jax.vmap(mixture, (0, None, None)), (None, 0, 0)))(t, members, np.float32(members / 50))
    for name, warmup, ours in zip(FAMILIES, np.float32(members / 50), found, strict=True):
        np.testing.assert_allclose(ours, curve(name, t, warmup=warmup, warmup_shape="cosine"), rtol=1e-6, atol=1e-6)


def test_a_familys_own_function_is_found_behind_its_warmup():
    assert bare("wsd") is bare(schedules.wsd) is schedules.wsd.bare
    assert bare(bare("wsd")) is bare("wsd")
    bound = functools.partial(schedules.wsd, cooldown="sqrt", warmup=0.2, warmup_shape="cosine", warmup_power=3.0)
    assert bare(bound).func is bare("wsd")
    assert bare(bound).keywords == {"cooldown": "sqrt"}
    assert list(settings(bare(bound))) == ["decay", "end", "cooldown"]
    assert bare(bare(bound)).func is bare("wsd")
    assert bare(bound)(jnp.float32(0.95)) == schedules.wsd(jnp.float32(0.95), cooldown="sqrt")


def test_a_users_own_family_takes_a_warmup():
    def sawtooth(t, *, teeth: NonNegative = 4.0):
        """Falls again and again.

        Args:
            t: f32[], progress.
            teeth: How often.
        """
        return 1.0 - jnp.mod(teeth * t, 1.0)

    ours = with_warmup(sawtooth)
    assert list(settings(ours)) == ["teeth", *WARM]
    assert settings(ours)["teeth"].help == "How often."
    assert settings(ours)["warmup"].help
    assert ours.__name__ == "sawtooth"
    np.testing.assert_allclose([ours(jnp.float32(t), teeth=2.0, warmup=0.5) for t in (0.25, 0.5, 0.625)], [0.5, 1.0, 0.5])


# --------------------------------------------------------------------------------------------- as others have the curves

STEPS = 200
TIMES = np.arange(STEPS) / STEPS


def assert_is(theirs, name, **values):
    """Equal to an optax schedule of 200 steps, or to an array of its values."""
    expected = np.asarray(jax.vmap(theirs)(jnp.arange(STEPS)) if callable(theirs) else theirs)
    np.testing.assert_allclose(curve(name, TIMES, **values), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(("warmup", "end"), [(0.0, 0.0), (0.25, 0.0), (0.1, 0.1), (0.5, 0.9), (0.99, 0.5), (0.3, 1.0)])
def test_cosine_with_a_warmup_is_warmup_cosine_of_optax(warmup, end):
    theirs = optax.warmup_cosine_decay_schedule(0.0, 1.0, round(warmup * STEPS), STEPS, end)
    assert_is(theirs, "cosine", warmup=warmup, end=end)


@pytest.mark.parametrize(("exponent", "end"), [(1.0, 0.0), (0.5, 0.1), (3.0, 0.2)])
def test_cosine_is_that_of_optax(exponent, end):
    assert_is(optax.cosine_decay_schedule(1.0, STEPS, alpha=end, exponent=exponent), "cosine", exponent=exponent, end=end)


@pytest.mark.parametrize("end", [0.0, 0.3, 2.0])
def test_linear_is_that_of_optax(end):
    assert_is(optax.linear_schedule(1.0, end, STEPS), "linear", end=end)


@pytest.mark.parametrize(("power", "end"), [(0.5, 0.0), (2.0, 0.1), (3.0, 2.0)])
def test_polynomial_is_that_of_optax(power, end):
    assert_is(optax.polynomial_schedule(1.0, end, power, STEPS), "polynomial", power=power, end=end)


@pytest.mark.parametrize("end", [1e-3, 0.5, 3.0])
def test_exponential_is_that_of_optax(end):
    assert_is(optax.exponential_decay(1.0, STEPS, end), "exponential", end=end)


@pytest.mark.parametrize("end", [1e-3, 0.5])
def test_exponential_with_a_warmup_is_warmup_exponential_of_optax(end):
    theirs = optax.warmup_exponential_decay_schedule(0.0, 1.0, 50, 150, end)
    assert_is(theirs, "exponential", end=end, warmup=0.25)


@pytest.mark.parametrize(("factor", "every"), [(0.1, 50), (0.5, 20), (0.9, 66)])
def test_step_is_piecewise_constant_of_optax(factor, every):
    theirs = optax.piecewise_constant_schedule(1.0, dict.fromkeys(range(every, STEPS, every), factor))
    assert_is(theirs, "step", factor=factor, every=every / STEPS)


@pytest.mark.parametrize(("steps", "factor", "peak"), [(25, 1, 1.0), (50, 1, 0.5), (10, 2, 1.0), (8, 3, 0.7)])
def test_restarts_are_sgdr_of_optax(steps, factor, peak):
    cycles = [{"init_value": 0.0, "peak_value": peak**i, "warmup_steps": 0, "decay_steps": steps * factor**i} for i in range(8)]
    theirs = optax.sgdr_schedule(cycles)
    assert_is(theirs, "cosine_restarts", period=steps / STEPS, period_factor=float(factor), peak_factor=peak)


@pytest.mark.parametrize(("peak", "div", "final_div"), [(0.3, 25.0, 1e4), (0.5, 10.0, 10.0), (0.1, 2.0, 100.0)])
def test_one_cycle_is_cosine_onecycle_of_optax(peak, div, final_div):
    theirs = optax.cosine_onecycle_schedule(STEPS, 1.0, peak, div, final_div)
    assert_is(theirs, "one_cycle", peak=peak, start=1 / div, end=1 / div / final_div)


@pytest.mark.parametrize(("peak", "div", "final_div"), [(0.3, 25.0, 1e4), (0.4, 10.0, 10.0), (0.1, 2.0, 100.0)])
def test_one_cycle_in_three_phases_is_linear_onecycle_of_optax(peak, div, final_div):
    theirs = optax.linear_onecycle_schedule(STEPS, 1.0, peak, 2 * peak, div, final_div)
    assert_is(theirs, "one_cycle", peak=peak, start=1 / div, end=1 / div / final_div, anneal="linear", three_phase=True)


def test_two_points_are_a_piecewise_interpolation_of_optax():
    theirs = optax.piecewise_interpolate_schedule("linear", 1.0, {50: 0.8, 125: 0.5, 200: 0.25})
    assert_is(theirs, "two_points_linear", delta_x1=0.25, y1=0.8, delta_x2=0.5, delta_y2=0.5, delta_end=0.25)


# Closed forms of torch.optim.lr_scheduler, as its documentation gives them (docs.pytorch.org/docs/stable/optim.html).


@pytest.mark.parametrize(("gamma", "step_size"), [(0.1, 30), (0.5, 7), (0.9, 100)])
def test_step_is_step_lr_of_pytorch(gamma, step_size):
    """StepLR: gamma every step_size epochs, and no boundary is a step late."""
    theirs = gamma ** (np.arange(STEPS) // step_size)
    assert_is(theirs, "step", factor=gamma, every=step_size / STEPS)


@pytest.mark.parametrize(("t_0", "t_mult", "eta_min"), [(50, 1, 0.0), (7, 1, 0.1), (10, 2, 0.0), (13, 3, 0.2)])
def test_restarts_are_those_of_pytorch(t_0, t_mult, eta_min):
    """CosineAnnealingWarmRestarts: `eta_min + (1 - eta_min) (1 + cos(pi T_cur / T_i)) / 2`, T_i times T_mult a restart."""
    theirs, length, done = [], t_0, 0
    for _ in range(STEPS):
        theirs.append(eta_min + (1 - eta_min) * (1 + np.cos(np.pi * done / length)) / 2)
        done += 1
        if done == length:
            length, done = length * t_mult, 0
    assert_is(theirs, "cosine_restarts", period=t_0 / STEPS, period_factor=float(t_mult), end=eta_min)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize(("step_size", "base_lr"), [(25, 0.1), (10, 0.0), (7, 0.5)])
def test_cycles_are_cyclic_lr_of_pytorch(mode, step_size, base_lr):
    """CyclicLR(base_lr, max_lr=1, step_size_up): cycle = floor(1 + it / total_size), x = 1 + it / total_size - cycle."""
    it, total = np.arange(STEPS), 2 * step_size
    cycle = np.floor(1 + it / total)
    x = 1 + it / total - cycle
    scale = np.where(x <= 0.5, x / 0.5, (x - 1) / (0.5 - 1))
    gamma = 0.99
    amplitude = {"triangular": 1.0, "triangular2": 1 / 2.0 ** (cycle - 1), "exp_range": gamma**it}[mode]
    more = {"gamma": gamma**STEPS} if mode == "exp_range" else {}
    assert_is(base_lr + (1 - base_lr) * scale * amplitude, mode, period=total / STEPS, low=base_lr, **more)


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("pct_start", [0.3, 0.1])
def test_one_cycle_is_that_of_pytorch(anneal, three_phase, pct_start):
    """OneCycleLR, whose phases end a step before ours: its course of T + 1 steps has the peak on our step."""
    peak, div, final_div = pct_start * STEPS, 25.0, 1e4
    lr = [(0, 1 / div), (peak, 1.0), *([(2 * peak, 1 / div)] if three_phase else []), (STEPS, 1 / div / final_div)]
    momentum = [(0, 0.95), (peak, 0.85), *([(2 * peak, 0.95)] if three_phase else []), (STEPS, 0.95)]

    def theirs(phases):
        values = []
        for it in range(STEPS):
            (begin, a), (end, b) = next(pair for pair in itertools.pairwise(phases) if it < pair[1][0])
            pct = (it - begin) / (end - begin)
            values.append(b + (a - b) / 2 * (1 + np.cos(np.pi * pct)) if anneal == "cosine" else (b - a) * pct + a)
        return np.array(values)

    shared = {"peak": pct_start, "anneal": anneal, "three_phase": three_phase}
    assert_is(theirs(lr), "one_cycle", start=1 / div, end=1 / div / final_div, **shared)
    assert_is(theirs(momentum) / 0.95, "one_cycle_momentum", low=0.85 / 0.95, **shared)


# ----------------------------------------------------------------------------------------------------------- each family


def test_constant_is_one():
    assert (curve("constant", PROGRESS) == 1).all()


def test_cosine_with_a_warmup_rises_to_one_and_falls_to_its_end():
    found = curve("cosine", [0.0, 0.125, 0.25, 0.625, 1.0], warmup=0.25, end=0.2)
    np.testing.assert_allclose(found, [0.0, 0.5, 1.0, 0.6, 0.2], atol=1e-6)


def test_what_falls_to_zero_is_exact_to_the_last_step():
    last = np.float32(1 - 2.0**-20)  # of a million; 1 + cos(pi x) would be 0 in float32
    np.testing.assert_allclose(curve("cosine", [last], exponent=0.5), np.pi / 2 * 2.0**-20, rtol=1e-4)
    np.testing.assert_allclose(curve("sqrt", [last]), np.sqrt(2 * 2.0**-20), rtol=1e-4)


def test_a_decay_may_rise():
    """Weight decay that grows while the learning rate falls."""
    for name in ("linear", "polynomial", "cosine", "exponential", "wsd"):
        found = curve(name, [0.0, 1.0], end=1e10)
        np.testing.assert_allclose(found, [1.0, 1e10], rtol=1e-5)


def test_rex_of_the_paper():
    x = PROGRESS.astype(float)
    np.testing.assert_allclose(curve("rex", PROGRESS), (1 - x) / (0.5 + 0.5 * (1 - x)), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "values"),
    [("sqrt", {"alpha": 0.0}), ("rex", {"beta": 0.0}), ("wsd", {"decay": 0.0}), ("step", {"factor": 1.0})],
)
def test_a_family_without_its_knob_is_constant(name, values):
    assert (curve(name, PROGRESS, **values) == 1).all()


@pytest.mark.parametrize(
    ("horizon", "every"),
    [(1000, 1), (1000, 3), (1000, 7), (1000, 49), (1000, 333), (30_000, 30), (30_000, 77), (300_000, 1001), (300_000, 299_999)],
)
def test_a_period_opens_on_its_step(horizon, every):
    """float32 rounds progress; a boundary must not come a step late or early for it."""
    openings = np.arange(0, horizon, every)[:300]
    steps = np.unique([openings, openings + 1, np.maximum(openings - 1, 0)])
    steps = steps[steps < horizon]
    found = curve("step", (steps / horizon).astype(np.float32), factor=0.9, every=every / horizon)
    np.testing.assert_allclose(found, 0.9 ** (steps // every), rtol=1e-4)


@pytest.mark.parametrize("factor", [1.0, np.nextafter(np.float32(1), np.float32(2)), 1.00001, 1.001])
def test_restarts_hardly_change_when_periods_hardly_grow(factor):
    t = PROGRESS + np.float32(0.0005)
    np.testing.assert_allclose(
        curve("cosine_restarts", t, period=0.1, period_factor=factor),
        cosine_restarts(t.astype(float), 0.1, float(factor), 1.0, 0.0),
        atol=1e-4,
    )


def test_two_points_are_linear_by_default():
    for name in ("two_points_linear", "two_points_spline"):
        np.testing.assert_allclose(curve(name, PROGRESS), 1 - PROGRESS, atol=1e-6)


@given(
    gaps=st.lists(st.floats(0.03125, 1.0, width=16), min_size=2, max_size=2),
    values=st.lists(st.floats(0.0, 1.0, width=16), min_size=3, max_size=3),
    inner=st.floats(0.0, 1.0, width=16),
)
def test_pchip_is_that_of_scipy(gaps, values, inner):
    knots = np.float32(np.cumsum([0.0, *gaps, gaps[0]]))
    values = np.float32([*values, inner])
    x = np.linspace(knots[0], knots[-1], 200, dtype=np.float32)
    found = _pchip(x, tuple(knots), tuple(values))
    np.testing.assert_allclose(found, PchipInterpolator(knots.astype(float), values)(x), atol=3e-5)


_pchip = jax.jit(pchip)


def test_pchip_is_level_outside_its_knots():
    x = np.float32([-1.0, 0.0, 2.0, 3.0])
    np.testing.assert_array_equal(_pchip(x, (0.0, 1.0, 2.0), (0.5, 1.0, 0.25)), [0.5, 0.5, 0.25, 0.25])


def test_the_peak_may_lie_before_between_and_after_the_points():
    for peak in (0.1, 0.5, 0.9):
        found = curve("smooth_nonmonotonic", PROGRESS, delta_x1=0.3, delta_x2=0.5, peak=peak)
        assert abs(PROGRESS[found.argmax()] - peak) < 1e-3
        np.testing.assert_allclose(found.max(), 1.0, atol=1e-6)


def test_every_value_of_a_table_counts():
    flat = curve("table", PROGRESS, values=(1.0,) * LENGTH, interpolation="step")
    assert (flat == 1).all()
    for i, interpolation in itertools.product(range(LENGTH), ("linear", "step")):
        values = tuple(float(k == i) for k in range(LENGTH))
        assert curve("table", PROGRESS, values=values, interpolation=interpolation).max() > 0.9


@pytest.mark.parametrize("length", [2, 3, 7, 100])
def test_a_table_may_have_any_length(length):
    values = np.random.default_rng(length).uniform(0, 2, length).astype(np.float32)
    offset = PROGRESS + np.float32(0.0003)
    for interpolation in ("linear", "step"):
        for given_values in (jnp.asarray(values), tuple(map(float, values))):
            found = jax.jit(lambda t, v, i=interpolation: schedules.table(t, values=v, interpolation=i))(offset, given_values)
            np.testing.assert_allclose(found, table(offset.astype(float), values, interpolation), rtol=1e-4, atol=1e-5)
